"""Everything that the library writes or reads: how one is made, and what using it gives."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import ragscale as rs
from ragscale.passages import Passage
from ragscale.retrieval import BM25Retriever, DenseRetriever, HybridRetriever, LsaEncoder, Retriever
from ragscale.retrieval._embeddings import embed
from ragscale.retrieval._encoder import Encoder
from ragscale.splitting import read_jsonl, read_parquet, read_text

WORDS = [
    "apple",
    "pear",
    "paris",
    "london",
    "river",
    "house",
    "tree",
    "green",
    "stone",
    "winter",
    "carbon",
    "engine",
    "harbour",
    "violet",
]


@dataclass(frozen=True)
class Artefact:
    """One kind of file or folder.

    ``certain`` tells that it carries digests: damage is then either refused or makes no difference.
    """

    name: str
    make: Callable[[Path], Any]
    use: Callable[[Path], Any]
    certain: bool


def texts(n: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [f"{i} " + " ".join(draw.choices(WORDS, k=draw.randrange(20, 60))) for i in range(n)]


def documents() -> list[rs.Document]:
    return [rs.Document(f"d{i}", text, title=f"T{i}") for i, text in enumerate(texts(40))]


def passages() -> list[Passage]:
    return [Passage(str(i), text, 40, str(i)) for i, text in enumerate(texts(60))]


_TOKENIZER: list[Any] = []


def tokenizer() -> Any:
    if not _TOKENIZER:
        _TOKENIZER.append(rs.splitting.train_tokenizer(texts(40), 300))
    return _TOKENIZER[0]


SETTINGS = {"validation_tokens": 100, "passage_tokens": 32, "decontaminate": {"quiz": ["apple pear paris london?"]}}


def make_split(folder: Path) -> None:
    rs.split_corpus(documents(), folder, tokenizer=tokenizer(), **SETTINGS)


def use_split(folder: Path) -> Any:
    split = rs.Split.load(folder)
    store = split.store(split.n_tokens // 2)
    return (
        split.digest,
        np.asarray(split.pretraining(split.n_tokens)[:]).tobytes(),
        split.pretraining(split.n_tokens).document_boundaries.tobytes(),
        np.asarray(split.validation[:]).tobytes(),
        tuple(store.passages),
        tuple(store.passages.n_tokens.tolist()),
        [tuple(sorted(row.items())) for part in ("pool", "validation") for row in split.document_rows(part)],
        split.contaminated_documents().to_csv(),
        split.tokenizer.encode("apple pear"),
    )


def make_stopped_split(folder: Path) -> None:
    """Leave a split as a kill before its last step does."""
    from ragscale.splitting import _corpus

    real = _corpus.assemble

    def stop(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    _corpus.assemble = stop
    try:
        make_split(folder)
    except KeyboardInterrupt:
        pass
    finally:
        _corpus.assemble = real


def use_stopped_split(folder: Path) -> Any:
    make_split(folder)
    return use_split(folder)


def index_of(make: Callable[[], Any]) -> Callable[[Path], None]:
    return lambda folder: make().index(passages()).save(folder / "index")


def use_index(folder: Path) -> Any:
    hits = Retriever.load(folder / "index").search(["apple river", "stone"], k=5, store_tokens=[400, 2400])
    return {size: (found.ids.tolist(), found.scores.tolist()) for size, found in hits.items()}


def encoder() -> Any:
    return LsaEncoder(n_components=4).fitted(texts(40))


def use_encoder(folder: Path) -> Any:
    return Encoder.load(folder / "encoder").encode(["apple pear"]).tolist()


def use_cache(folder: Path) -> Any:
    return embed(encoder(), texts(30), cache=folder / "cache", block_size=8)[0].tobytes()


def fit() -> Any:
    return rs.fit_manifold(rs.datasets.simulate("log1p", noise=0.01, rng=0), "log1p")


def use_fit(folder: Path) -> Any:
    found = rs.ManifoldFit.from_json(folder / "fit.json")
    return found.predict(1e9, 2e10, 1e9).tobytes(), found.params.to_csv(), found.data.to_csv(), str(found.summary())


def table() -> Any:
    return rs.datasets.simulate("log1p", noise=0.01, rng=0)[:40].assign(task='a, "b" é', seed=1)


def use_tables(folder: Path) -> Any:
    return [rs.results.read(folder / f"results{suffix}").to_csv() for suffix in (".jsonl", ".csv", ".parquet")]


def make_tables(folder: Path) -> None:
    for suffix in (".jsonl", ".csv", ".parquet"):
        rs.results.write(table(), folder / f"results{suffix}")


def append_to_tables(folder: Path) -> Any:
    """Append to each and tell whether all that stood there still does."""
    for suffix in (".jsonl", ".csv"):
        path = folder / f"results{suffix}"
        before = path.read_bytes() if path.exists() else b""
        try:
            rs.results.append({"N": [7e9], "D": [1e10], "R": [0.0], "value": [2.5]}, path)
        except rs.RagscaleError:
            assert (path.read_bytes() if path.exists() else b"") == before, "a refused append changed the file"
            continue
        after = path.read_bytes()
        kept = before if after.startswith(before) else before.rpartition(b"\n")[0]
        assert suffix == ".csv" or after.startswith(kept), "append changed what stood in the file"
        rs.results.read(path)
    return None


def make_corpora(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet
    import zstandard

    rows = [{"id": d.id, "text": d.text} for d in documents()]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(data))
    (folder / "b.jsonl.zst").write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(data))
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(rows), folder / "c.parquet", write_page_checksum=True, row_group_size=10
    )


def use_corpora(folder: Path) -> Any:
    readers = {"a.jsonl.gz": read_jsonl, "b.jsonl.zst": read_jsonl, "c.parquet": read_parquet}
    return [[(d.id, d.text) for d in read(folder / name)] for name, read in readers.items()]


def make_plain_corpora(folder: Path) -> None:
    rows = [{"id": d.id, "text": d.text} for d in documents()]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "b.txt").write_text(texts(1)[0])
    questions = [{"id": str(i), "question": f"What is {word}?", "answers": [word]} for i, word in enumerate(WORDS)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))


def use_plain_corpora(folder: Path) -> Any:
    from ragscale.evaluation import load_task

    found: list[Any] = [list(read_jsonl(folder / "a.jsonl")), list(read_text(folder / "b.txt"))]
    return [*found, load_task(folder / "questions.jsonl").examples]


def train(folder: Path, tokens: list[int]) -> Any:
    split = rs.split_corpus(documents(), folder.parent / "split-to-train-on", tokenizer=tokenizer())
    model = rs.training.ModelConfig.custom(n_layers=1, d_model=8, n_heads=2, d_ff=16, vocab_size=split.vocab_size)
    config = rs.training.TrainConfig(seq_len=16, batch_tokens=64, allow_short_runs=True)
    return rs.train(model, split, config, tokens=tokens, out=folder / "run", device="cpu", progress=False)


def make_checkpoint(folder: Path) -> None:
    train(folder, [640])
    shutil.rmtree(folder / "run" / "states", ignore_errors=True)


def make_run(folder: Path) -> None:
    """Leave a run with its trunk and one of two branches."""
    train(folder, [640])


def use_run(folder: Path) -> Any:
    """Train a second branch from the trunk's states."""
    shutil.rmtree(folder / "run" / "metrics", ignore_errors=True)
    return [(one.n_tokens, one.step, one.validation_loss) for one in train(folder, [640, 1280])]


