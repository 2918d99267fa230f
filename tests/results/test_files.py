"""Tables on disk: bit for bit round trips, and files that survive a kill."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragscale.errors import RagscaleError, ResultsError, ResultsWarning
from ragscale.results import append, read, write

SUFFIXES = [".jsonl", ".csv", ".parquet"]


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    if request.param == ".parquet":
        pytest.importorskip("pyarrow")
    return tmp_path / f"results{request.param}"


def test_numbers_come_back_bit_for_bit(table, path):
    rng = np.random.default_rng(0)
    table["value"] = rng.normal(2, 1, len(table)) / 3
    table["stderr"] = [0.1 + 0.2, np.nan, 1e-300, 5e-324]
    table["run"] = ["001", "NA", "nan", 'é\u2028,"\n']
    write(table, path)
    back = read(path)
    for column in ("N", "D", "R", "value", "stderr"):
        np.testing.assert_array_equal(back[column], table[column].astype(float))
    assert list(back["run"]) == list(table["run"])
    assert list(back["task"]) == list(table["task"])


def test_appending_row_by_row_equals_writing_at_once(table, path, tmp_path):
    for i in range(len(table)):
        append(table.iloc[[i]], path)
    write(table, tmp_path / f"whole{path.suffix}")
    pd.testing.assert_frame_equal(read(path), read(tmp_path / f"whole{path.suffix}"))


def test_a_bad_table_leaves_the_file_untouched(table, path):
    write(table, path)
    before = path.read_bytes()
    for function in (append, write):
        with pytest.raises(ResultsError):
            function(table.assign(value="x"), path)
        with pytest.raises(ResultsError):
            function(table.assign(note=[object()] * 4), path) if path.suffix != ".csv" else function(None, path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_failed_write_leaves_the_old_file(table, path, monkeypatch):
    write(table, path)
    before = path.read_bytes()

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write(table.assign(value=1.0 + table.index), path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_half_a_row_is_reported_on_reading_and_removed_on_appending(table, tmp_path):
    path = tmp_path / "results.jsonl"
    write(table, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.warns(ResultsWarning, match="half a row"):
        assert len(read(path)) == 3
    append(table.iloc[[3]], path)
    assert path.read_bytes() == whole


def test_a_last_row_without_newline_is_whole(table, tmp_path):
    path = tmp_path / "results.jsonl"
    write(table.iloc[:3], path)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    append(table.iloc[[3]], path)
    assert len(read(path)) == 4


def test_a_damaged_line_in_the_middle_is_an_error_with_its_number(table, tmp_path):
    path = tmp_path / "results.jsonl"
    write(table, path)
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1][:10]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(ResultsError, match="line 2"):
        read(path)


WRITER = """
import sys, pandas as pd
from ragscale.results import append
for i in range(100000):
    rows = pd.DataFrame({"N": 1e9, "D": 2e10 + 1000 * i, "R": [0.0, 1e9], "value": [3.0, 2.0], "run": "x" * 3000})
    append(rows, sys.argv[1])
    if i == 0:
        print("started", flush=True)
"""


def test_a_killed_appender_loses_at_most_the_row_it_was_writing(tmp_path):
    path = tmp_path / "results.jsonl"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)
        survived = len(read(path))
        assert survived >= 2
        append(pd.DataFrame({"N": [1e9], "D": [9e12], "R": [0.0], "value": [2.9]}), path)
    assert len(read(path)) == survived + 1


def _append_some(arguments):
    path, worker = arguments
    for i in range(10):
        append({"N": [1e9], "D": [2e10], "R": [0.0], "value": [1.0 + i], "run": [f"{worker}-{i}"]}, path)


def test_appenders_at_once_lose_nothing(tmp_path):
    for suffix in (".jsonl", ".csv"):
        path = tmp_path / f"results{suffix}"
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            pool.map(_append_some, [(path, w) for w in range(2)])
        assert read(path)["run"].nunique() == 20


def test_unknown_suffixes_missing_files_and_other_content_are_named(table, tmp_path):
    for function in (lambda: write(table, tmp_path / "r.xlsx"), lambda: read(tmp_path / "r.txt")):
        with pytest.raises(ResultsError, match=r"suffix .* is not one of \.jsonl, \.csv, \.parquet"):
            function()
    for suffix in SUFFIXES:
        with pytest.raises(FileNotFoundError):
            read(tmp_path / f"absent{suffix}")


@given(
    content=st.one_of(st.binary(max_size=60), st.text(alphabet='N,DRvalue\n"{}[]:01e9', max_size=60).map(str.encode))
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_file_raises_anything_but_a_ragscale_error(tmp_path_factory, suffix, content):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    with warnings.catch_warnings(), contextlib.suppress(RagscaleError):
        warnings.simplefilter("ignore", ResultsWarning)
        read(path)
