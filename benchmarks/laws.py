"""Held-out errors of all scaling laws of the literature, side by side, on every real table that has what a law needs.

Each law is fitted to the smallest 80 % of the rows by computation N D and judged on the largest 20 %: mean absolute
relative error in per cent for losses and error rates, mean absolute error in points for accuracies.

    python benchmarks/laws.py --data ../shared/data/results        # about half an hour on one core
    python benchmarks/laws.py --picture                            # only the picture, from results/laws.json

Writes benchmarks/results/laws.json and laws.md, and docs/_static/laws/loss_laws.png.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ragscale.errors import FitError, RagscaleError
from ragscale.fitting import Bounded, Chinchilla, fit_manifold, laws

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PICTURE = ROOT / "docs" / "_static" / "laws" / "loss_laws.png"
LOSS_LAWS = {
    "chinchilla": Chinchilla(),
    "kaplan (N, D)": laws.Kaplan(),
    "kaplan L(N)": laws.KaplanN(),
    "kaplan L(D)": laws.KaplanD(),
    "kaplan L(C)": laws.KaplanC(),
    "overtraining": laws.Overtraining(),
    "bnsl in C, 0 breaks": laws.BrokenPowerLaw(variable="C", n_breaks=0),
    "bnsl in C, 1 break": laws.BrokenPowerLaw(variable="C"),
    "bnsl in D, 1 break": laws.BrokenPowerLaw(variable="D"),
    "farseer": laws.Farseer(),
    "shannon": laws.Shannon(),
    "data constrained": laws.DataConstrained(),
    "bounded data": laws.BoundedData(),
}
ACCURACY_LAWS = (
    "direct in C",
    "direct in C, authors' rule",
    "direct in N, D",
    "direct in N, D, authors' rule",
    "single step",
    "two stage",
    "loss to accuracy",
    "1 - chinchilla",
    "bounded link",
)
CHANCE = {"hellaswag": 0.25, "arc_easy": 0.25, "arc_challenge": 0.25, "csqa": 0.2, "piqa": 0.5, "socialiqa": 1 / 3}


def loss_tables(folder: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the tables of losses and error rates: N, D, value, and U where tokens were repeated."""

    def read(name: str, **rename: str) -> pd.DataFrame:
        return pd.read_csv(folder / name).rename(columns={"loss": "value", **rename})

    epoch = read("chinchilla_epoch.csv")
    yield "Chinchilla, read off (240)", epoch[epoch["epoch_excluded"] == 0]
    yield "Chinchilla, with outliers (245)", epoch
    gadre = read("mlfoundations_losses.csv")
    for corpus in ("c4_original", "rpj"):
        yield f"Gadre, {corpus}", gadre[(gadre["train_dataset"] == corpus) & (gadre["val"] == "c4_val")]
    misfitting = read("misfitting_last_ckpt.csv")
    yield "misfitting, best lr", misfitting.groupby(["N", "D"], as_index=False)["value"].min()
    yield "OLMo ladder, C4", read("olmo_ladder_final.csv", **{"c4_en-validation/CrossEntropyLoss": "value"})
    yield "Gemstones", read("gemstones_validation.csv")
    isoflops = read("isoflops_openathena.csv")
    isoflops = isoflops[~isoflops["outlier"].astype(bool)]
    for name in (
        "llama_3__raw_loss",
        "marin_202603__dclm__llama_2",
        "marin_202603__nemotron__llama_2",
        "ml_scalefit__massivetext__chinchilla",
    ):
        yield f"isoFLOP, {name.split('__')[0]} {name.split('__')[1]}", isoflops[isoflops["experiment"] == name]
    porian = read("porian_isoflops.csv")
    tuned = (porian["hparams"] == "tuned") & (porian["param_count"] == "standard")
    yield "Porian, tuned", porian[tuned]
    yield (
        "Step Law, dense",
        read("steplaw_dense_best_per_nd.csv").drop(columns="value").rename(columns={"smooth_loss": "value"}),
    )
    yield (
        "Step Law, MoE (active N)",
        read("steplaw_moe_best_per_nd.csv")
        .drop(columns=["value", "N"])
        .rename(columns={"smooth_loss": "value", "Na": "N"}),
    )
    repeated = read("datablations_ndu.csv")
    repeated = repeated[~repeated["run"].str.contains("dedup|perplex|opt")]
    yield "Datablations, 1 epoch", repeated[repeated["epochs"] == 1]
    yield "Datablations, U >= 1e9", repeated[repeated["U"] >= 1e9]
    yield "Datablations, all", repeated
    laion = read("laion_segmentation.csv", err="value", samples_seen="D")
    laion["N"] = laion["model_mparams"] * 1e6
    for name in ("clip", "mammut"):
        yield f"LAION segmentation error, {name}", laion[laion["namespace"] == name]


