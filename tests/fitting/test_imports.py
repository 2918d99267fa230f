"""What importing from `ragscale.fitting` says and costs."""

import subprocess
import sys

import pytest

import ragscale as rs


@pytest.mark.parametrize("name", rs.fitting._DECISIONS)
def test_a_name_that_moved_says_where_it_is_however_it_is_asked_for(name: str) -> None:
    where = rf"it is ragscale\.decisions\.{name} now"
    assert hasattr(rs.decisions, name)
    with pytest.raises(ImportError, match=where):
        exec(f"from ragscale.fitting import {name}")
    with pytest.raises(AttributeError, match=where):
        getattr(rs.fitting, name)
    assert not hasattr(rs.fitting, name)


def test_a_name_that_never_was_is_pythons_own_error() -> None:
    with pytest.raises(ImportError, match="cannot import name 'no_such_thing'"):
        exec("from ragscale.fitting import fit_manifold, no_such_thing")


def test_a_first_fit_does_not_wait_for_what_it_does_not_use() -> None:
    program = """
import sys, pandas as pd, ragscale as rs
table = pd.DataFrame([(n, d) for n in (1e8, 1e9, 1e10) for d in (1e9, 1e10, 1e11)], columns=["N", "D"])
table["value"] = 1.7 + 400 * table.N**-0.34 + 410 * table.D**-0.28
rs.fit_manifold(table, "chinchilla").params
print([m for m in ("scipy.stats", "scipy.optimize", "scipy.ndimage", "lmfit", "matplotlib") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
