"""The report of a study: one page for every state it can be in, from the plan alone to the best split of a budget."""

from __future__ import annotations

import logging
import os
import platform
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import pandas as pd

from ragscale import results as results_table
from ragscale._extras import require
from ragscale._typing import RngLike
from ragscale.errors import RagscaleError, RagscaleWarning, ResultsError
from ragscale.fitting import bootstrap, fit_manifold
from ragscale.results._metric_words import metric_words
from ragscale.study._fit_rows import rows_to_fit
from ragscale.study._page import Page, format_cell
from ragscale.study._report_answer import answer_section, answer_words
from ragscale.study._report_evidence import Frame, controls_section, coverage_section, tasks_section
from ragscale.study._report_frequency import crossings, frequency_section
from ragscale.study._report_surface import (
    Fitted,
    frontier_section,
    reading_section,
    splits_section,
    surface_section,
)
from ragscale.study._variants import chosen_way, one_way

if TYPE_CHECKING:
    from ragscale.fitting.laws._law import ScalingLaw
    from ragscale.study._study import Study

_PACKAGES = ("ragscale", "torch", "transformers", "tokenizers", "bm25s", "numpy", "scipy", "pandas")
_LOG = logging.getLogger("ragscale")


class ReportOptions(TypedDict, total=False):
    """The options of `write_report`."""

    metric: str
    task: str | None
    law: str | ScalingLaw
    store_source: str | None
    k: int | None
    n_resamples: int
    rng: RngLike


def write_report(
    study: Study,
    path: str | os.PathLike[str],
    *,
    metric: str = "nll_per_token",
    task: str | None = None,
    law: str | ScalingLaw = "auto",
    store_source: str | None = None,
    k: int | None = None,
    n_resamples: int = 300,
    rng: RngLike = 0,
) -> Path:
    """Write the report of a study as one self-contained HTML page, or as Markdown for ``.md``.

    There is a page for every state: a study that has just begun, one with failures, a pilot of three cells, one task,
    no retrieval. What cannot be computed is said where it would stand.

    Parameters
    ----------
    study : Study
    path : path
        ``.html`` or ``.md``.
    metric : str
        The fitted metric.
    task : str, optional
        One task; by default the mean over the tasks of each cell.
    law : str or ScalingLaw
        The fitted law, as in `ragscale.fit_manifold`.
    store_source : {"held-out", "seen"}, optional
        Which stores, where the study has both; by default held-out ones.
    k : int, optional
        Passages shown, where the study has several numbers; by default the smallest.
    n_resamples : int
        Bootstrap resamples of training runs.
    rng : int, Generator or None
        Randomness of the bootstrap.

    Returns
    -------
    Path

    Raises
    ------
    ResultsError
        When the results have no such metric or task; the message names those that there are.
    ConfigError
        When the study has no such source or k.
    """
    require("matplotlib", "plot")
    way = chosen_way(study.config, store_source=store_source, k=k)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        page = Page(f"Memorise or retrieve: {metric_words(metric)}, {task or 'mean over tasks'}")
        try:
            results: Frame = study.results()
        except ResultsError as error:
            page.text(f"There are no results to report: {error}")
            sections: list[tuple[str, Callable[[], None]]] = []
        else:
            _check_names(results, metric, task)
            results = one_way(results, study.config, **way)
            fitted = _fitted(study, results, metric, task, law, n_resamples=n_resamples, rng=rng)
            sections = [
                ("The answer", lambda: answer_section(page, fitted, _by_frequency(study, fitted, task, way))),
                ("The surface", lambda: surface_section(page, fitted)),
                ("The fixed budget: predicted and measured", lambda: frontier_section(page, fitted)),
                ("Best split, exchange rate, knees", lambda: splits_section(page, fitted)),
                ("Where retrieval starts to help", lambda: reading_section(page, fitted)),
                ("Tasks", lambda: tasks_section(page, fitted.results, metric)),
                ("Remembered or looked up", lambda: frequency_section(page, crossings(study, fitted.budgets, **way))),
                ("Controls", lambda: controls_section(page, fitted.results, metric)),
                ("The gain taken apart", lambda: coverage_section(page, fitted.results, metric, fitted.surface().law)),
                ("What the data can and cannot tell", lambda: _diagnostics(page, fitted)),
            ]
        sections += [
            ("What was done", lambda: _progress(page, study)),
            ("How often the store holds an answer", lambda: _coverage(page, study, way)),
            ("How this was made", lambda: _made(page, study, metric, way)),
        ]
        for title, section in sections:
            page.heading(title)
            _attempt(page, section)
        said = list(dict.fromkeys(f"{type(w.message).__name__}: {w.message}" for w in caught if _is_ours(w.category)))
        if said:
            page.heading("Warnings while this page was made", level=3)
            page.bullets(said)
    return page.write(path)


def answer_of(
    study: Study,
    *,
    metric: str,
    task: str | None,
    store_source: str | None = None,
    k: int | None = None,
    n_resamples: int = 300,
    rng: RngLike = 0,
) -> str:
    """Return the answer of the report in sentences, from the same fit."""
    results: Frame = study.results()
    _check_names(results, metric, task)
    way = chosen_way(study.config, store_source=store_source, k=k)
    results = one_way(results, study.config, **way)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RagscaleWarning)
        fitted = _fitted(study, results, metric, task, "auto", n_resamples=n_resamples, rng=rng)
        return "\n".join(answer_words(fitted, _by_frequency(study, fitted, task, way)))


