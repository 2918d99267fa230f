"""Which way is better: the column, the name, and only then the values, with a warning; never noise."""

from __future__ import annotations

import contextlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragscale.errors import RagscaleError, ResultsError, ResultsWarning
from ragscale.results import higher_is_better
from ragscale.results._direction import direction

# as the harnesses spell them
_RISES = """acc acc_norm acc,none acc_mutual_info acc_bytes exact_match,strict-match em f1 squad_f1 mmlu/acc
hellaswag/acc_norm accuracy_len_norm accuracy_per_char quasi_exact_match math_equiv code_eval_acc pass@1 pass_at_10
humaneval/pass@1 NDCG@10 nDCG@10 ndcg_cut_10 MAP@100 map Recall@100 R@100 P_5 P@10 MRR@10 RR@10 ERR@20 Rprec bpref
recip_rank success_5 infAP rougeL rouge_2 ROUGE-L BLEU chrF mc1 mc2 mcc logprob log_likelihood neg_mean_squared_error
greedy_match contains margin hit_rate win_rate elo score overall_score prompt_level_strict_acc correct_prob F1Score
testAcc eval/accuracy toxicity/acc error_detection/f1 loss_improvement neg_loss primary_score"""
_FALLS = """loss val_loss train/loss loss/eval eval/loss_c4 trainLoss bits_per_byte bpb byte_perplexity word_perplexity
ppl perplexity_per_token nll nll_per_token nll_any_alias choice_nll cross_entropy ce_loss brier brier_score
calibration_error ece_10_bin neg_log_accuracy neg_log_likelihood negative_log_likelihood error_rate top1_error 1-acc
one_minus_acc wer toxicity inference_runtime Hole@10 mean_rank likelihood_diff mse log_ppl acc_drop"""
UNKNOWN = ["c4", "my_measure", "sigma", "value", "acc_stderr", "err", "", "Judged@10"]


@pytest.mark.parametrize("name", _RISES.split())
def test_scores_rise(name):
    assert higher_is_better(name) is True


@pytest.mark.parametrize("name", _FALLS.split())
def test_losses_fall(name):
    assert higher_is_better(name) is False


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_name_that_does_not_tell_is_refused_naming_the_argument(name):
    with pytest.raises(ResultsError, match="higher_is_better=True"):
        higher_is_better(name)


def _ladder(slope: float, noise: float, seed: int = 0, **columns: object) -> pd.DataFrame:
    draw, rows = np.random.default_rng(seed), []
    for n in (1e8, 3e8, 1e9, 3e9):
        for d in (2e9, 2e10, 2e11):
            model = 0.5 + slope * np.log10(n * d / 1e19) + noise * draw.standard_normal()
            rows += [(n, d, r, model + 0.1 * (r > 0)) for r in (0.0, 1e9)]
    return pd.DataFrame(rows, columns=["N", "D", "R", "value"]).assign(**columns)


def test_the_column_is_above_the_name_and_both_are_above_the_values():
    falling = _ladder(-0.05, 0.0, metric="acc")
    assert higher_is_better(falling) is True
    for no in (False, 0, "False", "no", 0.0):
        assert higher_is_better(falling.assign(higher_is_better=no)) is False
    partly = falling.assign(higher_is_better=[False, None] * 12)
    assert higher_is_better(partly) is False
    with pytest.raises(ResultsError, match="'maybe', expected True or False"):
        higher_is_better(falling.assign(higher_is_better="maybe"))


@pytest.mark.parametrize(("slope", "rises"), [(0.05, True), (-0.05, False)])
def test_values_decide_last_and_with_a_warning_that_names_the_argument(slope, rises):
    for columns in ({}, {"metric": "my_measure"}, {"metric": None}):
        with pytest.warns(ResultsWarning, match=r"rank correlation alone.*higher_is_better=True"):
            assert higher_is_better(_ladder(slope, 0.001, **columns)) is rises


def test_noise_is_no_direction():
    for seed in range(40):
        with pytest.raises(ResultsError, match="no clear trend"):
            higher_is_better(_ladder(0.0, 0.01, seed))


def test_metrics_of_both_kinds_are_refused_and_of_one_kind_are_not():
    table = pd.concat([_ladder(0.05, 0, metric="acc"), _ladder(0.05, 0, metric="nll")])
    with pytest.raises(ResultsError, match=r"rs\.results\.select"):
        higher_is_better(table)
    assert higher_is_better(table.replace("nll", "f1")) is True


@given(st.text(max_size=30))
def test_any_name_is_told_or_refused(name):
    with contextlib.suppress(RagscaleError):
        assert higher_is_better(name) in (True, False)


def test_every_metric_that_ragscale_measures_is_known():
    from ragscale.evaluation._metrics import metric_names

    for kind in ("text", "multiple_choice", "yes_no", "last_word", "likelihood", "generate"):
        for name in metric_names(kind, pmi=True):
            rises = name.startswith("acc") or name in {"margin", "greedy_match", "exact_match", "f1", "contains"}
            assert higher_is_better(name) is rises


@pytest.mark.parametrize(
    ("metric", "says"), [("acc", False), ("exact_match", False), ("perplexity", True), ("nll_per_token", True)]
)
def test_a_direction_against_the_name_of_the_metric_is_warned_about(metric: str, says: bool) -> None:
    table = pd.DataFrame({"N": [1e8, 2e8, 4e8], "D": [1e9, 2e9, 4e9], "R": 0.0, "value": [0.5, 0.4, 0.6]})
    table = table.assign(metric=metric)
    for source, call in (
        ("argument", lambda: direction(table, says)),
        ("column", lambda: direction(table.assign(higher_is_better=says))),
    ):
        with pytest.warns(ResultsWarning, match=f"the {source} higher_is_better says that .* {metric!r}"):
            assert call() is says


def test_a_direction_that_the_values_bear_out_is_not_argued_with() -> None:
    sizes = np.geomspace(1e8, 1e10, 8)
    rising = pd.DataFrame({"N": sizes, "D": 20 * sizes, "R": 0.0, "value": np.linspace(1, 9, 8), "metric": "loss"})
    assert direction(rising, True)  # a loss that rises with everything: a name used for something else
