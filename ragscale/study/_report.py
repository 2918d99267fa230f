"""The report of a study: one page that answers the question, and says how far the answer can be trusted."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from ragscale import plotting
from ragscale._extras import require
from ragscale.decisions import critical_store, exchange_rate, knee_point, optimal_allocation, reading_threshold
from ragscale.errors import RagscaleError
from ragscale.fitting import Bootstrap, Interaction, ManifoldFit, bootstrap, fit_manifold
from ragscale.study._drawing import draw
from ragscale.study._page import Page, format_cell
from ragscale.study._report_evidence import Frame, controls_section, coverage_section, tasks_section
from ragscale.study._select import select

if TYPE_CHECKING:
    from ragscale.study._study import Study

_PACKAGES = ("ragscale", "torch", "transformers", "tokenizers", "bm25s", "numpy", "scipy", "pandas")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fitted:
    """What every section reads: the chosen rows, their fit, its bootstrap, and the measured frontier."""

    table: Frame
    fit: ManifoldFit
    boot: Bootstrap
    results: Frame
    metric: str
    budgets: tuple[int, ...]


def write_report(
    study: Study,
    path: str | os.PathLike[str],
    *,
    metric: str = "nll_per_token",
    task: str | None = None,
    law: Any = None,
    n_resamples: int = 300,
    rng: Any = 0,
) -> Path:
    """Write the report of a study as one self-contained HTML page, or as Markdown for ``.md``.

    Parameters
    ----------
    study : Study
        With at least some evaluated cells; what is missing is said on the page.
    path : path
        ``.html`` or ``.md``.
    metric : str
        The fitted metric.
    task : str, optional
        One task; by default the mean over the tasks of each cell.
    law : str or ScalingLaw, optional
        The fitted law; by default ``Interaction(scale_D=True)``, which lets the gain depend on N and D.
    n_resamples : int
        Bootstrap resamples of training runs.
    rng : int, Generator or None
        Randomness of the bootstrap.

    Returns
    -------
    Path

    Raises
    ------
    FitError
        When no surface can be fitted to the chosen rows.
    """
    require("matplotlib", "plot")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results: Frame = study.results()
        table: Frame = select(results, metric=metric, task=task)
        fit = fit_manifold(table, Interaction(scale_D=True) if law is None else law)
        boot = bootstrap(fit, n_resamples=n_resamples, rng=rng)
        budgets = sorted({round(total) for total in (table["D"] + table["R"]).unique() if total > 0})
        named = study.config.grids[2].tokens(n_params=int(table["N"].iloc[0]), budget=study.split.n_tokens)
        fitted = _Fitted(
            table=table,
            fit=fit,
            boot=boot,
            results=results,
            metric=metric,
            budgets=tuple(named) or tuple(budgets[-1:]),
        )
        page = Page(f"Memorise or retrieve: {metric}, {task or 'mean over tasks'}")
        for title, section in _SECTIONS:
            page.heading(title)
            try:
                section(page, fitted, study)
            except RagscaleError as error:
                page.text(f"This part could not be computed: {error}", note=True)
        said = list(dict.fromkeys(f"{type(w.message).__name__}: {w.message}" for w in caught if _is_ours(w.category)))
        if said:
            page.heading("Warnings while this page was made", level=3)
            page.bullets(said)
    return page.write(path)


def _is_ours(category: type[Warning]) -> bool:
    return category.__module__.startswith("ragscale")


# Sections ------------------------------------------------------------------------------------------------------------


def _answer(page: Page, fitted: _Fitted, study: Study) -> None:
    """The answer in words and one table."""
    sizes = np.unique(fitted.table["N"].to_numpy(dtype=float))
    best = optimal_allocation(fitted.boot, N=sizes[:, None], budget=np.asarray(fitted.budgets, dtype=float)[None, :])
    low, high = best.interval("share")
    rows = []
    for i, size in enumerate(sizes):
        for j, total in enumerate(fitted.budgets):
            rows.append(
                {
                    "N": size,
                    "budget": float(total),
                    "D": best.D[i, j],
                    "R": best.R[i, j],
                    "store share": best.share[i, j],
                    "low": low[i, j],
                    "high": high[i, j],
                    f"{fitted.metric} there": best.value[i, j],
                    "boundary": best.boundary[i, j],
                }
            )
    table: Frame = pd.DataFrame(rows)
    page.text(str(fitted.fit.diagnostics.retrieval))
    largest = table[table["budget"] == max(fitted.budgets)]
    shares = ", ".join(
        f"N = {format_cell(row.N)}: {100 * row._4:.0f} % [{100 * row.low:.0f}, {100 * row.high:.0f}]"
        for row in largest.itertuples(index=False)
    )
    page.text(
        f"Best share of the store for a budget of {format_cell(float(max(fitted.budgets)))} tokens, with 95 % "
        f"intervals over training runs: {shares}."
    )
    page.table(table, "best-split", caption="The best split of each budget under the fitted surface.")


def _surface(page: Page, fitted: _Fitted, study: Study) -> None:
    """The surface with the points."""
    page.code(fitted.fit.summary())
    draw(
        page,
        "slices",
        "Fitted surface (lines, 95 % bands over training runs) and measured cells (points).",
        lambda ax: plotting.slices(fitted.boot, along="R", ax=ax),
        lambda ax: plotting.slices(fitted.boot, along="D", ax=ax),
    )
    largest = float(fitted.table["N"].max())
    draw(
        page,
        "contours",
        "Iso-loss lines over D and R for the largest model; dotted lines are equal budgets, red is the best split.",
        lambda ax: plotting.contours(fitted.fit, N=largest, budgets=fitted.budgets, ax=ax),
        lambda ax: plotting.parity(fitted.fit, ax=ax),
    )


def _frontier(page: Page, fitted: _Fitted, study: Study) -> None:
    """The fixed-budget experiment: cells with D + R = T, predicted by a fit that never saw them."""
    table = fitted.table
    total = (table["D"] + table["R"]).round()
    on_frontier = total.isin([float(t) for t in fitted.budgets]) & (table["R"] > 0)
    if not on_frontier.any():
        page.text("No cell lies on a fixed budget: give StudyConfig.budgets.")
        return
    fit = fit_manifold(table[~on_frontier], fitted.fit.law)
    held = table[on_frontier].assign(budget=total[on_frontier])
    held = held.assign(predicted=fit.predict(held["N"], held["D"], held["R"]))
    held = held.assign(error_percent=100 * (held["predicted"] / held["value"] - 1))
    error = float(held["error_percent"].abs().mean())
    inside = fitted.table[~on_frontier]
    base = 100 * float((inside["value"] / fit.predict(inside["N"], inside["D"], inside["R"]) - 1).abs().mean())
    page.text(
        f"{len(held)} cells with D + R = T were held out of the fit. Mean error of their prediction: {error:.2f} % "
        f"(cells in the fit: {base:.2f} %)."
    )

    def panel(total_tokens: int) -> Callable[[Any], Any]:
        def drawing(ax: Any) -> None:
            mine = held[held["budget"] == total_tokens]
            for size, colour in plotting.size_colours(mine["N"]):
                of_size = mine[mine["N"] == size].groupby("D", as_index=False)[["R", "value", "predicted"]].mean()
                ax.plot(of_size["D"], of_size["value"], "o", color=colour, label=format_cell(float(size)))
                ax.plot(of_size["D"], of_size["predicted"], "-", color=colour, lw=1.3)
            ax.set(xscale="log", xlabel="pretraining tokens D (the store holds T − D)", ylabel=fitted.metric)
            tokens = np.unique(mine["D"])
            ax.set_xticks(tokens, labels=[format_cell(float(count)) for count in tokens])
            ax.minorticks_off()
            ax.set_title(f"T = {format_cell(float(total_tokens))}")
            ax.legend(title="N", fontsize="x-small")

        return drawing

    shown = [t for t in fitted.budgets if (held["budget"] == t).any()][-3:]
    draw(
        page, "frontier", "Fixed budget: measured cells (points), prediction (lines).", *map(panel, shown), size=(5, 4)
    )
    columns = ["N", "budget", "D", "R", "seed", "value", "predicted", "error_percent"]
    page.table(held[[c for c in columns if c in held]], "frontier-cells", caption="Held-out cells.", max_rows=12)


def _splits(page: Page, fitted: _Fitted, study: Study) -> None:
    """Best share against the budget."""
    sizes = np.unique(fitted.table["N"].to_numpy(dtype=float))
    budgets = np.geomspace(fitted.table["D"].min() * 1.2, max(fitted.budgets), 30)
    store = float(np.median(fitted.table.loc[fitted.table["R"] > 0, "R"]))
    draw(
        page,
        "allocation",
        "Left: best share of the store. Right: pretraining tokens that one more store token replaces, at "
        f"R = {format_cell(store)}.",
        lambda ax: plotting.allocation(fitted.boot, N=list(sizes), budgets=budgets, ax=ax),
        lambda ax: plotting.exchange(fitted.fit, R=store, ax=ax),
    )
    rows = []
    for size in sizes:
        tokens = float(np.median(fitted.table.loc[fitted.table["N"] == size, "D"]))
        rate = exchange_rate(fitted.boot, N=size, D=tokens, R=store)
        knee = knee_point(fitted.fit, N=size, R=store)
        critical = critical_store(fitted.fit, N=size, D=tokens)
        rows.append(
            {
                "N": size,
                "D": tokens,
                "exchange rate": rate.value,
                "low": rate.low,
                "high": rate.high,
                "knee of pretraining (D)": float(np.asarray(knee.D)),
                "store with 90 % of the gain": float(np.asarray(critical.value)),
            }
        )
    page.table(
        pd.DataFrame(rows),
        "exchange-and-knees",
        caption="The knee is where one more pretraining token is worth less than one more store token.",
    )


def _reading(page: Page, fitted: _Fitted, study: Study) -> None:
    """Where retrieval starts to help, measured with the largest store of each checkpoint: small ones may well hurt."""
    table = fitted.table
    largest = table["R"] == table.groupby(["N", "D", "seed"])["R"].transform("max")
    kept = table[largest | (table["R"] == 0)]
    units: dict[Literal["N", "D"], str] = {"N": "parameters", "D": "pretraining tokens"}
    for by, unit in units.items():
        found = reading_threshold(kept, by=by, control="closed-book")
        page.text(f"Gains with the largest store of each checkpoint, over no store, by {unit}: {found.summary()}.")
        page.table(
            found.table, f"reading-threshold-{by}", caption=f"Gain by {by}: mean over checkpoints, 95 % interval."
        )


def _tasks(page: Page, fitted: _Fitted, study: Study) -> None:
    """Each task under each condition."""
    tasks_section(page, fitted.results, fitted.metric)


def _controls(page: Page, fitted: _Fitted, study: Study) -> None:
    """Random and gold passages."""
    controls_section(page, fitted.results, fitted.metric)


def _parts_of_gain(page: Page, fitted: _Fitted, study: Study) -> None:
    """Coverage and use."""
    coverage_section(page, fitted.results, fitted.metric, fitted.fit.law)


def _diagnostics(page: Page, fitted: _Fitted, study: Study) -> None:
    """What the data can and cannot tell."""
    page.bullets([finding.text for finding in fitted.fit.diagnostics.findings])
    missing: Frame = study.missing()
    if len(missing):
        page.text(f"{len(missing)} jobs of the study are not done; their cells are missing from the fit.")
        page.table(missing[["stage", "label", "state", "error"]], "missing", caption="Jobs that are not done.")
    else:
        page.text("Every cell of the plan was evaluated.")


def _made(page: Page, fitted: _Fitted, study: Study) -> None:
    """How the page was made."""
    split = study.split
    facts = {
        "configuration": study.config.digest[:16],
        "split": f"{split.digest[:16]}, T = {split.n_tokens:,} tokens, {split.n_documents:,} documents",
        "cells": f"{len(fitted.table)} fitted rows, {len(fitted.results)} results",
        "seeds": ", ".join(map(str, study.config.seeds)),
        "retriever": str(study.config.retriever),
        "Python": platform.python_version(),
        **{name: version for name in _PACKAGES if (version := _version(name))},
    }
    page.table(pd.DataFrame({"what": list(facts), "value": list(facts.values())}), "made", caption="")
    page.table(study.shapes(), "models", caption="N is core + output head.")
    status: Frame = study.status().groupby("stage", as_index=False, sort=False)["seconds"].sum()
    page.table(status, "time", caption="Seconds of work in each stage, over all workers.")
    rows = fitted.results[fitted.results["metric"] == fitted.metric]
    page.table(
        rows.drop(columns=[c for c in ("prompts",) if c in rows]),
        "results",
        caption=f"All results in {fitted.metric}; study.results() has {fitted.results['metric'].nunique()} metrics.",
        max_rows=8,
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


_SECTIONS: tuple[tuple[str, Callable[[Page, _Fitted, Any], None]], ...] = (
    ("The answer", _answer),
    ("The surface", _surface),
    ("The fixed budget: predicted and measured", _frontier),
    ("Best split, exchange rate, knees", _splits),
    ("Where retrieval starts to help", _reading),
    ("Tasks", _tasks),
    ("Controls", _controls),
    ("The gain taken apart", _parts_of_gain),
    ("What the data can and cannot tell", _diagnostics),
    ("How this was made", _made),
)
