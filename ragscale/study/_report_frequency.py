"""Remember or look up, fact by fact: at which frequency of a fact do the two cross?

It needs questions that know how often their facts are told: by ``meta["n_documents"]``, the documents of the corpus
that state the answer, and ``meta["hops"]``; those of the invented world have both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from ragscale import plotting
from ragscale.errors import ResultsError
from ragscale.study._drawing import draw
from ragscale.study._jobs import folder_of
from ragscale.study._page import Page, format_cell
from ragscale.study._stage_split import load_tasks
from ragscale.study._variants import chosen_way

if TYPE_CHECKING:
    from ragscale.study._study import Study

_BINS = 8
_RESAMPLES = 400
_ON_BUDGET = 0.02  # share of the budget: how far from D + R = T a cell may lie


@dataclass(frozen=True, kw_only=True, slots=True)
class Crossing:
    """Where memory and look-up cross, for one model size and one budget.

    Attributes
    ----------
    N, budget : float
    D, R : float
        The split that looks up: the best measured one of the budget that has a store.
    memory, lookup, best : float
        Mean loss over the tasks: everything in pretraining, closed book; the split; and each question by whichever
        side of the crossing it lies on.
    frequency, low, high : float
        Documents that state a fact, from which on memory is better: the cut with the lowest loss, and its 95 %
        interval over questions and trained models. Infinite: looking up is better for every fact; 0: memory is.
    gain, gain_low, gain_high : float
        ``memory - lookup`` with its 95 % interval.
    bins : DataFrame
        ``frequency, memory, lookup, difference, low, high`` by groups of questions.
    """

    N: float
    budget: float
    D: float
    R: float
    memory: float
    lookup: float
    best: float
    frequency: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    bins: pd.DataFrame

    def sentence(self) -> str:
        """Say which measured split is best, by how much, and which facts are remembered."""
        size = f"Of {format_cell(self.budget)} tokens a model of {format_cell(self.N)} parameters"
        interval = f"95 % interval {format_cell(self.gain_low)} to {format_cell(self.gain_high)}"
        if self.gain > 0:
            split = f"does best with {format_cell(self.R)} in the store, of the splits that were measured"
            saved = f"which saves {format_cell(self.gain)} nats over no store ({interval})"
        else:
            split = "does best with no store, of the splits that were measured"
            saved = f"the best store costs {format_cell(-self.gain)} nats (gain: {interval})"
        return f"{size} {split}, {saved}; {self._remembered()}."

    def _remembered(self) -> str:
        if np.isinf(self.frequency):
            return "it looks up facts of every frequency better than it remembers them"
        if self.frequency == 0:
            return "it remembers facts of every frequency better than it looks them up"
        return (
            f"facts that more than {self.frequency:.0f} documents tell (95 % interval {_count(self.low)} to "
            f"{_count(self.high)}) it remembers better, rarer ones it looks up better"
        )


def _count(value: float) -> str:
    return "beyond all" if np.isinf(value) else f"{value:.0f}"


def losses_by_question(study: Study, budget: float, *, store_source: str, k: int) -> pd.DataFrame:
    """Return the loss of each question on the cells of a budget: ``N, seed, D, R, task, id, frequency,
    value, hit``.

    Cells with D = T and no store are the memory; those with R = T - D look up. ``frequency`` is NaN for questions that
    do not know how often their fact is told, or that need several; the table is empty where none knows.
    """
    states = study._states()
    split = next(state.job for state in states if state.job.stage == "split")
    specifications: Any = study.config.tasks
    told = {
        (task.name, example.id): float(example.meta["n_documents"])
        for task in load_tasks(tuple(spec.text for spec in specifications), folder_of(study.directory, split))
        for example in task.examples
        if example.meta.get("n_documents") and example.meta.get("hops", 1) == 1
    }
    rows = []
    for state in states if told else ():
        if state.job.stage != "evaluate" or state.state != "done":
            continue
        inputs, folder = state.job.inputs, folder_of(study.directory, state.job)
        wanted = {0: "closed-book"} if abs(inputs.D - budget) <= _ON_BUDGET * budget else {}
        if (inputs.source, inputs.k) == (store_source, k):
            wanted |= {R: "retrieved" for R in inputs.stores if R and abs(inputs.D + R - budget) <= _ON_BUDGET * budget}
        for R, condition in wanted.items():
            for path in sorted((folder / "cells").glob(f"*-{condition}-R{R}-*.json")):
                rows += _samples(path, told, seed=inputs.seed, D=inputs.D, model=inputs.model)
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    shapes = study.shapes()
    sizes = dict(zip(shapes["model"], shapes["N"], strict=True))
    return table.assign(N=[float(sizes[name]) for name in table["model"]], budget=budget)


def _samples(path: Path, told: dict[tuple[str, str], float], **columns: Any) -> list[dict[str, Any]]:
    samples = json.loads(path.read_text(encoding="utf-8"))["samples"]
    return [
        {
            **columns,
            "R": sample["R"],
            "task": sample["task"],
            "id": sample["id"],
            "frequency": told.get((sample["task"], sample["id"]), np.nan),
            "value": -sample["logprobs"][sample["gold_index"]] / sample["n_tokens"][sample["gold_index"]],
            "hit": sample["hit"],
        }
        for sample in samples
    ]


def crossings(
    study: Study, budgets: tuple[int, ...], *, store_source: str | None = None, k: int | None = None
) -> list[Crossing]:
    """Return the crossing of every size and budget that has both, cells of pure memory and cells with a store."""
    way = chosen_way(study.config, store_source=store_source, k=k)
    found = []
    for budget in budgets:
        table = losses_by_question(study, float(budget), **way)
        for size in sorted(table["N"].unique()) if len(table) else ():
            mine: Any = table[table["N"] == size]
            stores = set(mine["R"])
            if 0 in stores and len(stores) > 1:
                found.append(crossing(mine))
    return found


def crossing(table: pd.DataFrame, *, n_resamples: int = _RESAMPLES, rng: int = 0) -> Crossing:
    """Find the crossing from the questions of one size and budget, as `losses_by_question` gives them.

    Every task counts alike in the means, as in the report; questions are resampled within their tasks.
    """
    by_task = cast(Any, table[table["R"] > 0].groupby(["D", "R", "task"])["value"].mean())
    d, r = by_task.groupby(["D", "R"]).mean().idxmin()
    key = ["task", "id"]
    memory = table[table["R"] == 0].pivot_table(index=key, columns="seed", values="value")
    lookup = table[(table["D"] == d) & (table["R"] == r)].pivot_table(index=key, columns="seed", values="value")
    lookup = lookup.reindex(index=memory.index, columns=memory.columns)
    if memory.isna().any(axis=None) or lookup.isna().any(axis=None):
        raise ResultsError("cells of the budget lack questions or seeds, so memory and look-up cannot be compared")
    told = table.drop_duplicates(key).set_index(key)["frequency"].reindex(memory.index).to_numpy(dtype=float)
    known = np.isfinite(told)
    groups = [np.flatnonzero(rows) for rows in _each(memory.index.get_level_values("task"))]
    share = np.concatenate([np.full(len(rows), 1 / len(rows) / len(groups)) for rows in groups])
    order = np.concatenate(groups)
    weight = np.empty(len(order))
    weight[order] = share
    a, b = memory.to_numpy(), lookup.to_numpy()
    generator = np.random.default_rng(rng)
    draws, gains = np.empty(n_resamples), np.empty(n_resamples)
    for i in range(n_resamples):
        rows = np.concatenate([generator.choice(rows, len(rows)) for rows in groups])
        models = generator.integers(a.shape[1], size=a.shape[1])
        gain = (a[np.ix_(rows, models)] - b[np.ix_(rows, models)]).mean(axis=1)
        draws[i], gains[i] = _cut(told[rows][known[rows]], gain[known[rows]]), weight[rows] @ gain
    x, y = a.mean(axis=1), b.mean(axis=1)
    at = _cut(told[known], (x - y)[known])
    low, high = np.quantile(draws, [0.025, 0.975], method="inverted_cdf")
    gain_low, gain_high = np.quantile(gains, [0.025, 0.975])
    return Crossing(
        N=float(table["N"].iloc[0]),
        budget=float(table["budget"].iloc[0]),
        D=float(d),
        R=float(r),
        memory=float(weight @ x),
        lookup=float(weight @ y),
        best=float(weight @ np.where(known & (told > at), x, y)),
        frequency=at,
        low=float(low),
        high=float(high),
        gain=float(weight @ (x - y)),
        gain_low=float(gain_low),
        gain_high=float(gain_high),
        bins=_bins(told[known], x[known], y[known]),
    )


def _each(names: pd.Index) -> list[np.ndarray]:
    return [np.asarray(names == name) for name in names.unique()]


def _cut(told: np.ndarray, gain: np.ndarray) -> float:
    """Return the frequency above which facts should be remembered, so that the total of what is lost is smallest.

    ``gain`` is what looking up gains over memory. The cut lies between two measured frequencies (their geometric mean).
    """
    frequencies, group = np.unique(told, return_inverse=True)
    by_frequency = np.bincount(group, weights=gain)
    kept = np.concatenate([[0.0], np.cumsum(by_frequency)])  # gain if the i rarest frequencies are looked up
    best = int(np.argmax(kept))
    if best == 0:
        return 0.0
    if best == len(frequencies):
        return float("inf")
    return float(np.sqrt(frequencies[best - 1] * frequencies[best]))


def _bins(told: np.ndarray, memory: np.ndarray, lookup: np.ndarray) -> pd.DataFrame:
    rows = []
    for part in np.array_split(np.argsort(told, kind="stable"), min(_BINS, len(told))):
        difference = memory[part] - lookup[part]
        error = 1.96 * difference.std(ddof=1) / np.sqrt(len(part)) if len(part) > 1 else np.nan
        rows.append(
            {
                "frequency": float(np.exp(np.log(told[part]).mean())),
                "memory": float(memory[part].mean()),
                "lookup": float(lookup[part].mean()),
                "difference": float(difference.mean()),
                "low": float(difference.mean() - error),
                "high": float(difference.mean() + error),
            }
        )
    return pd.DataFrame(rows)


def frequency_section(page: Page, found: list[Crossing]) -> None:
    """Show loss against the frequency of a fact, remembered and looked up, and where they cross."""
    if not found:
        page.text("The questions do not say how often their facts are told, or no budget has a cell without a store.")
        return
    page.bullets([each.sentence() for each in found])
    budget = max(each.budget for each in found)
    shown = [each for each in found if each.budget == budget]

    def drawing(ax: Any) -> None:
        for size, colour in plotting.size_colours(pd.Series([each.N for each in shown])):
            each = next(one for one in shown if size == one.N)
            x, name = each.bins["frequency"], f"N = {format_cell(size)}"
            ax.plot(x, each.bins["memory"], "o-", color=colour, label=f"{name}, remembered")
            ax.plot(x, each.bins["lookup"], "s--", color=colour, mfc="none", label=f"{name}, looked up")
            if 0 < each.frequency < np.inf:
                ax.axvline(each.frequency, color=colour, lw=1, ls=":")
        ax.set(xscale="log", xlabel="documents of the corpus that state the fact", ylabel="nats per answer token")
        ticks = np.unique([f"{x:.2g}" for x in shown[0].bins["frequency"]]).astype(float)
        ax.set_xticks(ticks, labels=[format_cell(tick) for tick in ticks])
        ax.minorticks_off()
        ax.set_title(f"a budget of {format_cell(budget)} tokens")
        ax.legend(fontsize="x-small")

    draw(page, "frequency", "Remembered (all tokens in pretraining) and looked up, by frequency of the fact.", drawing)
    columns = ["N", "budget", "D", "R", "memory", "lookup", "best", "frequency", "low", "high", "gain"]
    columns += ["gain_low", "gain_high"]
    frame = pd.DataFrame([{name: getattr(each, name) for name in columns} for each in found])
    page.table(frame, "crossings", caption="Where memory and look-up cross; gain is what looking up saves in all.")
