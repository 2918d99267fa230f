"""A table reads the same from whatever program wrote it: separators, decimal commas, marks, line ends, parts."""

from __future__ import annotations

import pandas as pd
import pytest

from ragscale.errors import ResultsError
from ragscale.results import append, read, write

PLAIN = "N,D,R,value,task\n100000000,2000000000,0,3.25,qa\n300000000,2000000000,1000000000,2.5e0,qa\n"
EUROPEAN = "N;D;R;value;task\n100000000;2000000000;0;3,25;qa\n300000000;2000000000;1000000000;2,5e0;qa\n"


@pytest.fixture
def expected(tmp_path):
    (tmp_path / "plain.csv").write_text(PLAIN)
    return read(tmp_path / "plain.csv")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.encode("utf-16"),
        EUROPEAN.encode(),
        b"\xef\xbb\xbf" + EUROPEAN.replace("\n", "\r\n").encode(),
        b"sep=;\r\n" + EUROPEAN.encode(),
        EUROPEAN.replace(";", "\t").encode(),
        PLAIN.replace(",", "\t").encode("utf-16"),
        PLAIN.replace("\n", "\n\n").encode(),
    ],
)
def test_every_dialect_gives_the_same_table(tmp_path, expected, content):
    (tmp_path / "other.csv").write_bytes(content)
    pd.testing.assert_frame_equal(read(tmp_path / "other.csv"), expected)


def test_decimal_commas_beside_points_are_not_guessed_at(tmp_path):
    (tmp_path / "mixed.csv").write_text(EUROPEAN.replace("2,5e0", "2.5"))
    with pytest.raises(ResultsError, match=r"column 'value' has decimal commas \(row 0: '3,25'\) and points \(row 1"):
        read(tmp_path / "mixed.csv")


def test_one_cell_that_is_no_number_is_named_alone(tmp_path):
    rows = [f"100000000,{2_000_000_000 + i},0,{3 - i / 100}" for i in range(40)]
    for bad in ("N/A", "-", "diverged", "#REF!"):
        lines = [*rows[:29], rows[29].rpartition(",")[0] + f",{bad}", *rows[30:]]
        (tmp_path / "t.csv").write_text("N,D,R,value\n" + "\n".join(lines))
        with pytest.raises(ResultsError, match=r"1 of 40 values is not a number \(row 29: '" + bad):
            read(tmp_path / "t.csv")


def test_a_latin_1_file_says_how_to_save_it(tmp_path):
    (tmp_path / "t.csv").write_bytes(PLAIN.replace("qa", "qé").encode("latin-1"))
    with pytest.raises(ResultsError, match="UTF-8"):
        read(tmp_path / "t.csv")


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json"])
def test_a_folder_of_parts_is_one_table(tmp_path, expected, suffix):
    folder = tmp_path / f"results{suffix}"
    folder.mkdir()
    for i in range(2):
        part = folder / f"part-0000{i}-c000{suffix}"
        rows = expected.iloc[i : i + 1]
        if suffix == ".json":
            rows.to_json(part, orient="records", lines=True)
        elif suffix == ".csv":
            rows.to_csv(part, index=False)
        else:
            rows.to_parquet(part, index=False)
    (folder / "_SUCCESS").touch()
    (folder / ".part-00000.crc").write_bytes(b"crc")
    pd.testing.assert_frame_equal(read(folder), expected, check_dtype=False)


def test_folders_that_are_no_table_are_refused_with_what_they_hold(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    with pytest.raises(ResultsError, match="it is empty"):
        read(folder)
    (folder / "part-0.csv").write_text(PLAIN)
    (folder / "notes.txt").write_text("x")
    with pytest.raises(ResultsError, match=r"notes\.txt"):
        read(folder)
    (folder / "notes.txt").unlink()
    (folder / "part-1.csv").write_text(PLAIN.replace("task", "domain"))
    with pytest.raises(ResultsError, match=r"part-1\.csv has the columns .*domain"):
        read(folder)
    (folder / "part-1.csv").rename(folder / "part-1.jsonl")
    with pytest.raises(ResultsError, match=r"\.csv, \.jsonl"):
        read(folder)


def test_rows_are_never_added_to_a_file_in_another_dialect(tmp_path, expected):
    path = tmp_path / "excel.csv"
    for content in (EUROPEAN.encode(), PLAIN.encode("utf-16")):
        path.write_bytes(content)
        with pytest.raises(ResultsError, match="written with commas"):
            append(expected.assign(N=9e9), path)
        assert path.read_bytes() == content
    write(read(path), tmp_path / "again.csv")
    append(expected.assign(N=9e9), tmp_path / "again.csv")
    assert len(read(tmp_path / "again.csv")) == 4
