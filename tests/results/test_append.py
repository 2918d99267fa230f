"""Nothing that stands in a file is lost by appending to it, whatever it is."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import warnings

import pandas as pd
import pytest

from ragscale.errors import FileError, ResultsError
from ragscale.results import append, read, write

ROW = {"N": [2e9], "D": [1e10], "R": [0], "value": [2.5]}
OLD = [{"N": 1e9, "D": 1e10 + i, "R": 0, "value": 2.0} for i in range(50)]
LINES = "\n".join(json.dumps(row) for row in OLD)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes", b"my own notes, in one line and without an end of line"),
        ("notes in lines", b"one\ntwo\nthree"),
        ("a comma too many", LINES[:-1].encode() + b",}"),
        ("a comma too many, alone", LINES[:-1].rpartition("\n")[2].encode() + b",}"),
        ("a remark behind the last row", LINES.encode() + b"  # run again?"),
        ("a remark on a line of its own", LINES.encode() + b"\n# run again?"),
        ("two rows in one line", LINES.replace("\n", " ").encode()),
        ("single quotes", LINES.replace('"', "'").encode()),
        ("carriage returns", LINES.replace("\n", "\r").encode()),
        ("gzip", gzip.compress(LINES.encode())),
        ("gzip with a line end", gzip.compress(LINES.encode()) + b"\n"),
        ("UTF-16", LINES.encode("utf-16")),
        ("Latin-1", LINES.encode() + '\n{"N": 1e9, "task": "é"'.encode("latin-1")),
        ("zeros", bytes(400)),
        ("a list", f"[{LINES.replace(chr(10), ',')}]".encode()),
        ("rows of something else", b'{"prompt": "Who?", "answer": "Me"}\n'),
        ("half a row of something else", b'{"prompt": "Who?", "answer'),
        ("a number", b"42"),
        ("text in quotes", b'"only a string"\n'),
    ],
)
def test_a_file_that_is_no_results_table_is_refused_and_stays_as_it_is(tmp_path, name, content):
    path = tmp_path / "results.jsonl"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ResultsError, match=r"results\.jsonl"):
            append(ROW, path)
    assert path.read_bytes() == content, name
    assert os.listdir(tmp_path) == ["results.jsonl"]


def test_rows_of_other_programs_are_kept_byte_for_byte(tmp_path):
    path = tmp_path / "results.jsonl"
    before = LINES.replace(", ", " ,  ").replace("\n", "\r\n").encode()
    for content in (before, before + b"\r\n", before + b"\n\n", b"\n", b"   "):
        path.write_bytes(content)
        append(ROW, path)
        assert path.read_bytes().startswith(content)
        assert len(read(path)) == 1 + 50 * (len(content) > 10)


def test_half_a_row_of_our_own_is_removed_wherever_it_was_cut(tmp_path):
    path = tmp_path / "results.jsonl"
    table = pd.DataFrame(
        {
            "N": [1e9, 1e9],
            "D": [1e10, 2e10],
            "R": 0.0,
            "value": [2.0, 1.5],
            "task": ["a", 'é, "b"\\'],
            "ok": [True, None],
        }
    )
    write(table, path)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first + 1, len(whole) - 1, 2):
        path.write_bytes(whole[:cut])
        if whole[:cut].endswith(b"}"):  # a whole row without its line end
            continue
        append(table.iloc[[1]], path)
        assert path.read_bytes() == whole, whole[first:cut]
    for cut in range(1, first - 2, 3):
        path.write_bytes(whole[:cut])
        append(table, path)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_row_that_contradicts_one_that_is_there_is_refused(tmp_path, suffix):
    path = tmp_path / f"results{suffix}"
    append(ROW, path)
    before = path.read_bytes()
    with pytest.raises(ResultsError, match=r"(?s)results\..*were not added.*several values"):
        append({**ROW, "value": [9.9]}, path)
    assert path.read_bytes() == before
    append({**ROW, "seed": [1], "value": [9.9]}, path)
    assert len(read(path)) == 2


def test_the_lines_of_a_csv_stay_as_they_are(tmp_path):
    path = tmp_path / "results.csv"
    before = b'run,value,N,D,R,"a, note"\n"first run",2.50,1e9,2E10,0,"he said ""no"""\n'
    for content in (before, before.rstrip(b"\n"), before.replace(b"\n", b"\r\n")):
        path.write_bytes(content)
        append({**ROW, "run": ["x, y"]}, path)
        assert path.read_bytes().startswith(content)
        assert path.read_bytes().endswith(b'"x, y",2.5,2000000000.0,10000000000.0,0.0,\n')
        assert read(path)["run"].tolist() == ["first run", "x, y"]
    append({**ROW, "run": ["z"], "seed": [3]}, path)
    assert b'"he said ""no"""' in path.read_bytes()
    assert b"2E10" in path.read_bytes()
    assert read(path)["seed"].isna().tolist() == [True, True, False]


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files, which Windows cannot")
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_full_disk_adds_all_rows_or_none_and_a_retry_counts_nothing_twice(tmp_path, suffix):
    import resource

    path = tmp_path / f"results{suffix}"
    many = pd.DataFrame([{**row, "N": 3e9} for row in OLD])
    append(ROW, path)
    before = path.read_bytes()
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(FileError, match=r"no room to write .*results\."):
            append(many, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    append(many, path)
    assert len(read(path)) == 51
    assert len(os.listdir(tmp_path)) == 1


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "results.jsonl").symlink_to(tmp_path / "real" / "results.jsonl")
    append(ROW, tmp_path / "results.jsonl")
    append({**ROW, "N": [3e9]}, tmp_path / "results.jsonl")
    assert (tmp_path / "results.jsonl").is_symlink()
    assert len(read(tmp_path / "real" / "results.jsonl")) == 2


def test_a_killed_appender_leaves_whole_batches(tmp_path):
    path = tmp_path / "results.jsonl"
    code = f"""
import pandas as pd
from ragscale.results import append
for i in range(100000):
    rows = pd.DataFrame({{"N": 1e9, "D": 2e10 + 1e6 * i, "R": [0.0, 1e9, 2e9], "value": [3.0, 2.0, 1.0]}})
    append(rows, {str(path)!r})
    print(i, flush=True)
"""
    done = -1
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            done = int(line)
            if done >= 10:
                process.kill()
    assert len(read(path)) in (3 * done + 3, 3 * done + 6)