def accuracy_tables(folder: Path) -> Iterator[tuple[str, pd.DataFrame, float]]:
    """Yield tables of accuracies with the loss beside them, and the accuracy of guessing."""
    tasks = pd.read_csv(folder / "mlfoundations_downstream.csv")
    losses = pd.read_csv(folder / "mlfoundations_losses.csv")
    losses = losses[losses["val"] == "c4_val"].set_index("run")["loss"]
    for corpus in ("c4_original", "rpj"):
        rows = tasks[tasks["train_dataset"] == corpus].groupby("run", as_index=False)[["N", "D", "accuracy", "chance"]]
        table = rows.mean().rename(columns={"accuracy": "value"})
        table["loss"] = losses.reindex(table["run"]).to_numpy()
        yield f"Gadre, {corpus}, mean of 46 tasks", table, float(table["chance"].iloc[0])
    ladder = pd.read_csv(folder / "olmo_ladder_final.csv")
    for task, chance in CHANCE.items():
        table = ladder[["N", "D"]].assign(
            loss=ladder[f"downstream_bpb/{task}_val_rc_5shot_bpb"],
            value=ladder[f"downstream/{task}_val_rc_5shot_len_norm"],
        )
        yield f"OLMo ladder, {task}", table, chance


def halves(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the smallest 80 % by computation, and the rest."""
    table = table.reset_index(drop=True).astype({"N": float, "D": float})
    keep = [name for name in ("N", "D", "U", "loss", "value") if name in table]
    table = table[keep].assign(run=np.arange(len(table)))
    order = np.argsort((table["N"] * table["D"]).to_numpy(), kind="stable")
    cut = round(0.8 * len(order))
    return table.iloc[order[:cut]].reset_index(drop=True), table.iloc[order[cut:]].reset_index(drop=True)


def predict(fit, rows: pd.DataFrame) -> np.ndarray:
    """Predict rows, with the further columns that the law reads."""
    return fit.predict(rows["N"], rows["D"], 0.0, **{name: rows[name] for name in fit.law.further_columns})


def judge_losses(folder: Path) -> list[dict]:
    """Return one record per table and loss law."""
    records = []
    for name, table in loss_tables(folder):
        fitted, held = halves(table)
        for label, law in LOSS_LAWS.items():
            if "U" in law.variables and "U" not in fitted:
                continue
            record = {"kind": "loss", "table": name, "rows": len(table), "law": label, "parameters": len(law.free)}
            start = time.process_time()
            try:
                fit = fit_manifold(fitted, law, link="identity", space="log")
            except RagscaleError as error:
                records.append({**record, "why": str(error)[:120]})
                continue
            inside = 100 * np.abs(predict(fit, fitted) / fitted["value"] - 1).mean()
            outside = 100 * np.abs(predict(fit, held) / held["value"] - 1).mean()
            records.append(
                {
                    **record,
                    "inside": inside,
                    "held_out": outside,
                    "objective": fit.objective,
                    "converged": fit.converged,
                    "cpu_s": time.process_time() - start,
                }
            )
            print(
                f"{name:36s} {label:20s} inside {inside:7.3f} %  held out {outside:7.3f} %"
                f"  {records[-1]['cpu_s']:6.1f} s",
                flush=True,
            )
    return records


def accuracy_predictors(fitted: pd.DataFrame, held: pd.DataFrame, chance: float) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each way to predict accuracy with what it says of the held-out rows."""
    without = fitted.drop(columns="loss")
    for label, law in (
        ("direct in C", laws.DirectCompute(chance=chance)),
        ("direct in N, D", laws.DirectDownstream(chance=chance)),
    ):
        yield label, predict(fit_manifold(without, law), held)
        try:
            yield f"{label}, authors' rule", laws.fit_direct(without, law).predict(held["N"], held["D"])
        except FitError as error:  # too few rows are 5 points above chance
            print(f"{label}, authors' rule: {error}", flush=True)
    yield "single step", predict(fit_manifold(without, laws.SingleStep()), held)
    yield "two stage", laws.fit_two_stage(fitted).predict(held["N"], held["D"])
    yield "loss to accuracy", predict(fit_manifold(fitted, laws.LossToAccuracy()), held)
    error = without.assign(value=1.0 - without["value"])
    yield "1 - chinchilla", 1.0 - predict(fit_manifold(error, "chinchilla", link="identity"), held)
    yield "bounded link", predict(fit_manifold(without, "chinchilla", link=Bounded(floor=chance)), held)


def judge_accuracies(folder: Path) -> list[dict]:
    """Return one record per table and way to predict accuracy, errors in points."""
    records = []
    for name, table, chance in accuracy_tables(folder):
        fitted, held = halves(table)
        for label, predicted in accuracy_predictors(fitted, held, chance):
            error = 100 * np.abs(predicted - held["value"]).mean()
            records.append({"kind": "accuracy", "table": name, "rows": len(table), "law": label, "held_out": error})
            print(f"{name:36s} {label:20s} held out {error:7.2f} points", flush=True)
    return records


def pivot(records: list[dict], kind: str) -> pd.DataFrame:
    """Return tables by laws, with the median and the number of first places below."""
    frame = pd.DataFrame([r for r in records if r["kind"] == kind])
    rows = frame.drop_duplicates("table").set_index("table")["rows"]
    table = frame.pivot(index="table", columns="law", values="held_out").reindex(rows.index)
    return table[[label for label in (LOSS_LAWS if kind == "loss" else ACCURACY_LAWS) if label in table]]


def markdown(records: list[dict], versions: dict[str, str]) -> str:
    """Return the tables of held-out errors as Markdown."""
    lines = [
        "# Held-out errors of the laws of the literature",
        "",
        "Fitted to the smallest 80 % of the rows by N D, judged on the largest 20 %. Best of each row in bold.",
        "`python benchmarks/laws.py`, " + ", ".join(f"{k} {v}" for k, v in versions.items()) + ".",
    ]
    for kind, title in (
        ("loss", "Losses and error rates: mean |relative error|, %"),
        ("accuracy", "Accuracies: mean |error|, points"),
    ):
        table = pivot(records, kind)
        compare = table.drop(columns=["data constrained", "bounded data", "loss to accuracy"], errors="ignore")
        lines += [
            "",
            f"## {title}",
            "",
            "| table | " + " | ".join(table.columns) + " |",
            "|---" * (len(table.columns) + 1) + "|",
        ]
        for name, row in table.iterrows():
            best = row.min()
            cells = ["–" if np.isnan(v) else (f"**{v:.2f}**" if v == best else f"{v:.2f}") for v in row]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("| *median* | " + " | ".join(f"{v:.2f}" for v in table.median()) + " |")
        first = compare.idxmin(axis=1).value_counts()
        lines.append(
            "| *best of row* | "
            + " | ".join(str(first.get(label, 0)) if label in compare else "" for label in table.columns)
            + " |"
        )
    note = (
        "`data constrained` and `bounded data` need unique tokens, and `loss to accuracy` is given the true loss of "
        "the held-out models, which the others have to predict; none of them counts among the best of a row. The "
        "authors' rule leaves out rows less than 5 points above chance and minimises squares of log(-log Q)."
    )
    lines += ["", note]
    return "\n".join(lines) + "\n"


def picture(folder: Path) -> None:
    """Draw every 2-D loss law, fitted to the same table, one panel per model size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    table = dict(loss_tables(folder))["Gadre, rpj"]
    fitted, held = halves(table)
    both = {
        label: LOSS_LAWS[label]
        for label in ("chinchilla", "kaplan (N, D)", "overtraining", "bnsl in C, 1 break", "farseer", "shannon")
    }
    fits = {label: fit_manifold(fitted, law, link="identity") for label, law in both.items()}
    sizes = np.unique(table["N"].astype(float))
    figure, axes = plt.subplots(2, 3, figsize=(11, 6.2), sharex=True, constrained_layout=True)
    colors = dict(zip(both, ("#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"), strict=True))
    tokens = np.geomspace(1e8, 1e12, 200)
    for axis, n in zip(axes.ravel(), sizes[np.linspace(0, len(sizes) - 1, 6).astype(int)], strict=True):
        for label, fit in fits.items():
            axis.plot(
                tokens,
                fit.latent(n, tokens),
                color=colors[label],
                lw=1.4,
                label=label,
                ls="-" if label == "chinchilla" else "--" if "bnsl" in label else "-",
            )
        for rows, fill in ((fitted, "#666666"), (held, "white")):
            mine = rows[rows["N"] == n]
            axis.plot(mine["D"], mine["value"], "o", color="#444444", mfc=fill, ms=5.5, mew=1.2, zorder=5)
        axis.set_xscale("log")
        axis.set_title(f"{n / 1e6:,.0f} M parameters", fontsize=10)
        own = table[table["N"] == n]
        low = min(own["value"].min(), fits["chinchilla"].latent(n, 1e12))
        axis.set_ylim(low - 0.25, own["value"].max() + 0.35)
        axis.grid(alpha=0.25)
    for axis in axes[-1]:
        axis.set_xlabel("training tokens D")
    for axis in axes[:, 0]:
        axis.set_ylabel("loss (nats per token)")
    axes[0, 0].legend(fontsize=7.5, loc="upper right")
    figure.suptitle(
        "Six laws fitted to the filled points (smallest 80 % by computation); hollow points are held out", fontsize=11
    )
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=85)
    plt.close(figure)


def main() -> None:
    """Run the comparison and write its tables and its picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "results")
    parser.add_argument("--picture", action="store_true", help="only draw the picture")
    arguments = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=UserWarning)  # extrapolation is the point here
        if not arguments.picture:
            import scipy

            records = judge_accuracies(arguments.data) + judge_losses(arguments.data)
            versions = {"Python": platform.python_version(), "NumPy": np.__version__, "SciPy": scipy.__version__}
            RESULTS.mkdir(parents=True, exist_ok=True)
            machine = "2 shared CPU cores"
            content = {"versions": versions, "machine": machine, "records": records}
            (RESULTS / "laws.json").write_text(json.dumps(content, indent=1) + "\n")
            (RESULTS / "laws.md").write_text(markdown(records, versions))
            print(markdown(records, versions))
        picture(arguments.data)


if __name__ == "__main__":
    main()
