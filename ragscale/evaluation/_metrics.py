"""Every metric from the samples table alone: nothing else of an evaluation is needed to compute them anew.

The formulas stand in the documentation (Maths: metrics), one for each name here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ragscale.errors import ConfigError

_CHOICE = ("multiple_choice", "yes_no")
_N_BINS = 10

Values = np.ndarray


class Columns:
    """The samples of one cell as arrays; ragged lists stay lists."""

    def __init__(self, samples: pd.DataFrame) -> None:
        self.n = len(samples)
        self.kind = str(samples["kind"].iloc[0])
        self.logprobs = [np.asarray(row, dtype=np.float64) for row in samples["logprobs"]]
        self.n_tokens = [np.asarray(row, dtype=np.float64) for row in samples["n_tokens"]]
        self.n_chars = [np.asarray(row, dtype=np.float64) for row in samples["n_chars"]]
        self.n_bytes = [np.asarray(row, dtype=np.float64) for row in samples["n_bytes"]]
        self.gold = samples["gold_index"].to_numpy(np.int64)
        self.samples = samples

    def of_gold(self, ragged: Sequence[np.ndarray]) -> Values:
        """Return the gold entry of every row; NaN where nothing was scored, as for answers that are patterns."""
        return np.array([row[gold] if len(row) else np.nan for row, gold in zip(ragged, self.gold, strict=True)])

    def chosen(self, scores: Sequence[np.ndarray]) -> Values:
        """Return 1.0 where the best score is the gold choice's; choices that tie for the best share it."""
        best = [row == row.max() for row in scores]
        return np.array([row[gold] / row.sum() for row, gold in zip(best, self.gold, strict=True)])

    def probabilities(self) -> list[np.ndarray]:
        """Return softmax of the choices' log-likelihoods."""
        rows = [np.exp(row - row.max()) for row in self.logprobs]
        return [row / row.sum() for row in rows]


def _per(unit: str) -> Callable[[Columns], Values]:
    def values(c: Columns) -> Values:
        return -c.of_gold(c.logprobs) / np.maximum(c.of_gold(getattr(c, unit)), 1)

    return values


def _normalised(unit: str) -> Callable[[Columns], Values]:
    def values(c: Columns) -> Values:
        sizes = getattr(c, unit)
        return c.chosen([row / np.maximum(size, 1) for row, size in zip(c.logprobs, sizes, strict=True)])

    return values


def _pmi(c: Columns) -> Values:
    alone = [np.asarray(row, dtype=np.float64) for row in c.samples["unconditional_logprobs"]]
    return c.chosen([row - base for row, base in zip(c.logprobs, alone, strict=True)])


def _brier(c: Columns) -> Values:
    def one(row: np.ndarray, gold: int) -> float:
        return float(np.sum((row - np.eye(len(row))[gold]) ** 2))

    return np.array([one(row, gold) for row, gold in zip(c.probabilities(), c.gold, strict=True)])


def _choice_nll(c: Columns) -> Values:
    best = [row.max() + np.log(np.exp(row - row.max()).sum()) for row in c.logprobs]
    return np.array(best) - c.of_gold(c.logprobs)


def _margin(c: Columns) -> Values:
    return np.array([row[gold] - np.delete(row, gold).max() for row, gold in zip(c.logprobs, c.gold, strict=True)])


def _any_alias(c: Columns) -> Values:
    return -np.array([row.max() + np.log(np.exp(row - row.max()).sum()) if len(row) else np.nan for row in c.logprobs])


def _column(name: str) -> Callable[[Columns], Values]:
    return lambda c: c.samples[name].to_numpy(np.float64)


_LIKELIHOOD: dict[str, Callable[[Columns], Values]] = {
    "nll": lambda c: -c.of_gold(c.logprobs),
    "nll_per_token": _per("n_tokens"),
    "nll_per_byte": _per("n_bytes"),
    "nll_per_char": _per("n_chars"),
}
_CHOICES: dict[str, Callable[[Columns], Values]] = {
    "accuracy": lambda c: c.chosen(c.logprobs),
    "accuracy_per_char": _normalised("n_chars"),
    "accuracy_per_byte": _normalised("n_bytes"),
    "accuracy_per_token": _normalised("n_tokens"),
    "accuracy_pmi": _pmi,
    "brier": _brier,
    "choice_nll": _choice_nll,
    "margin": _margin,
}
_PER_QUESTION: dict[str, Callable[[Columns], Values]] = {
    **_LIKELIHOOD,
    **_CHOICES,
    "nll_any_alias": _any_alias,
    "greedy_match": lambda c: c.of_gold([np.asarray(row, dtype=float) for row in c.samples["greedy"]]),
    "exact_match": _column("exact_match"),
    "f1": _column("f1"),
    "contains": _column("contains"),
}
_PERPLEXITIES = {f"perplexity_per_{unit}": f"nll_per_{unit}" for unit in ("token", "byte", "char")}


