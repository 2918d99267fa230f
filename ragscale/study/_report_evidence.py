"""The sections of a report that compare what was shown: tasks, controls, and the gain taken apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ragscale import plotting
from ragscale.errors import FitError
from ragscale.fitting import ScalingLaw, fit_manifold
from ragscale.fitting.laws._coverage import Coverage, coverage_table
from ragscale.results._metric_words import metric_words
from ragscale.study._drawing import draw
from ragscale.study._page import Page, format_cell

Frame = Any  # a DataFrame: pandas' own annotations lose track of rows chosen by a mask
_CHECKPOINT = ["task", "N", "D", "seed"]


def gains(results: Frame, metric: str) -> Frame:
    """Return every row with a passage, and ``gain``: the closed book's value of the same checkpoint less the row's.

    Passages that do not depend on the store (gold and random ones) appear once.
    """
    rows = results[results["metric"] == metric]
    closed = rows[rows["condition"] == "closed-book"]
    shown = rows[rows["condition"] != "closed-book"]
    fixed = shown["condition"].isin(["oracle", "random"])
    shown = shown[~(fixed & shown.duplicated(["condition", *_CHECKPOINT]))]
    merged = shown.merge(closed[[*_CHECKPOINT, "value"]], on=_CHECKPOINT, suffixes=("", "_closed"), validate="m:1")
    return merged.assign(gain=merged["value_closed"] - merged["value"])


def complete_tasks(results: Frame, metric: str) -> list[str]:
    """Return the tasks that were asked under every condition, with no question left out of any."""
    rows = results[results["metric"] == metric]
    needed = {"closed-book", "retrieved", "oracle", "random"}
    return [
        str(task)
        for task, mine in rows.groupby("task")
        if needed <= set(mine["condition"]) and mine["n_examples"].nunique() == 1
    ]


def tasks_section(page: Page, results: Frame, metric: str) -> None:
    """What each task gains from the store, from gold passages and from random ones."""
    rows = gains(results, metric)
    largest = rows[rows["condition"] == "retrieved"].groupby(_CHECKPOINT)["R"].transform("max")
    kept = rows[(rows["condition"] != "retrieved") | (rows["R"] == largest.reindex(rows.index))]
    table = kept.pivot_table(index=["task", "N"], columns="condition", values="gain")
    table = table.rename(columns={name: f"gain, {name}" for name in table.columns})
    hits = kept[kept["condition"] == "retrieved"].groupby(["task", "N"])[["value_closed", "hit_rate"]].mean()
    hits.columns = ["closed book", "hit rate"]
    page.table(
        hits.join(table).reset_index(),
        "tasks",
        caption=f"Gains in {metric_words(metric)} over the closed book of the same checkpoint (positive: lower with "
        "passages), mean over D and seeds, with the largest store of each D.",
        max_rows=60,
    )


def controls_section(page: Page, results: Frame, metric: str) -> None:
    """How much of the gain any passage brings, and how much the right one."""
    rows = gains(results, metric)
    tasks = complete_tasks(results, metric)
    rows = rows[rows["task"].isin(tasks)]
    if rows.empty:
        page.text("No task was asked under all of 'oracle' and 'random': there is nothing to control with.")
        return
    wide = rows.pivot_table(index=["N", "D"], columns="condition", values="gain").reset_index()
    wide["gold over random"] = wide["oracle"] - wide["random"]

    def panel(column: str, label: str) -> Callable[[Any], Any]:
        def drawing(ax: Any) -> None:
            for size, colour in plotting.size_colours(wide["N"]):
                mine = wide[wide["N"] == size]
                ax.plot(mine["D"], mine[column], "o-", color=colour, label=format_cell(float(size)))
            ax.axhline(0, color="0.5", lw=1)
            ax.set(xscale="log", xlabel="pretraining (tokens)", ylabel=f"{label}\n{metric_words(metric)}")
            ax.legend(title="parameters", fontsize="x-small")

        return drawing

    draw(
        page,
        "controls",
        "Left: what any passage brings over none. Right: what the gold passage brings over a random one.",
        panel("random", "gain of a random passage"),
        panel("gold over random", "gain of gold over random"),
    )
    page.table(
        wide, "controls", caption=f"Gains over the closed book, mean over seeds and the tasks {', '.join(tasks)}."
    )


def predicted_gains(rows: Frame) -> Frame:
    """Predict what each store gains from its hit rate, within each checkpoint; ``rows`` are those of `gains`.

    With h the hit rate, the gain is h g_gold + (1 - h) g_other, where g_gold is the gain of the gold passage. For
    g_other there are two candidates: the gain of a random passage (column ``by_random``), and what the smallest store
    of the checkpoint gains beyond its hits (``by_smallest``; those cells are then left out). A retrieved passage
    without the answer is on the topic, a random one is not.
    """
    wide = rows[rows["condition"] != "retrieved"].pivot_table(index=_CHECKPOINT, columns="condition", values="gain")
    cells = rows[rows["condition"] == "retrieved"].merge(wide[["oracle", "random"]].reset_index(), on=_CHECKPOINT)
    smallest = cells["R"] == cells.groupby(_CHECKPOINT)["R"].transform("min")
    first = cells[smallest].set_index(_CHECKPOINT)
    missed = (first["gain"] - first["hit_rate"] * first["oracle"]) / (1 - first["hit_rate"])
    cells = cells[~smallest].merge(missed.rename("missed").reset_index(), on=_CHECKPOINT)
    found = cells["hit_rate"] * cells["oracle"]
    return cells.assign(
        by_random=found + (1 - cells["hit_rate"]) * cells["random"],
        by_smallest=found + (1 - cells["hit_rate"]) * cells["missed"],
    )


def coverage_section(page: Page, results: Frame, metric: str, law: ScalingLaw) -> None:
    """The gain taken apart into hits and misses: within checkpoints, and as a law over N and D."""
    tasks = complete_tasks(results, metric)
    if not tasks:
        raise FitError("some task needs all of the conditions closed-book, retrieved, oracle and random")
    page.text(
        "gain = hit rate × gain of a passage with the answer + (1 − hit rate) × gain of a passage without it. The gold "
        "passage stands for the first; for the second either a random passage, or what the smallest store of the same "
        "checkpoint gains beyond its hits."
    )
    rows = gains(results, metric)
    cells = predicted_gains(rows[rows["task"].isin(tasks)])
    if len(cells):
        page.table(
            pd.DataFrame(
                [
                    {
                        "a passage without the answer is like": name,
                        "mean gain, measured": cells["gain"].mean(),
                        "predicted": cells[column].mean(),
                        "root mean square error": float(np.sqrt(((cells[column] - cells["gain"]) ** 2).mean())),
                        "correlation": cells[column].corr(cells["gain"]),
                    }
                    for name, column in (
                        ("a random passage", "by_random"),
                        ("those of the smallest store", "by_smallest"),
                    )
                ]
            ),
            "gain-taken-apart",
            caption=f"Gains of {len(cells)} cells ({', '.join(tasks)}; every store but each checkpoint's smallest), "
            f"predicted without having been evaluated. Their standard deviation is {cells['gain'].std():.4f}.",
        )
    chosen = results[(results["metric"] == metric) & results["task"].isin(tasks)]
    keys = ["condition", "N", "D", "R", "seed"]
    parts: Frame = coverage_table(chosen.groupby(keys, as_index=False)[["value", "hit_rate"]].mean())
    trained = parts[parts["evidence"] != "retrieved"].reset_index(drop=True)
    tested = parts[parts["evidence"] == "retrieved"]
    fit = fit_manifold(trained, Coverage())
    predicted = fit.predict(tested["N"], tested["D"], tested["R"], hit_rate=tested["hit_rate"])
    error = 100 * float((predicted / tested["value"] - 1).abs().mean())
    smooth = parts[parts["evidence"].isin(["closed-book", "retrieved"])]
    errors = []
    for store in np.unique(tested["R"]):
        held = smooth["R"] == store
        without = fit_manifold(smooth[~held], law)
        mine = smooth[held]
        errors.append((without.predict(mine["N"], mine["D"], mine["R"]) / mine["value"] - 1).abs())
    page.text(
        "As a law over N and D, fitted to closed-book, gold and random passages only, without any store, it predicts "
        f"the {len(tested)} retrieved cells with a mean error of {error:.2f} %. The law {law.name}, which sees "
        f"every other store, predicts a store left out with {100 * float(np.concatenate(errors).mean()):.2f} %."
    )
    coverage = tested.groupby("R", as_index=False)[["hit_rate"]].mean()
    page.table(
        coverage.rename(columns={"hit_rate": "hit rate of the top k"}),
        "coverage",
        caption="Share of questions whose answer stands in the passages shown.",
    )
    page.code(fit.summary(), caption="The fit of this law in numbers.")
