"""
What would the literature say?
==============================

One table of losses, six published forms. Inside the data they can hardly be told apart; ten times further out they can.
Then the question that only a store makes interesting: is a corpus better trained on once, or partly, more often, with
the rest kept for retrieval?
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ragscale.fitting import Log1p, catalogue, fit_manifold, laws

# %%
# All laws that can be fitted by name, with the columns that they read:

catalogue()[["formula", "variables", "reference"]]

# %%
# A table: 36 small models whose losses follow the corrected Chinchilla fit, with half a per cent of noise.

published = laws.CHINCHILLA_PUBLISHED["besiroglu"].parameters
rng = np.random.default_rng(0)
n, d = (
    axis.ravel()
    for axis in np.meshgrid(np.geomspace(3e7, 1e9, 6), np.geomspace(5e8, 5e10, 6))
)
clean = (
    published["E"]
    + published["A"] * n ** -published["alpha"]
    + published["B"] * d ** -published["beta"]
)
table = pd.DataFrame(
    {"N": n, "D": d, "value": clean * np.exp(0.005 * rng.standard_normal(n.size))}
)

names = ["chinchilla", "overtraining", "kaplan", "bnsl", "shannon", "kaplan_c"]
fits = {name: fit_manifold(table, name) for name in names}

# %%
# Each fit is a `ManifoldFit` like any other. What do they say of a model of 7 billion parameters?

tokens = np.geomspace(5e8, 1e13, 200)
figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, constrained_layout=True)
for axis, size in zip(axes, (1e9, 7e9), strict=True):
    for name, fit in fits.items():
        axis.plot(tokens, fit.latent(size, tokens), label=name)
    own = table[np.isclose(table["N"], size)]
    axis.plot(
        own["D"],
        own["value"],
        "o",
        color="black",
        mfc="white",
        label="data" if len(own) else None,
    )
    axis.set(
        xscale="log",
        xlabel="training tokens D",
        title=f"{size / 1e9:g} billion parameters",
        ylim=(1.6, 4),
    )
axes[0].set_ylabel("loss (nats per token)")
axes[0].legend()
plt.show()

# %%
# ``bnsl`` here reads D alone and ``kaplan_c`` computation alone: what a law does not read it cannot know.
#
# How many tokens per parameter? Approach 2, the parabola through losses of equal computation, has a bias that does not
# go away with less noise. It is reported, and taken out:

budgets = np.geomspace(1e18, 1e21, 5)
best = laws.chinchilla_optimum(published, budgets)
sizes = (best["N"].to_numpy()[:, None] * np.geomspace(1 / 10, 10, 11)).ravel()
seen = np.repeat(budgets, 11) / (6 * sizes)
loss = (
    published["E"]
    + published["A"] * sizes ** -published["alpha"]
    + published["B"] * seen ** -published["beta"]
)
found = laws.chinchilla_approach_2(pd.DataFrame({"N": sizes, "D": seen, "value": loss}))
print(f"best N is {100 * (found.bias_N - 1):+.2f} % off, at every computation")
print(found.corrected.predict([1e22, 1e24]).round(1))

# %%
# Repeat, or retrieve? 20 billion tokens exist; training reads 20 billion. Whatever is not trained on goes into the
# store, and training repeats the rest. The better the store, the more of the corpus belongs there.


class Store:
    """A surface with a store, as a fit would give it."""

    def __init__(self, gain):
        self.theta = {**published, "C": gain, "eta": 1e-9}

    def predict(self, N, D, R):
        return Log1p().loss(N, D, R, self.theta)


repeated = laws.DataConstrained.published["c4"].parameters
gains = np.geomspace(1e-3, 0.2, 25)
splits = [
    laws.repeat_or_retrieve(repeated, Store(gain), N=1e9, D=2e10, pool=2e10)
    for gain in gains
]
figure, axis = plt.subplots(figsize=(6, 4), constrained_layout=True)
axis.plot(gains, [split.epochs for split in splits])
axis.set(
    xscale="log",
    yscale="log",
    xlabel="size of the gain C (nats)",
    ylabel="epochs over the trained part",
)
plt.show()

# %%
# And at test time: how should a context be spent? With the values published for one model (they are for a normalised
# performance), documents come first, then shots, and iterations last.

law = laws.InferenceScaling(informativeness=True, sigmoid=laws.PUBLISHED_SIGMOID)
values = law.published["gemini_1.5_flash"].parameters
setting = laws.best_inference_setting(
    law, values, budget=[2e3, 1.6e4, 1.28e5, 1e6], i_doc=0.2, i_shot=0.05
)
setting.to_frame()
