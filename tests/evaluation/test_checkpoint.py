"""A ragscale checkpoint is evaluated with its own N, D and seed, and importing the package stays light."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import ragscale as rs
from ragscale.errors import ConfigError


def test_checkpoints_know_their_place_in_the_results_table(tokenizer, world, answer_task, tmp_path):
    text = " ".join(world.fact(i) for i in range(40)) * 2
    stream = np.asarray(tokenizer.encode(text))
    model = rs.training.ModelConfig.custom(
        n_layers=1, d_model=16, n_heads=2, d_ff=32, vocab_size=len(tokenizer), max_seq_len=128
    )
    config = rs.training.TrainConfig(seq_len=32, batch_tokens=128, seed=5, allow_short_runs=True)
    checkpoints = rs.train(model, stream, config, tokens=[1024, 2048], out=tmp_path / "run", device="cpu")
    task = answer_task.limit(4)
    tables = [rs.evaluate(c, task, tokenizer=tokenizer, device="cpu").results for c in checkpoints]
    table = rs.results.validate(pd.concat(tables))
    assert sorted(set(table["D"])) == [1024, 2048]
    assert set(table["N"]) == {checkpoints[0].n_params}
    assert set(table["N_total"]) == {checkpoints[0].n_params_total}
    assert set(table["seed"]) == {5}
    by_path = rs.evaluate(checkpoints[1].path, task, tokenizer=tokenizer, device="cpu").results
    pd.testing.assert_frame_equal(by_path, tables[1])


def test_a_hub_model_object_without_a_tokenizer_says_what_to_pass(module, answer_task):
    with pytest.raises(ConfigError, match="pass tokenizer="):
        rs.evaluate(module, answer_task)


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, ragscale.evaluation as e; e.Task, e.PromptTemplate, e.LanguageModel, e.load_task;"
        "print([m for m in ('torch', 'transformers', 'lm_eval', 'datasets', 'faiss') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