def metric_names(kind: str, *, pmi: bool = False) -> tuple[str, ...]:
    """Return the metrics of a kind of task.

    Examples
    --------
    >>> metric_names("last_word")
    ('nll', 'nll_per_token', 'nll_per_byte', 'nll_per_char', 'perplexity_per_token', 'perplexity_per_byte',
     'perplexity_per_char', 'accuracy')
    """
    if kind == "text":
        return ("bits_per_byte", "byte_perplexity", "word_perplexity", "token_perplexity")
    names = [*_LIKELIHOOD, *_PERPLEXITIES]
    if kind in _CHOICE:
        names += [name for name in _CHOICES if pmi or name != "accuracy_pmi"]
        names += ["neg_log_accuracy", "calibration_error"]
    elif kind == "last_word":
        names.append("accuracy")
    else:
        names += ["nll_any_alias", "greedy_match"]
        names += ["exact_match", "f1", "contains"] if kind == "generate" else []
    return tuple(names)


def per_question(samples: pd.DataFrame, metric: str) -> Values:
    """Return a metric's value for every row of one cell's samples; a perplexity's is its logarithm's.

    Raises
    ------
    ConfigError
        When the metric is not a mean over questions, or the samples are of a kind that does not have it.
    """
    c = Columns(samples)
    name = _PERPLEXITIES.get(metric, metric)
    if name == "accuracy" and c.kind == "last_word":
        name = "greedy_match"
    if c.kind == "text" and metric in ("bits_per_byte", "byte_perplexity"):
        return -c.of_gold(c.logprobs) / c.of_gold(c.n_bytes) / (np.log(2) if metric == "bits_per_byte" else 1)
    if name not in _PER_QUESTION or metric not in metric_names(c.kind, pmi=True):
        known = ", ".join(metric_names(c.kind, pmi=True))
        raise ConfigError(f"{metric!r} has no value per question of a {c.kind} task; metrics: {known}")
    return _PER_QUESTION[name](c)


def summarise(samples: pd.DataFrame) -> list[dict[str, Any]]:
    """Return metric, value, stderr and chance level for every metric of one cell's samples.

    Questions for which a metric is not determined are left out of it and of its ``n_examples``; a metric that is
    determined for none has no row.
    """
    c = Columns(samples)
    pmi = samples["unconditional_logprobs"].notna().all()
    if c.kind == "text":
        return _text_metrics(c)
    rows = []
    chance = float(np.mean([1 / len(row) for row in c.logprobs])) if c.kind in _CHOICE else np.nan
    for metric in metric_names(c.kind, pmi=bool(pmi)):
        floor, n = np.nan, c.n
        if metric == "neg_log_accuracy":
            value, stderr, floor = *_neg_log_accuracy(_PER_QUESTION["accuracy"](c)), float(-np.log(chance))
        elif metric == "calibration_error":
            value, stderr = _calibration_error(c)
        else:
            values = per_question(samples, metric)
            values = values[~np.isnan(values)]  # a pattern's likelihood, a match that took too long: not determined
            if not len(values):
                continue
            n, value, stderr = len(values), float(values.mean()), standard_error(values)
            if metric in _PERPLEXITIES:
                value = float(np.exp(value))
                stderr *= value
            if metric.startswith("accuracy") and c.kind in _CHOICE:
                floor = chance
            elif metric == "choice_nll":
                floor = float(np.mean([np.log(len(row)) for row in c.logprobs]))
            elif metric == "brier":
                floor = float(np.mean([1 - 1 / len(row) for row in c.logprobs]))
        rows.append({"metric": metric, "value": value, "stderr": stderr, "n_examples": n, "chance": floor})
    return rows


def standard_error(values: Values) -> float:
    """Return the standard error of a mean over questions (NaN for one question)."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def _neg_log_accuracy(correct: Values) -> tuple[float, float]:
    n = len(correct)
    share = (correct.sum() + 0.5) / (n + 1)  # finite when every answer is wrong
    return float(-np.log(share)), float(np.sqrt((1 - share) / (share * (n + 1))))


def _calibration_error(c: Columns) -> tuple[float, float]:
    """Expected calibration error of the chosen option, in ten equal bins; standard error by jackknife."""
    probabilities = c.probabilities()
    confidence = np.array([row.max() for row in probabilities])
    correct = c.chosen(probabilities)
    bins = np.minimum((confidence * _N_BINS).astype(int), _N_BINS - 1)
    gap = np.bincount(bins, confidence - correct, _N_BINS)
    total = np.abs(gap).sum()
    if c.n < 2:
        return float(total / c.n), float("nan")
    without = (total - np.abs(gap[bins]) + np.abs(gap[bins] - (confidence - correct))) / (c.n - 1)
    spread = (c.n - 1) / c.n * ((without - without.mean()) ** 2).sum()
    return float(total / c.n), float(np.sqrt(spread))


def _text_metrics(c: Columns) -> list[dict[str, Any]]:
    """Ratios of totals over texts, as a long text weighs more; standard errors of the ratio over texts."""
    nll = -c.of_gold(c.logprobs)
    words = c.samples["n_words"].to_numpy(np.float64)
    rows = []
    for metric, size in (
        ("bits_per_byte", c.of_gold(c.n_bytes)),
        ("byte_perplexity", c.of_gold(c.n_bytes)),
        ("word_perplexity", words),
        ("token_perplexity", c.of_gold(c.n_tokens)),
    ):
        ratio = nll.sum() / size.sum()
        residual = (nll - ratio * size) / size.mean()
        stderr = standard_error(residual)
        if metric == "bits_per_byte":
            value, stderr = ratio / np.log(2), stderr / np.log(2)
        else:
            value = np.exp(ratio)
            stderr *= value
        row = {"metric": metric, "value": float(value), "stderr": stderr, "n_examples": c.n, "chance": np.nan}
        rows.append(row)
    return rows
