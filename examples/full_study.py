"""
A full study
============

From a corpus to the best split, in one object: plan, run, look, fit, report. The corpus is an invented world, made so
small that this page takes seconds; ``examples/demo.py`` is the same with models that learn to read, in a few minutes.
"""

# %%
# What determines the results stands in one frozen configuration. The corpus is a world of invented people, told about
# at Zipf frequencies, and texts that show how to answer from a passage. Your own corpus goes there as a list of files.
import tempfile

from matplotlib import pyplot as plt

import ragscale as rs
from ragscale.study import Study, StudyConfig

config = StudyConfig(
    corpus={
        "synthetic": {
            "n_documents": 3_000,
            "n_entities": 40,
            "n_questions": 25,
            "n_bands": 2,
        }
    },
    tokenizer=512,
    models=[
        {"n_layers": 1, "d_model": width, "n_heads": 2, "d_ff": 2 * width}
        for width in (8, 16, 32)
    ],
    D=[15_000, 30_000, 60_000, 90_000],
    R=[3_000, 10_000, 30_000],
    budgets=[120_000],
    validation_tokens=5_000,
    passage_tokens=80,
    k=1,
    training={
        "seq_len": 128,
        "batch_tokens": 384,
        "learning_rate": 0.02,
        "allow_short_runs": True,
    },
)
folder = tempfile.TemporaryDirectory()
study = Study(config, folder.name)

# %%
# Stages can be run one by one. Once the split is made, the plan says what every cell will cost.
study.run(until="split")
study.plan()[
    ["model", "N", "D", "R", "on_frontier", "train_tokens", "train_flops", "hours"]
].head(8)

# %%
# Everything else. Killed at any moment, the same call goes on; ``study.run(executor)`` takes any executor.
status = study.run()
status.groupby("stage", sort=False)["seconds"].agg(["size", "sum"]).round(2)

# %%
# One row for each cell, condition and metric: a results table as everywhere else.
results = study.results()
nll = results[results["metric"] == "nll_per_token"]
nll.pivot_table(index=["task", "condition"], columns="N", values="value").round(3)

# %%
# The surface. Cells with D + R = T are the fixed budget: hold them out, and predict them.
table = rs.results.select(results, metric="nll_per_token")
frontier = (table["D"] + table["R"] == 120_000) & (table["R"] > 0)
fit = rs.fit_manifold(table[~frontier], "chinchilla")
held = table[frontier]
error = (fit.predict(held["N"], held["D"], held["R"]) / held["value"] - 1).abs().mean()
print(f"{len(held)} cells of the fixed budget, predicted within {100 * error:.2f} %")
_, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
rs.plotting.slices(fit, along="D", ax=ax)
plt.show()

# %%
# What a store seems to be worth. Whether the models read it, or any text before the question helps them, is told by the
# table above: gold passages (oracle) against random ones.
print(study.fit(metric="nll_per_token", law="log1p").diagnostics.retrieval)

# %%
# The report is one HTML file with all of this, and more.
path = study.report(f"{folder.name}/report.html", law="log1p", n_resamples=50)
print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
folder.cleanup()
