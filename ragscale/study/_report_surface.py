"""The sections of a report that read the fitted surface: slices, the fixed budget, splits, where reading begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from ragscale import plotting
from ragscale.decisions import critical_store, exchange_rate, knee_point, reading_threshold
from ragscale.errors import FitError
from ragscale.fitting import Bootstrap, ManifoldFit, fit_manifold
from ragscale.results._metric_words import metric_words
from ragscale.study._drawing import draw
from ragscale.study._page import Page, format_cell
from ragscale.study._report_evidence import Frame


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """What every section reads: the results, the rows of one surface, their fit and its bootstrap where there are.

    ``why`` says why there is no fit, or no bootstrap.
    """

    results: Frame
    table: Frame
    metric: str
    budgets: tuple[int, ...]
    fit: ManifoldFit | None = None
    boot: Bootstrap | None = None
    why: str = ""

    def surface(self) -> ManifoldFit:
        """Return the fit.

        Raises
        ------
        FitError
            Saying why there is none.
        """
        if self.fit is None:
            raise FitError(f"there is no fitted surface: {self.why}")
        return self.fit

    def sampled(self) -> Bootstrap:
        """Return the bootstrap.

        Raises
        ------
        FitError
            Saying why there is none.
        """
        self.surface()
        if self.boot is None:
            raise FitError(f"the surface has no intervals: {self.why}")
        return self.boot


def surface_section(page: Page, fitted: Fitted) -> None:
    """The surface with the points."""
    fit = fitted.surface()
    page.code(fit.summary(), caption="The fit in numbers: parameters with intervals, and what to be careful about.")
    shown = fit if fitted.boot is None else fitted.boot
    bands = "lines" if fitted.boot is None else "lines, 95 % bands over training runs"
    varied = [name for name in ("R", "D") if fitted.table[name].nunique() > 1]
    if varied:
        draw(
            page,
            "slices",
            f"Fitted surface ({bands}) and measured cells (points).",
            *(lambda ax, along=along: plotting.slices(shown, along=along, ax=ax) for along in varied),
        )
    largest = float(fitted.table["N"].max())
    draw(
        page,
        "contours",
        "Iso-loss lines over D and R for the largest model; dotted lines are equal budgets, red is the best split.",
        *([lambda ax: plotting.contours(fit, N=largest, budgets=fitted.budgets, ax=ax)] if len(varied) == 2 else []),
        lambda ax: plotting.parity(fit, ax=ax),
    )


def held_out_frontier(table: Frame, budgets: tuple[int, ...], law: Any) -> tuple[Frame, Frame]:
    """Predict the cells with a store that lie on a budget, D + R = T, by a fit that never saw them.

    Returns
    -------
    held, inside : DataFrame
        The cells on a budget with ``budget, predicted, error_percent``, and those of the fit with ``error_percent``.

    Raises
    ------
    FitError
        When no surface can be fitted to the others.
    """
    total = (table["D"] + table["R"]).round()
    on_frontier = total.isin([float(t) for t in budgets]) & (table["R"] > 0)
    held, inside = table[on_frontier].assign(budget=total[on_frontier]), table[~on_frontier]
    if held.empty:
        return held, inside
    fit = fit_manifold(inside, law)

    def predicted(rows: Frame) -> Frame:
        found = rows.assign(predicted=fit.predict(rows["N"], rows["D"], rows["R"]))
        return found.assign(error_percent=100 * (found["predicted"] / found["value"] - 1))

    return predicted(held), predicted(inside)


def frontier_section(page: Page, fitted: Fitted) -> None:
    """The fixed-budget experiment: cells with D + R = T, measured and predicted."""
    law = fitted.surface().law
    held, inside = held_out_frontier(fitted.table, fitted.budgets, law)
    if held.empty:
        page.text("No cell lies on a fixed budget: give StudyConfig.budgets.")
        return
    error, base = (float(rows["error_percent"].abs().mean()) for rows in (held, inside))
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
            ax.set(
                xscale="log", xlabel="pretraining (tokens); the store holds T − D", ylabel=metric_words(fitted.metric)
            )
            tokens = np.unique(mine["D"])
            ax.set_xticks(tokens, labels=[format_cell(float(count)) for count in tokens])
            ax.minorticks_off()
            ax.set_title(f"T = {format_cell(float(total_tokens))}")
            ax.legend(title="parameters", fontsize="x-small")

        return drawing

    shown = [t for t in fitted.budgets if (held["budget"] == t).any()][-3:]
    draw(
        page,
        "frontier",
        "Fixed budget: measured cells (points), prediction (lines).",
        *map(panel, shown),
        size=(4.6, 3.6),
    )
    columns = ["N", "budget", "D", "R", "seed", "value", "predicted", "error_percent"]
    page.table(held[[c for c in columns if c in held]], "frontier-cells", caption="Held-out cells.", max_rows=12)


def splits_section(page: Page, fitted: Fitted) -> None:
    """Best share against the budget."""
    fit, boot = fitted.surface(), fitted.sampled()
    if not (fitted.table["R"] > 0).any():
        page.text("No cell has a store: there is nothing to split.")
        return
    sizes = np.unique(fitted.table["N"].to_numpy(dtype=float))
    budgets = np.geomspace(fitted.table["D"].min() * 1.2, max(fitted.budgets), 30)
    store = float(np.median(fitted.table.loc[fitted.table["R"] > 0, "R"]))
    draw(
        page,
        "allocation",
        "Left: best share of the store. Right: pretraining tokens that one more store token replaces, at "
        f"R = {format_cell(store)}.",
        lambda ax: plotting.allocation(boot, N=list(sizes), budgets=budgets, ax=ax),
        lambda ax: plotting.exchange(fit, R=store, ax=ax),
    )
    rows = []
    for size in sizes:
        tokens = float(np.median(fitted.table.loc[fitted.table["N"] == size, "D"]))
        rate = exchange_rate(boot, N=size, D=tokens, R=store)
        knee = knee_point(fit, N=size, R=store)
        critical = critical_store(fit, N=size, D=tokens)
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


def reading_section(page: Page, fitted: Fitted) -> None:
    """Where retrieval starts to help, measured with the largest store of each checkpoint: small ones may well hurt."""
    table = fitted.table
    if not (table["R"] > 0).any():
        page.text("No cell has a store: whether the models read is not measured.")
        return
    largest = table["R"] == table.groupby(["N", "D", "seed"])["R"].transform("max")
    kept = table[largest | (table["R"] == 0)]
    units: dict[Literal["N", "D"], str] = {"N": "parameters", "D": "pretraining tokens"}
    for by, unit in units.items():
        found = reading_threshold(kept, by=by, control="closed-book")
        page.text(f"Gains with the largest store of each checkpoint, over no store, by {unit}: {found.summary()}.")
        page.table(
            found.table, f"reading-threshold-{by}", caption=f"Gain by {by}: mean over checkpoints, 95 % interval."
        )
