"""The parts together, as the README shows them; and what importing them costs."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import ragscale as rs
from ragscale.evaluation import load_task

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("numpy", "pandas", "scipy", "lmfit", "torch", "transformers", "faiss", "matplotlib", "sklearn", "tokenizers")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_ragscale_loads_nothing_heavy():
    loaded = python(f"import sys, ragscale; print([m for m in {HEAVY!r} if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_fitting_and_results_never_load_the_training_stack():
    code = (
        "import sys, ragscale as rs\n"
        "fit = rs.fit_manifold(rs.datasets.simulate('log1p', rng=0), law='log1p')\n"
        "rs.optimal_allocation(fit, N=1e9, budget=1e10)\n"
        "heavy = ('torch', 'transformers', 'faiss', 'matplotlib', 'tokenizers', 'sklearn')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    assert python(code).strip() == "[]"


def test_every_public_name_can_be_had():
    for name in rs.__all__:
        assert getattr(rs, name) is not None


@pytest.mark.parametrize(
    "package",
    [
        "datasets",
        "evaluation",
        "fitting",
        "plotting",
        "results",
        "retrieval",
        "splitting",
        "study",
        "testing",
        "training",
    ],
)
def test_every_public_name_of_every_module_can_be_had(package):
    module = getattr(rs, package)
    assert module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_from_a_corpus_to_the_best_split(tmp_path):
    pytest.importorskip("torch")
    world = rs.datasets.synthetic_corpus(n_documents=500, n_entities=20, n_questions=5, seed=0)
    tokenizer = rs.splitting.train_tokenizer(world.documents, 320)
    split = rs.split_corpus(world.documents, tmp_path / "split", tokenizer=tokenizer, validation_tokens=500)
    config = rs.training.TrainConfig(seq_len=64, batch_tokens=256, allow_short_runs=True)
    rows = []
    tasks_file = tmp_path / "questions.jsonl"
    tasks_file.write_text("".join(json.dumps(q) + "\n" for q in world.questions))
    retriever = rs.retrieval.BM25Retriever().index(split.store(10_000).passages)
    for width in (16, 24):
        model = rs.training.ModelConfig.custom(
            n_layers=1, d_model=width, n_heads=2, d_ff=32, vocab_size=split.vocab_size
        )
        checkpoints = rs.train(
            model, split, config, tokens=[4_000, 8_000], out=tmp_path / f"run-{width}", progress=False
        )
        for checkpoint in checkpoints:
            task = load_task(tasks_file, kind="likelihood", name="facts")
            scores = rs.evaluate(checkpoint, task, retriever=retriever, store_tokens=[0, 2_000, 10_000], k=1)
            rows.append(scores.results)
            assert scores.results["N"].iloc[0] == checkpoint.n_params == model.n_params
            assert scores.results["D"].iloc[0] == checkpoint.n_tokens
    results = pd.concat(rows, ignore_index=True)
    path = tmp_path / "results.jsonl"
    rs.results.write(results, path)
    table = rs.results.read(path)
    table = table[table["metric"] == "nll_per_token"]
    assert len(table) == 2 * 2 * 3
    fit = rs.fit_manifold(table, rs.fitting.Log1p(tie=True, fixed={"alpha": 0.3, "eta": 1e-4}))
    best = rs.optimal_allocation(fit, N=1e4, budget=10_000)
    assert 0 <= best.share <= 1