def _by_frequency(study: Study, fitted: Fitted, task: str | None, way: dict[str, Any]) -> list[str]:
    """Return what questions that know how often their facts are told say of the largest budget, largest model first."""
    if fitted.metric != "nll_per_token" or task is not None or not fitted.budgets:
        return []
    try:
        found = crossings(study, fitted.budgets[-1:], **way)
        return [each.sentence() for each in sorted(found, key=lambda each: -each.N)]
    except ResultsError:  # the section of its own says what is missing
        return []


def _attempt(page: Page, section: Callable[[], None]) -> None:
    """Add a section; where it cannot be computed, say so instead: the others still stand."""
    try:
        section()
    except RagscaleError as error:
        page.text(f"This part could not be computed: {error}", note=True)
    except Exception as error:  # noqa: BLE001 - a page for every state; the traceback is logged
        _LOG.exception("a section of the report failed")
        page.text(f"This part could not be computed ({type(error).__name__}: {error}).", note=True)


def _check_names(results: Frame, metric: str, task: str | None) -> None:
    for name, value in (("metric", metric), ("task", task)):
        there = sorted(map(str, results[name].unique()))
        if value is not None and value not in there:
            raise ResultsError(f"the study has no {name} {value!r}; it has {', '.join(there)}")


def _fitted(
    study: Study, results: Frame, metric: str, task: str | None, law: Any, *, n_resamples: int, rng: Any
) -> Fitted:
    """Fit the surface and resample it, as far as the cells determine it; ``why`` says what stopped it."""
    fit = boot = None
    table: Frame = results[(results["metric"] == metric) & (results["R"] == 0)]
    why = ""
    try:
        table = results_table.select(results, metric=metric, task=task)
        fit = fit_manifold(rows_to_fit(results, metric=metric, task=task, law=law), law)
        boot = bootstrap(fit, n_resamples=n_resamples, rng=rng) if n_resamples else None
    except RagscaleError as error:
        why = str(error)
    except Exception as error:  # noqa: BLE001 - as above
        _LOG.exception("the surface of the report could not be fitted")
        why = f"{type(error).__name__}: {error}"
    grid = study.config.grids[2]
    pool = int(study.split.n_tokens)
    named = sorted({total for N in table["N"].unique() for total in grid.tokens(n_params=int(N), budget=pool)})
    measured = sorted({round(total) for total in (table["D"] + table["R"]).unique() if total > 0})
    return Fitted(
        results=results,
        table=table,
        metric=metric,
        budgets=tuple(named) or tuple(measured[-1:]),
        fit=fit,
        boot=boot,
        why=why,
    )


def _is_ours(category: type[Warning]) -> bool:
    return category.__module__.startswith("ragscale")


def _diagnostics(page: Page, fitted: Fitted) -> None:
    """What the data can and cannot tell."""
    page.bullets([finding.text for finding in fitted.surface().diagnostics.findings])


def _progress(page: Page, study: Study) -> None:
    """What was done, and what is missing."""
    status: Frame = study.status()
    missing = status[status["state"] != "done"]
    if len(missing):
        page.text(f"{len(missing)} of {len(status)} jobs of the study are not done; their cells are missing here.")
        page.table(missing[["stage", "label", "state", "error"]], "missing", caption="Jobs that are not done.")
    else:
        page.text("Every cell of the plan was evaluated.")
    seconds: Frame = status.groupby("stage", as_index=False, sort=False)["seconds"].sum()
    page.table(seconds, "time", caption="Seconds of work in each stage, over all workers.")


def _coverage(page: Page, study: Study, way: dict[str, Any]) -> None:
    """Hits by store size: known without a model."""
    try:
        coverage: Frame = one_way(study.coverage(), study.config, **way)
    except ResultsError as error:
        page.text(str(error))
        return
    rows = coverage[coverage["condition"] == "retrieved"]
    if rows.empty:
        page.text("Nothing is retrieved in this study.")
        return
    page.table(
        rows[["task", "R", "n_questions", "hit_rate", "answer_in_store"]],
        "hit-rates",
        caption="Share of questions whose answer stands in the passages shown, and anywhere in the store: "
        "hit_rate and answer_in_store of study.coverage().",
        max_rows=12,
    )


def _made(page: Page, study: Study, metric: str, way: dict[str, Any]) -> None:
    """How the page was made."""
    facts = {
        "configuration": study.config.digest[:16],
        "seeds": ", ".join(map(str, study.config.seeds)),
        "retriever": str(study.config.retriever),
        "read here": f"{way['store_source']} stores, k = {way['k']}",
        **_others(study, way),
        "Python": platform.python_version(),
        **{name: version for name in _PACKAGES if (version := _version(name))},
    }
    try:
        split = study.split
        facts["split"] = f"{split.digest[:16]}, T = {split.n_tokens:,} tokens, {split.n_documents:,} documents"
    except (RagscaleError, OSError):
        facts["split"] = "not made"
    page.table(pd.DataFrame({"what": list(facts), "value": list(facts.values())}), "made", caption="")
    page.table(study.shapes(), "models", caption="N is core + output head.")
    try:
        results: Frame = study.results()
    except ResultsError:
        return
    rows = results[results["metric"] == metric]
    page.table(
        rows.drop(columns=[name for name in ("prompts",) if name in rows]),
        "results",
        caption=f"All {format_cell(len(rows))} results in {metric_words(metric)}; study.results() has "
        f"{results['metric'].nunique()} metrics.",
        max_rows=8,
    )


def _others(study: Study, way: dict[str, Any]) -> dict[str, str]:
    """Say which other ways to read the study has, and how to see them."""
    config = study.config
    others = {
        "store_source": [source for source in config.store_sources if source != way["store_source"]],
        "k": [k for k in config.numbers_of_passages if k != way["k"]],
    }
    named = [f"{name} = {value!r}" for name, values in others.items() for value in values]
    return {"also in the study": f"{', '.join(named)}: report(..., {named[0]})"} if named else {}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
