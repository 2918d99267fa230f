"""A name that begins with an underscore stays in its file: what another file needs has no underscore."""

import ast
from pathlib import Path

import ragscale

ROOT = Path(ragscale.__file__).parent


def borrowed(path: Path) -> list[str]:
    """Return the private names that a file imports from another; private files are no names."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "ragscale":
            folder = ROOT.parent / Path(*(node.module or "").split("."))
            for name in (alias.name for alias in node.names):
                is_file = (folder / f"{name}.py").exists() or (folder / name).is_dir()
                if name.startswith("_") and not name.startswith("__") and not is_file:
                    found.append(f"{path.relative_to(ROOT)}: {node.module}.{name}")
    return found


def test_private_names_stay_in_their_file():
    files = sorted(ROOT.rglob("*.py"))
    assert len(files) > 300
    assert [one for path in files for one in borrowed(path)] == []


def test_a_borrowed_name_is_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path / "ragscale")
    (tmp_path / "ragscale").mkdir()
    (tmp_path / "ragscale" / "_files.py").touch()
    path = tmp_path / "ragscale" / "a.py"
    path.write_text("from ragscale import _files, __version__\nfrom ragscale.b import _secret, open_one\n")
    assert borrowed(path) == ["a.py: ragscale.b._secret"]
