"""A run that is killed, moved, spread over workers or given in another order ends with the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ragscale as rs
from ragscale.errors import ConfigError, RagscaleError, SplitError
from ragscale.splitting import _order, _units, read_jsonl
from ragscale.splitting._workers import WorkerPool


@pytest.fixture
def small_pieces(monkeypatch):
    """Many runs and units even from a small corpus."""
    monkeypatch.setattr(_order, "RUN_BYTES", 6_000)
    monkeypatch.setattr(_units, "UNIT_BYTES", 5_000)


def write_jsonl(path: Path, documents) -> Path:
    rows = ({"id": d.id, "text": d.text, "title": d.title, "source": d.source} for d in documents)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_order_and_filing_of_the_input_do_not_show(documents, tokenizer, tmp_path, digest_of, monkeypatch):
    arguments = {"tokenizer": tokenizer, "passage_tokens": 32, "validation_tokens": 300}
    one = rs.split_corpus(documents, tmp_path / "one", **arguments)
    rng = np.random.default_rng(1)
    shuffled = [documents[i] for i in rng.permutation(len(documents))]
    files = [write_jsonl(tmp_path / f"{i}.jsonl", shuffled[i::3]) for i in range(3)]
    two = rs.split_corpus([str(f) for f in files], tmp_path / "two", **arguments)
    monkeypatch.setattr(_order, "RUN_BYTES", 2_000)
    three = rs.split_corpus(iter(shuffled), tmp_path / "three", **arguments)
    assert one.digest == two.digest == three.digest
    assert digest_of(tmp_path / "one") == digest_of(tmp_path / "two") == digest_of(tmp_path / "three")


@pytest.mark.usefixtures("small_pieces")
def test_tokens_do_not_depend_on_how_the_work_is_cut(documents, tokenizer, tmp_path, monkeypatch):
    many = rs.split_corpus(documents, tmp_path / "many", tokenizer=tokenizer, passage_tokens=32, validation_tokens=300)
    monkeypatch.setattr(_units, "UNIT_BYTES", 1 << 24)
    one = rs.split_corpus(documents, tmp_path / "one", tokenizer=tokenizer, passage_tokens=32, validation_tokens=300)
    np.testing.assert_array_equal(many.pretraining(many.n_tokens)[:], one.pretraining(one.n_tokens)[:])
    np.testing.assert_array_equal(many.validation[:], one.validation[:])
    assert list(many.store(many.n_tokens).passages) == list(one.store(one.n_tokens).passages)
    assert many.audit(measure=False).ok


def test_several_workers_write_the_same_bytes(documents, tokenizer, tmp_path, digest_of):
    files = [str(write_jsonl(tmp_path / f"{i}.jsonl", documents[i::2])) for i in range(2)]
    rs.split_corpus(files, tmp_path / "one", tokenizer=tokenizer, deduplicate="minhash")
    rs.split_corpus(files, tmp_path / "two", tokenizer=tokenizer, deduplicate="minhash", n_workers=2)
    assert digest_of(tmp_path / "one") == digest_of(tmp_path / "two")


def test_an_error_in_a_worker_arrives_with_its_message():
    with WorkerPool(2) as pool, pytest.raises(ConfigError, match="at least 257"):
        list(pool.map(rs.splitting.train_tokenizer, [([], 3)]))
    with WorkerPool(2) as pool, pytest.raises(RagscaleError, match="a worker process died"):
        list(pool.map(sys.exit, [(3,)]))


def test_runs_killed_at_any_step_continue_to_the_same_bytes(corpus, tokenizer, tmp_path, digest_of):
    documents = corpus(60, seed=3)
    path = write_jsonl(tmp_path / "corpus.jsonl", [*documents, documents[0]])
    tokenizer.save(tmp_path / "tokenizer")

    def run(out: str, kills: int) -> int:
        script = Path(__file__).with_name("killed_runs.py")
        command = [sys.executable, str(script), str(path), str(tmp_path / "tokenizer"), str(tmp_path / out), str(kills)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])

    assert run("undisturbed", 0) == 0
    assert run("killed", 20) == 20
    assert digest_of(tmp_path / "killed", without=(".lock",)) == digest_of(tmp_path / "undisturbed", without=(".lock",))
    assert not (tmp_path / "killed" / ".work").exists()
    assert rs.Split.load(tmp_path / "killed").audit(measure=False).ok


def test_a_finished_split_is_returned_and_another_corpus_or_setting_refused(documents, tokenizer, tmp_path):
    first = rs.split_corpus(documents, tmp_path / "s", tokenizer=tokenizer)
    stamp = (tmp_path / "s" / "manifest.json").stat().st_mtime_ns
    again = rs.split_corpus(documents, tmp_path / "s", tokenizer=tokenizer)
    assert again.digest == first.digest
    assert (tmp_path / "s" / "manifest.json").stat().st_mtime_ns == stamp
    with pytest.raises(SplitError, match="another corpus"):
        rs.split_corpus(documents[1:], tmp_path / "s", tokenizer=tokenizer)
    with pytest.raises(SplitError, match="seed: 0 there, 1 now"):
        rs.split_corpus(documents, tmp_path / "s", tokenizer=tokenizer, seed=1)


def test_a_stopped_run_refuses_other_files(documents, tokenizer, tmp_path, monkeypatch):
    path = write_jsonl(tmp_path / "a.jsonl", documents)

    def stop(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ragscale.splitting._corpus.make_unit", stop)
        for source in (read_jsonl(path), documents):
            out = tmp_path / type(source).__name__
            with pytest.raises(KeyboardInterrupt):
                rs.split_corpus(source, out, tokenizer=tokenizer)
            with pytest.raises(SplitError, match="was stopped here"):
                rs.Split.load(out)
    write_jsonl(path, documents[1:])
    with pytest.raises(SplitError, match="other files"):
        rs.split_corpus(read_jsonl(path), tmp_path / "Source", tokenizer=tokenizer)
    with pytest.raises(SplitError, match="another corpus"):
        rs.split_corpus(documents[1:], tmp_path / "list", tokenizer=tokenizer)
    finished = rs.split_corpus(documents, tmp_path / "list", tokenizer=tokenizer)
    assert finished.n_documents == len(documents)


def test_two_runs_into_one_folder_do_not_mix(documents, tokenizer, tmp_path):
    def interfering():
        yield from documents
        with pytest.raises(SplitError, match="another run"):
            rs.split_corpus(documents, tmp_path / "s", tokenizer=tokenizer)

    assert rs.split_corpus(interfering(), tmp_path / "s", tokenizer=tokenizer).n_documents == len(documents)


def test_datatrove_executors_write_the_same_bytes(documents, tokenizer, tmp_path, digest_of):
    readers = pytest.importorskip("datatrove.pipeline.readers")
    (tmp_path / "corpus").mkdir()
    for i in range(3):
        write_jsonl(tmp_path / "corpus" / f"{i}.jsonl", documents[i::3] + documents[:1] * (i == 1))
    settings = {"tokenizer": tokenizer, "validation_tokens": 300, "deduplicate": "minhash", "max_tokens": 6000}
    reader = readers.JsonlReader(str(tmp_path / "corpus"))
    ours = rs.split_corpus(str(tmp_path / "corpus"), tmp_path / "ours", **settings)
    theirs = rs.splitting.split_with_datatrove(reader, tmp_path / "theirs", tasks=2, **settings)
    assert theirs.digest == ours.digest
    assert digest_of(tmp_path / "theirs") == digest_of(tmp_path / "ours")
    assert theirs.manifest["corpus"]["dropped"] == {"duplicate id": 1}
    assert rs.splitting.split_with_datatrove(reader, tmp_path / "theirs", tasks=2, **settings).digest == ours.digest
