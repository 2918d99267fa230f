"""The first screen of a report: the answer in sentences, one picture, and whether the fit may be believed."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

from ragscale import plotting
from ragscale.decisions import Allocation, optimal_allocation
from ragscale.decisions._surface import surface
from ragscale.errors import FitError, RagscaleError, RagscaleWarning
from ragscale.fitting import fit_manifold
from ragscale.results import select
from ragscale.results._metric_words import metric_words
from ragscale.study._drawing import draw
from ragscale.study._page import Page, format_cell
from ragscale.study._report_evidence import Frame
from ragscale.study._report_surface import Fitted

_SPREAD = 0.02  # of the budget: how far from D + R = T a cell may lie to count as on it


def answer_section(page: Page, fitted: Fitted, measured: list[str]) -> None:
    """Say the answer: whether retrieval helps, the best split of each budget, and the best that was measured."""
    words = answer_words(fitted, measured)
    page.text(words[0], note=not (measured or fitted.surface().describes_data))
    page.bullets(words[1:])
    if fitted.budgets:
        budget = float(max(fitted.budgets))
        _budget_picture(page, fitted, budget)
        _by_task(page, fitted, budget)


def answer_words(fitted: Fitted, by_frequency: list[str]) -> list[str]:
    """Return the answer in sentences: the verdict, one split for each N, and what the disagreement of laws may cost.

    What was measured question by question (``by_frequency``) stands whatever a law makes of it, so it comes first. A
    fit that does not describe the data says so, and recommends no split.
    """
    if fitted.fit is None and by_frequency:
        return [*by_frequency, f"No law was fitted: {fitted.why}"]
    fit = fitted.surface()
    if not fit.describes_data:
        none = f"No split is recommended{' beyond those that were measured' * bool(by_frequency)}: "
        return [*by_frequency, none + str(fit.diagnostics.misfit), fit.verdict.text]
    if not fitted.budgets:
        return [fit.verdict.text, "No budget was measured: there is nothing to split."]
    budget = float(max(fitted.budgets))
    sizes = np.unique(fitted.table["N"].to_numpy(dtype=float))
    try:
        best = optimal_allocation(fit if fitted.boot is None else fitted.boot, N=sizes, budget=budget)
    except FitError as error:
        beyond = " beyond those that were measured" * bool(by_frequency)
        return [*(by_frequency or [fit.verdict.text]), f"No split is recommended{beyond}: {error}"]
    measured = measured_best(fitted.table, budget, surface(fit).rises)
    words = [*(by_frequency or [fit.verdict.text]), *(_sentence(best, measured, i) for i in range(len(sizes)))]
    if best.regret is not None:
        words.append(
            f"{len(set(best.laws['law']))} laws fit these results equally well. If another of them than their mean is "
            f"true, the recommended split costs at most {best.regret.worst:.2g} ({metric_words(fitted.metric)})."
        )
    return words


def measured_best(table: Frame, budget: float, rises: bool) -> dict[float, tuple[float, float]]:
    """Return for each N the measured D of the best cell on a budget, and its value; seeds are averaged."""
    total = table["D"] + table["R"]
    on_it = table[(total - budget).abs() <= _SPREAD * budget]
    if on_it.empty:
        return {}
    cells: Frame = on_it.groupby(["N", "D"], as_index=False)["value"].mean()
    found = {}
    for size, rows in cells.groupby("N"):
        if len(rows) > 1:
            row: Any = rows.loc[rows["value"].idxmax() if rises else rows["value"].idxmin()]
            found[float(size)] = (float(row["D"]), float(row["value"]))
    return found


def _count(value: float) -> str:
    return format_cell(value, digits=3)


def _sentence(best: Allocation, measured: dict[float, tuple[float, float]], i: int) -> str:
    size, budget = float(np.ravel(best.N)[i]), float(np.ravel(best.budget)[i])
    d, r, share = (float(np.ravel(getattr(best, name))[i]) for name in ("D", "R", "share"))
    head = f"With {_count(budget)} tokens and a model of {_count(size)} parameters: "
    if r == 0:
        text = "all of them for pretraining, no store"
    else:
        text = f"{_count(d)} for pretraining and {_count(r)} for the store ({100 * share:.0f} %"
        if best.replicates:
            low, high = (float(np.ravel(x)[i]) for x in best.interval("share"))
            text += f", 95 % interval {100 * low:.0f} to {100 * high:.0f}"
        text += ")"
    near = best.near_optimal
    if len(near):
        mine: Any = near[(near["N"] == size) & (near["budget"] == budget)]
        spans = [f"{_count(a)} to {_count(b)}" for a, b in zip(mine["D_low"], mine["D_high"], strict=True)]
        if spans and not (len(spans) == 1 and spans[0].split(" to ")[0] == spans[0].split(" to ")[1]):
            text += f"; anything from {' or '.join(spans)} for pretraining is as good as this can tell"
    if size in measured:
        text += f"; the best split that was measured has {_count(measured[size][0])} for pretraining"
    return head + text + "."


def _budget_picture(page: Page, fitted: Fitted, budget: float) -> None:
    """Draw the loss along the largest budget: measured points, the fitted line, one colour for each N."""
    fit = fitted.surface()
    total = fitted.table["D"] + fitted.table["R"]
    rows = fitted.table[(total - budget).abs() <= _SPREAD * budget]
    if rows["D"].nunique() < 2:
        return

    def drawing(ax: Any) -> None:
        tokens = np.unique(rows["D"].to_numpy(dtype=float))
        line = np.geomspace(tokens.min(), tokens.max(), 200)
        for size, colour in plotting.size_colours(rows["N"]):
            mine = rows[rows["N"] == size].groupby("D", as_index=False)["value"].mean()
            ax.plot(mine["D"], mine["value"], "o", color=colour, label=_count(float(size)))
            if fit.describes_data:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", RagscaleWarning)
                    store = np.maximum(budget - line, 0.0)
                    ax.plot(line, fit.predict(np.full_like(line, size), line, store), "-", color=colour, lw=1.3)
        ax.set(
            xscale="log", xlabel="tokens for pretraining (the store holds the rest)", ylabel=metric_words(fitted.metric)
        )
        ax.set_xticks(tokens, labels=[_count(count) for count in tokens])
        ax.minorticks_off()
        ax.set_title(f"a budget of {_count(budget)} tokens")
        ax.legend(title="parameters", fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))

    draw(page, "answer", "Measured (points) and fitted (lines).", drawing, size=(7.2, 4))


def _by_task(page: Page, fitted: Fitted, budget: float) -> None:
    """Answer for each task by itself: an average hides that one is memorised and another looked up."""
    results = fitted.results[fitted.results["metric"] == fitted.metric]
    tasks = sorted(map(str, results["task"].unique()))
    if len(tasks) < 2:
        return
    rows = []
    for task in tasks:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RagscaleWarning)
                table: Any = select(results, metric=fitted.metric, task=task, conditions=None)
                fit = fit_manifold(table)
                largest = float(table["N"].max())
                best = optimal_allocation(fit, N=largest, budget=budget)
        except RagscaleError as error:
            rows.append({"task": task, "answer": f"cannot be told: {str(error)[:160]}"})
            continue
        closed = table[table["condition"].isin(["closed-book", "retrieved"])] if "condition" in table else table
        measured = measured_best(closed, budget, surface(fit).rises).get(largest)
        row: dict[str, Any] = {"task": task, "answer": fit.verdict.text}
        if fit.describes_data:
            row |= {"for pretraining": float(best.D), "for the store": float(best.R)}
        if measured is not None:
            row["best measured, for pretraining"] = measured[0]
        rows.append(row)
    page.table(
        pd.DataFrame(rows),
        "tasks-answer",
        shown=True,
        caption=f"The largest model and {_count(budget)} tokens, task by task.",
    )