def make_log(folder: Path) -> None:
    train(folder, [640])
    (folder / "run" / "metrics").rename(folder / "metrics")
    shutil.rmtree(folder / "run")


def use_log(folder: Path) -> Any:
    return rs.training.read_metrics(folder).to_csv()


def evaluate_cells(folder: Path) -> Any:
    from ragscale.evaluation import Example, Task

    if not (folder.parent / "trained").is_dir():
        (folder.parent / "trained").mkdir()
        train(folder.parent / "trained", [640])
    examples = [Example(id=str(i), question=f"What is {w}?", answers=(w,)) for i, w in enumerate(WORDS)]
    task = Task(name="words", kind="likelihood", examples=examples)
    found = rs.evaluate(folder.parent / "trained" / "run" / "D640", task, out=folder / "cells", device="cpu")
    return found.results.to_csv(), found.samples.to_csv()


def make_prompts(folder: Path) -> None:
    import torch

    from ragscale.evaluation import Example, Task, TorchModel, prepare_prompts

    examples = [
        Example(id=str(i), question=f"What is {w}?", choices=(w, "no"), answer_index=0) for i, w in enumerate(WORDS)
    ]
    tasks = [Task(name=name, kind="multiple_choice", examples=examples) for name in ("one", "two")]
    reader = TorchModel(torch.nn.Identity(), tokenizer(), max_length=64)
    prepare_prompts(tasks, reader, condition="closed-book", pmi=True).save(folder / "prompts")


def use_prompts(folder: Path) -> Any:
    from ragscale.evaluation._prepare import PreparedPrompts

    found = PreparedPrompts.load(folder / "prompts")
    return found.cells, dict(found.prompts), found.scored, found.settings


def make_study(folder: Path) -> None:
    from ragscale.study import StudyConfig

    config = StudyConfig(
        corpus={"synthetic": {"n_documents": 100}},
        models=["0.15M"],
        D=[20_000],
        R=[1000, 2000],
        training={"seq_len": 64},
        conditions=("retrieved",),
    )
    config.write(folder / "study.json")


def use_study(folder: Path) -> Any:
    from ragscale.study import StudyConfig

    return StudyConfig.read(folder / "study.json").digest


def use_checkpoint(folder: Path) -> Any:
    checkpoint = rs.training.Checkpoint.load(folder / "run" / "D640")
    weights = checkpoint.load_model().state_dict()
    state = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in weights.values())).hexdigest()
    return checkpoint.n_tokens, checkpoint.seed, checkpoint.n_params, checkpoint.validation_loss, state


def hybrid() -> Any:
    return HybridRetriever(BM25Retriever(), DenseRetriever(LsaEncoder(n_components=4)))


ARTEFACTS = [
    Artefact("split", make_split, use_split, True),
    Artefact("split, stopped before its end", make_stopped_split, use_stopped_split, True),
    Artefact("BM25 index", index_of(BM25Retriever), use_index, True),
    Artefact("hybrid index with encoder", index_of(hybrid), use_index, True),
    Artefact("encoder", lambda folder: encoder().save(folder / "encoder"), use_encoder, True),
    Artefact("embeddings cache", use_cache, use_cache, True),
    Artefact("fit", lambda folder: fit().to_json(folder / "fit.json"), use_fit, True),
    Artefact("checkpoint", make_checkpoint, use_checkpoint, True),
    Artefact("training run", make_run, use_run, True),
    Artefact("training log", make_log, use_log, False),
    Artefact("evaluated cells", evaluate_cells, evaluate_cells, True),
    Artefact("prepared prompts", make_prompts, use_prompts, True),
    Artefact("study configuration", make_study, use_study, False),
    Artefact("compressed corpora, Parquet", make_corpora, use_corpora, True),
    Artefact("plain corpora, questions", make_plain_corpora, use_plain_corpora, False),
    Artefact("results tables, read", make_tables, use_tables, False),
    Artefact("results tables, appended to", make_tables, append_to_tables, False),
]
