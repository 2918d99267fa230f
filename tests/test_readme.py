"""README's code runs as it stands, and what it links to is there."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

import ragscale as rs

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
# a block that imports the library stands on its own; the others show calls on what the reader has
ALONE = [block for block in BLOCKS if "import ragscale" in block]


def test_there_is_a_block_to_run() -> None:
    assert ALONE


@pytest.mark.parametrize("block", ALONE)
def test_a_block_runs_as_it_stands(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rs.errors.RagscaleWarning)  # advice on the table is no failure
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    best = names["best"]
    assert isinstance(best, rs.decisions.Allocation)
    # what the text below the block says of its last line
    assert printed.splitlines()[-1].startswith("N = 1.1e+07, 5.2e+07 tokens: pretrain on 2.4")
    assert float(best.D) == pytest.approx(24.4e6, rel=0.03)


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_are_python_and_name_what_exists(block: str) -> None:
    compile(block, "README.md", "exec")
    for dotted in re.findall(r"\brs\.([A-Za-z_0-9.]+)", block):
        found: object = rs
        for part in dotted.split("."):
            found = getattr(found, part)


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the pages are in the repository, not in the source archive")
def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", README)
    missing = [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]
    assert missing == []
