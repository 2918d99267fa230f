"""
Split a token budget
====================

A corpus of T tokens can be trained on, or put into a store that the finished model reads. This example fits a surface
to results, asks for the best split at every budget, and shows how sure the answer is.
"""

# %%
# Results
# -------
# Six model sizes, eight amounts of training data, seven stores each, with noise that all stores of one checkpoint
# share. Put your own table here: one row per measurement, N, D and R as counts.

import matplotlib.pyplot as plt
import numpy as np

import ragscale as rs

results = rs.datasets.simulate("log_ratio", noise=0.01, cluster_share=0.5, rng=0)
fit = rs.fit_manifold(results, law="log_ratio")
bootstrap = rs.bootstrap(fit, n_resamples=300, rng=0)

# %%
# The split, in words
# -------------------
# Small budgets go into pretraining entirely: that is an answer, not a failure. The interval is over replicates of the
# fit, each of which is allocated on its own.

best = rs.optimal_allocation(bootstrap, N=1e9, budget=[2e9, 1e10, 1e11])
print(best.summary())
best.to_frame().T

# %%
# The split against the budget
# ----------------------------
# One line per model size, with its 95% band. This law lets the store count relative to the model, so small models
# retrieve more; the additive laws (``log1p``, ``power``, ``hill``) cannot say so, whatever the data.

budgets = np.geomspace(1e9, 4e11, 60)
figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
for n, colour in ((1e8, "tab:orange"), (1e9, "tab:green"), (3e9, "tab:blue")):
    curve = rs.optimal_allocation(bootstrap, N=n, budget=budgets)
    low, high = curve.interval("share")
    axes.fill_between(budgets, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(budgets, curve.share, color=colour, label=f"N = {n:.0e}")
axes.set(
    xscale="log",
    xlabel="budget D + R (tokens)",
    ylabel="share of the store R / (D + R)",
    ylim=(-0.02, 0.6),
)
axes.legend(frameon=False)

# %%
# Where retrieval begins to pay
# -----------------------------
# Below the onset a pretraining token is worth more than the first store token. At the best split both are worth
# the same: the exchange rate is the ratio of their prices.

knee = rs.knee_point(bootstrap, N=[1e8, 1e9, 3e9])
print(knee.to_frame()[["N", "D", "D_low", "D_high", "status"]].to_string(index=False))
best = rs.optimal_allocation(fit, N=1e9, budget=5e10)
print(rs.exchange_rate(fit, N=1e9, D=best.D, R=best.R))

# %%
# Prices and limits
# -----------------
# A store token that costs a tenth of a pretraining token, and only so much text to train on.

cheap = rs.optimal_allocation(fit, N=1e9, budget=5e10, prices={"D": 1.0, "R": 0.1})
scarce = rs.optimal_allocation(fit, N=1e9, budget=5e10, max_D=2e10)
print(cheap.summary(), scarce.summary(), sep="\n")

# %%
# The model too
# -------------
# With a budget in FLOPs the size of the model is part of the question. Embedding one store token with an encoder of 8B
# parameters costs 1.6e10 FLOPs, as much as training a model of 2.7B on it; the model will serve 100 billion tokens.

whole = rs.compute_optimal(
    bootstrap, flops=5e20, R="free", store_flops=1.6e10, inference_tokens=1e11
)
print(whole.summary())
