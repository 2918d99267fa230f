"""A saved index is the old one or the new one, whatever happens while it is saved; what is the user's stays."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ragscale._files import _folders
from ragscale.errors import CheckpointError, ConfigError, FileError
from ragscale.passages import Passage
from ragscale.retrieval import BM25Retriever, DenseRetriever, HybridRetriever, LsaEncoder, Retriever
from ragscale.retrieval._encoder import Encoder

WORDS = ["apple", "pear", "paris", "london", "river", "house", "tree", "green"]


def store(n: int = 60, seed: int = 0) -> list[Passage]:
    draw = random.Random(seed)
    return [Passage(str(i), " ".join(draw.choices(WORDS, k=12)), 12, str(i)) for i in range(n)]


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def hybrid() -> HybridRetriever:
    pytest.importorskip("sklearn")
    return HybridRetriever(BM25Retriever(), DenseRetriever(LsaEncoder(n_components=4)))


@pytest.mark.parametrize("make", [BM25Retriever, hybrid], ids=["bm25", "hybrid"])
def test_saving_again_replaces_all_that_was_saved_and_nothing_else(tmp_path, make):
    path = tmp_path / "index"
    make().index(store(60)).save(path)
    (path / "notes.txt").write_text("mine")
    (path / "results").mkdir()
    (path / "results" / "scores.csv").write_text("mine")
    retriever = make().index(store(40, seed=1))
    retriever.save(path)
    loaded = Retriever.load(path)
    assert loaded.search("apple", k=5).ids.tolist() == retriever.search("apple", k=5).ids.tolist()
    loaded.save(path)  # over its own files
    assert loaded.search("pear", k=5).ids.tolist() == Retriever.load(path).search("pear", k=5).ids.tolist()
    assert (path / "notes.txt").read_text() == (path / "results" / "scores.csv").read_text() == "mine"
    retriever.save(tmp_path / "fresh")
    assert tree(path) == sorted([*tree(tmp_path / "fresh"), "notes.txt", "results", "results/scores.csv"])
    assert sorted(os.listdir(tmp_path)) == ["fresh", "index"]
    loaded.save(path, store_passages=False)
    with pytest.raises(CheckpointError, match="without its passages"):
        Retriever.load(path)


def test_an_index_without_a_readable_description_is_saved_over_and_what_is_unknown_stays(tmp_path):
    path = tmp_path / "index"
    retriever = BM25Retriever().index(store())
    retriever.save(path)
    (path / "old.bin").write_text("?")
    (path / "retriever.json").write_text("{")
    retriever.save(path)
    Retriever.load(path)
    assert (path / "old.bin").exists()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "a").write_text("mine")
    with pytest.raises(ConfigError, match="other files"):
        retriever.save(tmp_path / "theirs")
    assert tree(tmp_path / "theirs") == ["a"]


KILLED = """
import sys, random
from ragscale.passages import Passage
from ragscale.retrieval import BM25Retriever
from ragscale._files import _folders
if sys.argv[2] == "renamed":
    _folders._exchange = lambda new, path: False
draw = random.Random(0)
words = "apple pear paris london river house tree green".split()
passages = [Passage(str(i), " ".join(draw.choices(words, k=12)), 12, str(i)) for i in range(300)]
retriever = BM25Retriever().index(passages)
print("ready", flush=True)
while True:
    retriever.save(sys.argv[1])
    print("saved", flush=True)
"""


@pytest.mark.parametrize("way", ["exchanged", "renamed"])
def test_kills_while_saving_over_a_good_index_leave_a_good_index(tmp_path, way):
    path, draw = tmp_path / "index", random.Random(1)
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(path), way], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == [b"ready\n", b"saved\n"]
            time.sleep(draw.random() * 0.1)
            os.kill(process.pid, signal.SIGKILL)
        assert Retriever.load(path).search("apple", k=3).ids.shape == (1, 3)
    BM25Retriever().index(store()).save(path)
    assert os.listdir(tmp_path) == ["index"]
    assert Retriever.load(path).n_passages == 60


def test_a_kill_between_two_renames_is_made_good_on_loading(tmp_path, monkeypatch):
    path = tmp_path / "index"
    BM25Retriever().index(store()).save(path)
    monkeypatch.setattr(_folders, "_exchange", lambda new, path: False)
    rename, left = os.rename, [1]

    def once(*names):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        rename(*names)

    monkeypatch.setattr(os, "rename", once)
    with pytest.raises(KeyboardInterrupt):
        BM25Retriever().index(store(20)).save(path)
    monkeypatch.undo()
    assert not path.exists()
    assert Retriever.load(path).n_passages == 60


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files, which Windows cannot")
def test_a_full_disk_names_the_index_and_keeps_the_old_one(tmp_path):
    import resource

    path = tmp_path / "index"
    BM25Retriever().index(store(20)).save(path)
    bigger = BM25Retriever().index(store(400))
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        with pytest.raises(FileError, match=r"index"):
            bigger.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert Retriever.load(path).n_passages == 20
    assert os.listdir(tmp_path) == ["index"]


def test_an_encoder_is_saved_whole_and_checked(tmp_path):
    pytest.importorskip("sklearn")
    encoder = LsaEncoder(n_components=3).fitted([passage.text for passage in store()])
    encoder.save(tmp_path / "encoder")
    (tmp_path / "encoder" / "mine").write_text("x")
    encoder.save(tmp_path / "encoder")
    assert (tmp_path / "encoder" / "mine").exists()
    assert Encoder.load(tmp_path / "encoder").digest == encoder.digest
    for file in ("components.npy", "vocabulary.json", "encoder.json"):
        content = (tmp_path / "encoder" / file).read_bytes()
        (tmp_path / "encoder" / file).write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        with pytest.raises(CheckpointError, match="damaged"):
            Encoder.load(tmp_path / "encoder")
        (tmp_path / "encoder" / file).write_bytes(content)
