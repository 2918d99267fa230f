"""
Fit your own results
====================

You have a table of measurements: models of N parameters trained on D tokens, evaluated with stores of R tokens. This
example goes from that table to a surface, to how far it can be trusted, and to the best split of a token budget.
"""

# %%
# A table
# -------
# One row per measurement. N, D and R are counts (not billions, not ratios); ``value`` is what was measured, lower is
# better. Read yours with ``pandas.read_csv``; here six sizes are made up, each trained on four amounts of text and
# evaluated without a store and with four.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import ragscale as rs

rng = np.random.default_rng(7)
rows = []
for n in (5e7, 1e8, 2e8, 4e8, 8e8, 1.6e9):
    for ratio in (5, 20, 60, 180):
        luck = (
            0.004 * rng.standard_normal()
        )  # what happened in this training run is in all its rows
        for r in (0.0, 1e8, 1e9, 5e9, 2e10):
            loss = (
                1.7
                + 400 * n**-0.34
                + 410 * (ratio * n) ** -0.28
                - 0.035 * np.log1p(r / 2e8)
            )
            rows.append(
                {
                    "N": n,
                    "D": ratio * n,
                    "R": r,
                    "value": loss * np.exp(luck + 0.002 * rng.standard_normal()),
                }
            )
table = pd.DataFrame(rows)
table.head()

# %%
# Fit
# ---
# All rows are fitted together, by default with Huber's loss of log residuals. The summary has the parameters in counts.

fit = rs.fit_manifold(table, law="log1p")
print(fit.summary())

# %%
# What to be careful about
# ------------------------
# Parameters at a bound, parameters that trade off, a design that cannot tell them apart: in words. The summary ends
# with them; this is where they are on their own.

print(fit.diagnostics)

# %%
# Does it describe the rows?
# --------------------------
# Points of one model size that lie together on one side would be a law of the wrong shape.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
rs.plotting.parity(fit, ax=axes[0])
rs.plotting.residuals(fit, against="D", ax=axes[1])

# %%
# How sure?
# ---------
# The bootstrap draws whole trained models, because the rows of one model share its luck.

replicates = rs.bootstrap(fit, n_resamples=500, rng=0)
print(replicates.params.to_string(float_format="{:.4g}".format))
figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
rs.plotting.slices(replicates, along="R", ax=ax).set_ylim(2.1, 4.0)

# %%
# Would another law do as well?
# -----------------------------
# Laws are compared by AICc and by how well they predict rows left out. Those that the data cannot tell apart are
# ``tied``.

compared = rs.compare_laws(table, ["chinchilla", "log1p", "power", "hill", "log_ratio"])
compared.table[["delta_aicc", "tied", "leave_one_N", "largest_compute"]].round(4)

# %%
# The split
# ---------
# Of T tokens, train on D and put R = T - D into the store. Below the budget where the curve leaves zero, everything
# goes into pretraining.

best = rs.optimal_allocation(replicates, N=1e9, budget=[1e9, 1e10, 5e10])
print(best.summary())
figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
rs.plotting.allocation(replicates, N=1e9, budgets=np.geomspace(5e8, 1e11, 40), ax=ax)
