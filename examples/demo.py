"""Fit the bundled real tables, print what follows for a budget, and write one report page with pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import ragscale as rs
from ragscale import plotting
from ragscale.study import Page


def picture(page: Page, name: str, caption: str, *drawings) -> None:
    """Add one figure with a panel for each drawing."""
    figure, axes = plt.subplots(
        1, len(drawings), figsize=(6.2 * len(drawings), 4.2), layout="constrained", squeeze=False
    )
    for ax, drawing in zip(axes[0], drawings, strict=True):
        drawing(ax)
    page.figure(figure, name, caption=caption)
    plt.close(figure)


def pretraining(page: Page) -> None:
    """L(N, D) on the OLMo 2 ladder, and the compute-optimal model for two budgets."""
    page.heading("Pretraining alone: the OLMo 2 ladder")
    table = rs.datasets.load("olmo_ladder")
    source = table.attrs["source"]
    table = table[(table["task"] == "c4_en") & (table["metric"] == "loss")]
    fit = rs.fit_manifold(table, law="chinchilla")
    boot = rs.bootstrap(fit, n_resamples=500, rng=0)
    best = rs.compute_optimal(boot, flops=[1e20, 1e21, 1e22])
    print(fit.summary(), best.to_frame().to_string(), sep="\n\n", end="\n\n")
    page.text(f"{len(fit.data)} checkpoints of {fit.data['N'].nunique()} sizes. Source: {source}.")
    page.code(fit.summary())
    picture(
        page,
        "olmo-ladder",
        "Left: fitted against measured loss. Right: what the law leaves over, against D.",
        lambda ax: plotting.parity(fit, ax=ax),
        lambda ax: plotting.residuals(fit, against="D", ax=ax),
    )
    page.table(
        best.to_frame(), "compute-optimal", caption="Best N and D for a number of training FLOPs, 95 % intervals."
    )


def sciq(page: Page) -> None:
    """The paper's 55 SciQ points: a score that saturates needs a link with a floor and a ceiling."""
    page.heading("A metric that saturates: SciQ perplexity of arXiv 2604.00715, figure 2")
    table = rs.datasets.load("paper_figure2")
    rows = []
    for name, link in (("logarithm", "log"), ("floor and ceiling", "bounded")):
        held = rs.cross_validate(table, "chinchilla", leave_out="N", link=link)
        rows.append({"link": name, "error of a size left out (%)": 100 * held.attrs["error"]})
    compared = pd.DataFrame(rows)
    print(compared.to_string(index=False), end="\n\n")
    fit = rs.fit_manifold(table, law="chinchilla", link="bounded")
    picture(
        page,
        "sciq",
        "Points read off the paper's figure, and the fit through a sigmoid of the loss.",
        lambda ax: plotting.slices(fit, along="D", ax=ax),
        lambda ax: plotting.parity(fit, ax=ax),
    )
    page.table(compared, "sciq-links", caption="Each model size is left out in turn and predicted from the others.")


def retrieval(page: Page) -> None:
    """Published points on reading against training, which vary R; then the whole surface on a simulated grid."""
    page.heading("Reading instead of training: kNN-LM, table 3")
    table = rs.datasets.load("knnlm_table3")
    page.table(
        table, "knnlm", caption="WikiText-103 perplexity (arXiv 1911.00172): reading tokens against training on them."
    )
    print(table.to_string(index=False), end="\n\n")
    page.heading("The surface over N, D and R, and the split of a budget")
    page.text(
        "No public table varies N, D and R together, so this part is simulated on the paper's grid: six sizes, eight "
        "D/N, seven stores, 1 % noise of which half is shared by all stores of a checkpoint. It shows what you get "
        "from your own results."
    )
    results = rs.datasets.simulate("interaction", noise=0.01, cluster_share=0.5, rng=0)
    fit = rs.fit_manifold(results, law="interaction")
    boot = rs.bootstrap(fit, n_resamples=500, rng=0)
    best = rs.optimal_allocation(boot, N=np.array([[3e7], [1e9], [3e9]]), budget=np.array([[5e9, 5e10]]))
    print(fit.summary(), best.to_frame().to_string(), sep="\n\n")
    page.code(fit.summary())
    picture(
        page,
        "surface",
        "Left: fitted surface with bands and points. Right: lines of equal loss and budget at 1B, best split in red.",
        lambda ax: plotting.slices(boot, along="R", ax=ax),
        lambda ax: plotting.contours(fit, N=1e9, ax=ax),
    )
    picture(
        page,
        "split",
        "Left: best share of the store. Right: pretraining tokens that one more store token replaces.",
        lambda ax: plotting.allocation(boot, N=[3e7, 1e9, 3e9], budgets=np.geomspace(1e9, 1e11, 30), ax=ax),
        lambda ax: plotting.exchange(fit, R=1e9, ax=ax),
    )
    page.table(best.to_frame(), "best-split", caption="Best split of two budgets, 95 % intervals over training runs.")


def main() -> None:
    """Fit everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    out = parser.parse_args().out
    page = Page("ragscale: what the bundled tables say")
    for section in (pretraining, sciq, retrieval):
        section(page)
    print(f"\nReport: {page.write(out / 'report.html').resolve()}")


if __name__ == "__main__":
    main()
