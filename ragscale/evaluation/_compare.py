"""What a condition changed, question by question: paired bootstrap, and a gain split into finding and reading."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ragscale._typing import RngLike
from ragscale.errors import ConfigError
from ragscale.evaluation._metrics import per_question, standard_error


def paired_bootstrap(
    differences: ArrayLike, *, n_resamples: int = 2000, confidence_level: float = 0.95, rng: RngLike = None
) -> dict[str, float]:
    """Resample questions and return the mean difference with its interval.

    Parameters
    ----------
    differences : array_like, shape (n_questions,)
        A metric's value under one condition less its value under the other, of the same question.
    n_resamples : int
    confidence_level : float
    rng : int, Generator or None

    Returns
    -------
    dict
        ``difference, stderr, low, high, p_value`` (two-sided: twice the smaller share of resampled means beyond 0,
        where a mean of exactly 0 counts half, and at least 1 / n_resamples), ``n_examples``.

    Examples
    --------
    >>> found = paired_bootstrap([0.5, 0.4, 0.6, 0.5], rng=0)
    >>> found["difference"], found["low"] > 0.4
    (0.5, True)
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ConfigError(f"differences must be one finite number per question, got shape {values.shape}")
    if n_resamples < 1 or not 0 < confidence_level < 1:
        raise ConfigError(f"n_resamples={n_resamples} and confidence_level={confidence_level} cannot work")
    generator = np.random.default_rng(rng)
    n = len(values)
    means = np.empty(n_resamples)
    step = max(1, 2**22 // n)
    for start in range(0, n_resamples, step):
        rows = generator.integers(n, size=(min(step, n_resamples - start), n))
        means[start : start + len(rows)] = values[rows].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
    below, level = float(np.mean(means < 0)), float(np.mean(means == 0)) / 2
    p_value = min(1.0, max(2 * min(below + level, 1 - below - level), 1 / n_resamples))
    return {
        "difference": float(values.mean()),
        "stderr": standard_error(values),
        "low": float(low),
        "high": float(high),
        "p_value": p_value,
        "n_examples": n,
    }


def compare_conditions(
    samples: pd.DataFrame,
    metric: str = "nll_per_byte",
    *,
    reference: str = "closed-book",
    n_resamples: int = 2000,
    confidence_level: float = 0.95,
    rng: RngLike = None,
) -> pd.DataFrame:
    """Compare every condition and store size with a reference condition, on the questions that both have.

    Parameters
    ----------
    samples : DataFrame
        ``Evaluation.samples`` of one model.
    metric : str
        Any metric with a value per question; of a perplexity the logarithms are compared.
    reference : str
        The condition to subtract: ``"closed-book"``, or ``"random"`` for evidence at equal prompt length (at the same
        R where it has several).

    Returns
    -------
    DataFrame
        One row per (task, condition, R): ``metric, difference, stderr, low, high, p_value, n_examples``. For a
        log-likelihood loss a negative difference is an improvement.
    """
    rng = np.random.default_rng(rng)
    rows = []
    cells = _cells(samples)
    for (task, condition, size), cell in cells.items():
        if condition == reference:
            continue
        base = cells.get((task, reference, size), _only(cells, task, reference))
        if base is None:
            continue
        found = paired_bootstrap(
            _paired(cell, base, metric), n_resamples=n_resamples, confidence_level=confidence_level, rng=rng
        )
        rows.append(
            {"task": task, "condition": condition, "R": size, "reference": reference, "metric": metric, **found}
        )
    if not rows:
        have = ", ".join(sorted(set(samples["condition"])))
        raise ConfigError(f"nothing to compare with {reference!r}: the samples have the conditions {have}")
    return pd.DataFrame(rows)


def decompose_gain(samples: pd.DataFrame, metric: str = "nll_per_byte") -> pd.DataFrame:
    """Split the gain of retrieval into what was found and what was read.

    For every store size, with h the share of questions whose answer stands in the prompt's passages, and the gain the
    closed book's loss less the retrieved one's: gain = h * gain_hit + (1 - h) * gain_miss. Where the conditions
    ``random`` and ``oracle`` were run, ``gain_random`` is what any passages of that length do, and ``gain_oracle`` what
    the gold passage would.

    Returns
    -------
    DataFrame
        One row per (task, R): ``gain, hit_rate, gain_hit, gain_miss, gain_random, gain_oracle, answer_in_store,
        n_examples``.
    """
    rows = []
    cells = _cells(samples)
    for (task, condition, size), cell in cells.items():
        base = _only(cells, task, "closed-book")
        if not condition.startswith("retrieved") or base is None:
            continue
        known = cell.loc[cell["hit"].notna()]
        if len(known) == 0:
            continue
        gain, hit = -_paired(known, base, metric), np.array(known["hit"].tolist(), dtype=bool)
        random, oracle = cells.get((task, "random", size)), _only(cells, task, "oracle")
        in_store = [float(value) for value in known["answer_in_store"].tolist() if not pd.isna(value)]
        rows.append(
            {
                "task": task,
                "condition": condition,
                "R": size,
                "metric": metric,
                "gain": float(gain.mean()),
                "hit_rate": float(hit.mean()),
                "gain_hit": float(gain[hit].mean()) if hit.any() else float("nan"),
                "gain_miss": float(gain[~hit].mean()) if (~hit).any() else float("nan"),
                "gain_random": _gain(random, base, metric),
                "gain_oracle": _gain(oracle, base, metric),
                "answer_in_store": float(np.mean(in_store)) if in_store else float("nan"),
                "n_examples": len(gain),
            }
        )
    if not rows:
        raise ConfigError("no retrieved samples with a closed book beside them: evaluate with store_tokens=[0, ...]")
    return pd.DataFrame(rows)


def _cells(samples: pd.DataFrame) -> dict[tuple[str, str, int], pd.DataFrame]:
    missing = sorted({"task", "condition", "R", "id"} - set(getattr(samples, "columns", ())))
    if missing:
        raise ConfigError(f"samples must be Evaluation.samples; the columns {', '.join(missing)} are missing")
    if "seed" in samples and samples[[c for c in ("N", "D", "seed") if c in samples]].drop_duplicates().shape[0] > 1:
        raise ConfigError("the samples are of several models: compare one at a time")
    rows: dict[tuple[str, str, int], list[int]] = {}
    keys = zip(samples["task"].tolist(), samples["condition"].tolist(), samples["R"].tolist(), strict=True)
    for row, (task, condition, size) in enumerate(keys):
        rows.setdefault((str(task), str(condition), int(size)), []).append(row)
    return {key: samples.iloc[mine] for key, mine in rows.items()}


def _only(cells: dict[tuple[str, str, int], pd.DataFrame], task: str, condition: str) -> pd.DataFrame | None:
    """Return the one cell of a condition that does not depend on the store, if it was run."""
    return cells.get((task, condition, 0))


def _paired(cell: pd.DataFrame, base: pd.DataFrame, metric: str) -> np.ndarray:
    """Return the metric's difference for every question of ``cell``, in its order; all must be in ``base``."""
    values = pd.Series(per_question(base, metric), index=base["id"].to_numpy())
    missing = [identity for identity in cell["id"] if identity not in values.index]
    if missing:
        raise ConfigError(f"{len(missing)} questions have no counterpart, the first is {missing[0]!r}")
    return per_question(cell, metric) - values.loc[cell["id"].to_numpy()].to_numpy()


def _gain(cell: pd.DataFrame | None, base: pd.DataFrame, metric: str) -> float:
    return float(-_paired(cell, base, metric).mean()) if cell is not None else float("nan")
