"""
Compare two corpora, and choose the next runs
=============================================

Which of two corpora is better, and from which compute on? And with a budget for more
training, which runs tell most? Both questions are asked of fitted laws, not of single
runs.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import ragscale as rs

# %%
# Two corpora
# -----------
# The runs of arXiv 2403.08540 on C4 and on RedPajama, judged by the loss on C4's own
# validation set: training on what one is asked about should win. Trained models are
# resampled, so the band says what other models would have said.

runs = rs.datasets.load("mlfoundations_losses").query("task == 'c4_val'")
fits = {
    name: rs.fit_manifold(runs[runs["corpus"] == name], "overtraining")
    for name in ("c4_original", "rpj")
}
compared = rs.compare_fits(fits, n_resamples=100)
print(compared.summary())

# %%
# The difference over compute, each corpus at its own best size:

compared.plot()
plt.show()

# %%
# The parameters beside each other:

compared.parameters[
    ["parameter", "value_first", "value_second", "difference_low", "difference_high"]
].round(3)

# %%
# Which runs next?
# ----------------
# Twelve small runs whose three D are so close that no law is determined by them, ninety
# that could be made, and 2 % of what all of them cost. What should be known is the loss
# of a model of 10 billion parameters.

law = {"E": 1.7, "A": 406.0, "alpha": 0.34, "B": 411.0, "beta": 0.28}


def losses(table, rng):
    value = (
        law["E"]
        + law["A"] * table["N"] ** -law["alpha"]
        + law["B"] * table["D"] ** -law["beta"]
    )
    return table.assign(
        value=value * np.exp(0.003 * rng.standard_normal(len(table))), metric="loss"
    )


rng = np.random.default_rng(0)
grid = [(n, d) for n in (3e7, 6e7, 1.2e8, 2.4e8) for d in (5e8, 5.5e8, 6e8)]
pilot = losses(pd.DataFrame(grid, columns=["N", "D"]), rng)
pool = [(n, d) for n in np.geomspace(3e7, 3e9, 9) for d in np.geomspace(5e8, 5e11, 10)]
candidates = pd.DataFrame(pool, columns=["N", "D"])
budget = 0.02 * (6 * candidates["N"] * candidates["D"]).sum()
target = pd.DataFrame({"N": [1e10], "D": [1e12]})
found = rs.next_runs(
    pilot, candidates, budget_flops=budget, goal="loss", at=target, law="chinchilla"
)
print(found.summary())

# %%
# What was chosen, and what it costs:

found.plot()
plt.show()

# %%
# With these runs made (each a training run of its own, which the column ``run`` says):

together = pd.concat([pilot, losses(found.to_frame(), rng)], ignore_index=True)
together["run"] = np.arange(len(together))
fit = rs.fit_manifold(together, "chinchilla", delta="auto")
truth = law["E"] + law["A"] * 1e10 ** -law["alpha"] + law["B"] * 1e12 ** -law["beta"]
print(f"predicted {float(fit.predict(1e10, 1e12)):.4f}, true {truth:.4f}")
