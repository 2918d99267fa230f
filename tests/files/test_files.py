"""Files that are whole or absent, folders that keep the user's own, locks, and the reader that trusts nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ragscale import _files
from ragscale._files import _folders
from ragscale.errors import CheckpointError, FileError, MissingFileError, RagscaleError, SplitError


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------------------------------------------- JSON


def test_json_comes_back_as_it_was_with_nan_and_infinity(tmp_path):
    value = {"a": [1, 2.5, None, True], "é": {"x": float("inf")}, "tuple": (1, 2)}
    _files.write_json(tmp_path / "a.json", value, schema="s", version=2)
    found = _files.read_json(tmp_path / "a.json", schema="s", version=2)
    assert found == {"schema": "s", "schema_version": 2, **value, "tuple": [1, 2]}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"\xff\xfe{",
        b"\x00" * 50,
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"schema": "other", "schema_version": 1}',
        b'{"schema": "s"}',
        b'{"schema": "s", "schema_version": "1"}',
        b'{"schema": "s", "schema_version": true}',
        b'{"schema": "s", "schema_version": 2}',
        b'{"schema": ["s"], "schema_version": 1}',
        b'{"schema": "s", "schema_version": 1, "n": "1"}',
        b'{"schema": "s", "schema_version": 1, "n": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_not_ours_is_refused_with_the_name_of_the_file(tmp_path, text):
    (tmp_path / "some.json").write_bytes(text)
    with pytest.raises(SplitError, match=r"some\.json"):
        _files.read_json(tmp_path / "some.json", schema="s", version=1, error=SplitError, fields={"n": int})


def test_every_flipped_bit_is_found(tmp_path):
    path = tmp_path / "a.json"
    _files.write_json(path, {"n": 12, "text": "abc", "x": 0.25}, schema="s", version=1)
    whole = path.read_bytes()
    want = _files.read_json(path, schema="s", version=1)
    for at in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            try:
                found = _files.read_json(path, schema="s", version=1)
            except RagscaleError:
                continue
            # white space may change, and the name of the digest; the content may not
            assert {key: found[key] for key in want} == want, (at, bit)


def test_a_file_that_people_edit_carries_no_digest_and_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.json"
    _files.write_json(path, {"n": 12}, schema="s", version=1, seal=False)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"12", b"13"))
    assert _files.read_json(path, schema="s", version=1) == {"schema": "s", "schema_version": 1, "n": 13}


def test_all_problems_of_the_fields_are_named_at_once():
    with pytest.raises(CheckpointError, match=r"'a' is missing; 'b' holds bool, expected int; 'c' holds str"):
        _files.check_fields({"b": True, "c": "x"}, {"a": int, "b": int, "c": (list, dict)}, name="f")


def test_damage_found_while_objects_are_made_is_damage_of_the_file():
    with pytest.raises(CheckpointError, match=r"x\.npy is damaged: KeyError"), _files.damaged("x.npy"):
        {}["a"]
    with pytest.raises(SplitError, match="mine"), _files.damaged("x.npy"):
        raise SplitError("mine")


# ---------------------------------------------------------------------------------------------------- disk


def test_refusals_of_the_system_are_errors_of_both_kinds(tmp_path):
    with pytest.raises(MissingFileError, match=r"there is no file .*none\.json"):
        _files.load_json(tmp_path / "none.json")
    assert issubclass(MissingFileError, FileNotFoundError)
    assert issubclass(MissingFileError, RagscaleError)
    with pytest.raises(FileError, match="could not be read"):
        _files.load_json(tmp_path)
    full, read_only = OSError(28, "No space left on device"), OSError(30, "Read-only file system")
    says = r"no room to write .*a, about 1\.0 MiB.*free some space and try again"
    advice = {"error": CheckpointError, "size": 1 << 20, "advice": " and try again"}
    with pytest.raises(CheckpointError, match=says), _files.disk_errors(tmp_path / "a", **advice):
        raise full
    says = "give a folder that you may write to"
    with pytest.raises(FileError, match=says) as caught, _files.disk_errors(tmp_path / "a"):
        raise read_only
    assert caught.value.errno == 30


def test_a_full_disk_leaves_the_old_file(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "a"
    path.write_bytes(b"old")
    limit, before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(FileError, match=r"no room to write .*/a"), _files.atomic_write(path) as file:
            file.write(bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


# ---------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("exchange", [True, False], ids=["exchanged", "renamed"])
def test_a_folder_is_replaced_whole_and_strangers_are_carried_over(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(_folders, "_exchange", lambda new, path: False)
    path = tmp_path / "index"
    for number in range(3):
        with _files.whole_folder(path, ours=["data", "sub/old"]) as folder:
            (folder / "data").write_text(str(number))
            (folder / "sub").mkdir()
            (folder / "sub" / ("old" if number < 2 else "new")).write_text("x")
        if number == 0:
            (path / "sub" / "notes.txt").write_text("mine")
    assert names(tmp_path) == ["index/data", "index/sub/new", "index/sub/notes.txt"]
    assert (path / "data").read_text() == "2"


def test_an_error_leaves_the_old_folder(tmp_path):
    path = tmp_path / "index"
    with _files.whole_folder(path) as folder:
        (folder / "data").write_text("old")
    with pytest.raises(FileError), _files.whole_folder(path) as folder:
        (folder / "data" / "of a file").write_text("new")
    assert names(tmp_path) == ["index/data"]
    assert (path / "data").read_text() == "old"


def test_a_folder_that_lost_its_name_gets_it_back(tmp_path):
    path, aside = tmp_path / "index", tmp_path / ".index.123-0123abcd.old"
    aside.mkdir()
    (aside / "data").write_text("old")
    _files.recover_folder(path)
    assert names(tmp_path) == ["index/data"]
    (tmp_path / ".index.123-0123abcd.tmp").mkdir()
    (tmp_path / ".index.mine.tmp").mkdir()
    _files.remove_leftovers(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".index.mine.tmp", "index"]


def test_only_claimed_names_are_removed_or_replaced(tmp_path):
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "own.bin").write_text("mine")
    folder = _files.OwnedFolder(tmp_path, "split", error=SplitError)
    with pytest.raises(SplitError, match=r"holds tokens, which ragscale did not write"):
        folder.claim(["tokens", "passages"])
    assert names(tmp_path) == ["tokens/own.bin"]
    folder.claim(["passages"])
    (tmp_path / "passages").mkdir()
    (tmp_path / "new").mkdir()
    folder.put(tmp_path / "new", "passages")
    for name in ("tokens", "elsewhere"):
        if (tmp_path / name).exists():
            with pytest.raises(SplitError, match="is not removed"):
                folder.remove(name)
    again = _files.OwnedFolder(tmp_path, "split")
    assert again.names() == {"passages"}
    again.claim(["passages"])
    again.remove("passages")
    again.release()
    assert names(tmp_path) == ["tokens/own.bin"]


def test_a_marked_folder_is_removed_and_another_one_is_not(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "a").write_text("mine")
    with pytest.raises(FileError, match="new or empty folder"):
        _files.mark_ours(tmp_path / "theirs", "job")
    with pytest.raises(SplitError, match="is not removed"):
        _files.remove_ours(tmp_path / "theirs", "job", error=SplitError)
    _files.mark_ours(tmp_path / "ours", "job")
    (tmp_path / "ours" / "b").write_text("x")
    _files.mark_ours(tmp_path / "ours", "job")
    assert _files.is_ours(tmp_path / "ours", "job")
    assert not _files.is_ours(tmp_path / "ours", "study")
    _files.remove_ours(tmp_path / "ours", "job")
    _files.remove_ours(tmp_path / "ours", "job")
    assert names(tmp_path) == ["theirs/a"]


# ---------------------------------------------------------------------------------------------------- digests


def test_a_digest_is_checked_again_after_a_file_was_touched(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100)
    digest = _files.file_digest(path)
    _files.check_digest(path, digest)
    _files.check_size(path, 100)
    path.write_bytes(b"x" * 99 + b"y")
    with pytest.raises(SplitError, match=r"/a is damaged"):
        _files.check_digest(path, digest, error=SplitError)
    with pytest.raises(SplitError, match=r"/a is damaged: it has 100 bytes, 99 were written"):
        _files.check_size(path, 99, error=SplitError)
    with pytest.raises(SplitError, match="missing"):
        _files.check_digest(tmp_path / "b", digest, error=SplitError)


# ---------------------------------------------------------------------------------------------------- lock


def test_a_lock_is_held_by_one_and_freed_by_death(tmp_path):
    path = tmp_path / ".lock"
    path.write_text("kept")
    code = f"""
import time
from ragscale._files import locked
with locked({str(path)!r}):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(_files.Busy), _files.locked(path, wait=False):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    with _files.locked(path, wait=False), pytest.raises(_files.Busy), _files.locked(path, wait=False):
        pass
    assert path.read_text() == "kept"
    with _files.locked(path, keep=False):
        pass
    assert not path.exists()


def test_waiting_writers_take_turns_although_each_removes_the_lock(tmp_path):
    code = f"""
import time
from pathlib import Path
from ragscale._files import locked
for _ in range(30):
    with locked({str(tmp_path / ".lock")!r}, keep=False):
        counter = Path({str(tmp_path / "n")!r})
        n = int(counter.read_text() or 0)
        time.sleep(0.001)
        counter.write_text(str(n + 1))
"""
    (tmp_path / "n").write_text("0")
    writers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert (tmp_path / "n").read_text() == "90"


def test_an_older_file_is_read_without_a_digest(tmp_path):
    (tmp_path / "old.json").write_text(json.dumps({"schema": "s", "schema_version": 1, "n": 3}))
    assert _files.read_json(tmp_path / "old.json", schema="s", version=1, fields={"n": int})["n"] == 3
