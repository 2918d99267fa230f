"""The study of docs/studies/wiki: five sizes, six D, stores of every size, two seeds, on Wikipedia text.

    python benchmarks/wiki_study.py --data DATA --work WORK [--workers 2]

``DATA`` holds ``corpus/wiki_small.jsonl.zst``, ``qa/``, ``closed/squad_contexts.jsonl.gz`` and
``qa_evidence.jsonl.gz``. Hours of CPU time; stopped at any moment, the same command goes on. With ``--publish`` it writes
the table that ships as ``ragscale.datasets.load("ragscale-wiki")`` and the page and pictures of docs/studies.
"""

from __future__ import annotations

import argparse
import gzip
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from ragscale.splitting import read_jsonl
from ragscale.study import Study, StudyConfig

VOCABULARY = 2048
# the largest first, so that the longest jobs start first; rates from a sweep at D = 500,000
RATES = {"2.5M": 0.004, "1M": 0.006, "0.5M": 0.01, "0.15M": 0.02, "0.05M": 0.03}
D = (250_000, 500_000, 1_000_000, 2_000_000, 3_000_000, 4_000_000)
R = (100_000, 300_000, 600_000, 1_000_000, 1_500_000, 2_500_000)
BUDGETS = (1_500_000, 3_000_000, 5_900_000)
# task -> (file, questions, pool of the documents that hold the evidence: None takes any, "" none in the corpus)
QUESTIONS = {
    "squad": ("squad", 400, None),
    "triviaqa-evidence": ("triviaqa", 200, "evidence"),
    "triviaqa-random": ("triviaqa", 105, "random"),
    "triviaqa-absent": ("triviaqa", 100, ""),
    "sciq": ("sciq", 150, None),
    "piqa": ("piqa", 60, None),
}
CHOICE = ("piqa",)


def lines(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def write_questions(data: Path, out: Path) -> list[dict]:
    """Draw the questions of every task, TriviaQA's by the pool of the pages that hold the evidence."""
    pools = {document["id"]: document["pool"] for document in raw_documents(data)}
    evidence = {line["id"]: line.get("evidence_docs", []) for line in lines(data / "qa_evidence.jsonl.gz")}
    tasks = []
    out.mkdir(parents=True, exist_ok=True)
    for number, (task, (file, wanted, pool)) in enumerate(QUESTIONS.items()):
        records = lines(data / "qa" / f"{file}.jsonl.gz")
        if pool is not None:
            found = [sorted({pools[d] for d in evidence.get(r["id"], ()) if d in pools}) for r in records]
            records = [r for r, pool_of in zip(records, found, strict=True) if pool_of == ([pool] if pool else [])]
        chosen = np.random.default_rng([7, number]).permutation(len(records))[:wanted]
        path = out / f"{task}.jsonl"
        path.write_text("".join(json.dumps({**records[row], "task": task}) + "\n" for row in sorted(chosen)))
        tasks.append(
            {"path_or_name": str(path), "name": task, "kind": "multiple_choice" if task in CHOICE else "likelihood"}
        )
    return tasks


def raw_documents(data: Path) -> list[dict]:
    import zstandard

    with zstandard.open(data / "corpus" / "wiki_small.jsonl.zst", "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def configuration(data: Path, work: Path) -> StudyConfig:
    return StudyConfig(
        corpus=[str(data / "corpus" / "wiki_small.jsonl.zst")],
        tokenizer=VOCABULARY,
        models=[{"rung": rung, "training": {"learning_rate": rate}} for rung, rate in RATES.items()],
        D=D,
        R=R,
        budgets=BUDGETS,
        tasks=write_questions(data, work / "questions"),
        gold=[str(data / "closed" / "squad_contexts.jsonl.gz")],
        seeds=(0, 1),
        validation_tokens=100_000,
        passage_tokens=192,
        k=1,
        training={"seq_len": 320, "batch_tokens": 960, "validation_tokens": 100_000},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--until", help="stop after this stage")
    options = parser.parse_args()
    study = Study(configuration(options.data, options.work), options.work / "study")
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as executor:
        status = study.run(executor, until=options.until)
    print(status.drop(columns="key").to_string())


if __name__ == "__main__":
    main()
