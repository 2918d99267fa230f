"""
Write your own law
==================

A law is a class with ``parameters`` and one function, ``_loss``. Everything else (finding the coefficients that enter
linearly, starts, the optimum, intervals, comparison, allocation) works with it as with a built-in one.
"""

# %%
# The idea
# --------
# Suppose that text in a store is worth something only until the store holds most of what the questions ask for. An
# exponential says so: half of what remains to be gained is gained with every further ``K ln 2`` tokens. None of the
# built-in laws has this shape.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import ragscale as rs
from ragscale.fitting import Parameter, ScalingLaw


class Exhausted(ScalingLaw):
    """L = E + A N^-alpha + B D^-beta - C (1 - exp(-R / K))."""

    name = "exhausted"
    formula = "E + A N^-alpha + B D^-beta - C (1 - exp(-R/K))"
    parameters = (
        Parameter("E", 0.0),
        Parameter("A", 0.0),
        Parameter("alpha", 0.01, 2.0),
        Parameter("B", 0.0),
        Parameter("beta", 0.01, 2.0),
        Parameter("C", 0.0, description="all that can be gained"),
        Parameter(
            "K",
            1e-3,
            1e3,
            log=True,
            unit="R",
            description="store that gives 63 % of it",
        ),
    )

    def _loss(self, n, d, r, theta):
        base = theta.E + theta.A * n**-theta.alpha + theta.B * d**-theta.beta
        return base + theta.C * np.expm1(-r / theta.K)


# %%
# Counts vary over many decades, so ``K`` is searched in its logarithm (``log=True``), three decades around the typical
# store of the table (``unit="R"``). ``_loss`` is called with arrays and must broadcast.
#
# Is it a law?
# ------------
# The check tries what a fit, a bootstrap and a decision rely on, and names the first promise that is broken.

print(", ".join(rs.testing.check_scaling_law(Exhausted)))

# %%
# Fit it
# ------
# Here the truth is made with the law itself, 0.5 % noise. Nothing said which parameters are linear; the fitter found
# out.

truth = {
    "E": 1.7,
    "A": 400.0,
    "alpha": 0.34,
    "B": 410.0,
    "beta": 0.28,
    "C": 0.15,
    "K": 3e9,
}
grid = [
    (n, ratio * n, r)
    for n in (5e7, 1e8, 2e8, 4e8, 8e8, 1.6e9)
    for ratio in (5, 20, 60, 180)
    for r in (0.0, 2e8, 1e9, 3e9, 1e10, 4e10)
]
table = pd.DataFrame(grid, columns=["N", "D", "R"])
clean = Exhausted().loss(table["N"], table["D"], table["R"], truth)
table["value"] = clean * np.exp(
    0.005 * np.random.default_rng(1).standard_normal(len(table))
)

fit = rs.fit_manifold(table, Exhausted())
fit.params.assign(truth=pd.Series(truth))[["value", "truth", "at_bound"]]

# %%
# Against the built-in laws
# -------------------------
# Own laws and names mix. Beside AICc stand the errors on rows left out.

compared = rs.compare_laws(table, [Exhausted(), "log1p", "power", "hill"])
compared.table[["delta_aicc", "tied", "leave_one_N", "k_fold"]].round(4)

# %%
# The shape shows at the ends: a logarithm goes on gaining where this law is exhausted.

figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
stores = np.geomspace(1e8, 2e11, 200)
for name, one in compared.fits.items():
    with np.errstate(all="ignore"):
        gain = one.law.loss(8e8, 1.6e10, 0.0, one.theta) - one.law.loss(
            8e8, 1.6e10, stores, one.theta
        )
    ax.plot(stores, gain, label=name)
ax.axvspan(4e10, 2e11, color="0.93", zorder=0)
ax.set(
    xscale="log",
    xlabel="store R (tokens); shaded: beyond the table",
    ylabel="gain at N = 800M, D = 16B",
)
ax.legend(frameon=False)

# %%
# Decide with it
# --------------

print(rs.optimal_allocation(fit, N=1e9, budget=[5e9, 2e10, 1e11]).summary())
