"""
Train a ladder
==============

Two tiny models, three values of D each, in seconds: every D comes from one run. The text is synthetic, so the numbers
mean nothing beyond this page; :doc:`/guide/train-a-ladder` shows a ladder on real text.
"""

# %%
# A language to learn: words follow one another by a fixed table of probabilities.
import tempfile
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

import ragscale as rs
from ragscale.training import ModelConfig, TrainConfig, dry_run, make_plan

rng = np.random.default_rng(0)
table = rng.dirichlet(np.full(64, 0.05), 64).cumsum(1)
draws = rng.random(26_000)
tokens = np.zeros(26_000, np.uint16)
for i in range(1, len(tokens)):
    tokens[i] = min(63, np.searchsorted(table[tokens[i - 1]], draws[i]))
stream, validation = tokens[:24_000], tokens[24_000:]

# %%
# The plan, before anything is spent. ``trained_tokens`` is what each row adds: its piece of the trunk and its branch.
models = {
    width: ModelConfig.custom(
        n_layers=1,
        d_model=width,
        n_heads=2,
        d_ff=2 * width,
        vocab_size=64,
        name=f"width {width}",
    )
    for width in (8, 32)
}
config = TrainConfig(seq_len=16, batch_tokens=64, learning_rate=5e-3, log_every=5)
D = [6_400, 12_000, 24_000]
plan = dry_run(list(models.values()), config, D, device="CPU-core")
plan[
    ["model", "N", "D", "D/N", "steps", "warmup_steps", "decay_steps", "trained_tokens"]
]

# %%
# The trunk's learning rate, and the branches that leave it.
_, ax = plt.subplots(figsize=(6, 2.5), layout="constrained")
laid_out = make_plan(models[32], config, D)
for segment in laid_out.segments:
    steps = range(segment.start, segment.stop)
    rates = [laid_out.learning_rate(segment, step) for step in steps]
    ax.plot(steps, rates, color="0.5" if segment.tokens is None else "C1", lw=2)
ax.set(xlabel="step", ylabel="learning rate")
plt.show()

# %%
# Training returns one annealed checkpoint per D, each of them a Hugging Face folder.
folder = tempfile.TemporaryDirectory()
checkpoints = []
for width, model in models.items():
    out = Path(folder.name) / str(width)
    checkpoints += rs.train(
        model, stream, config, tokens=D, out=out, validation=validation, device="cpu"
    )
for checkpoint in checkpoints:
    print(
        f"N = {checkpoint.n_params:6,}  D = {checkpoint.n_tokens:6,}  loss {checkpoint.validation_loss:.3f}"
    )

# %%
# Loss against D for both, and the curves of one run.
_, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
rs.plotting.ladder(checkpoints, ax=axes[0])
rs.plotting.loss_curves(Path(folder.name) / "32", ax=axes[1])
plt.show()

# %%
# A finished branch is read, not trained again; another D only adds its own branch.
[added] = rs.train(
    models[32],
    stream,
    config,
    tokens=9_000,
    out=Path(folder.name) / "32",
    validation=validation,
    device="cpu",
)
print(f"D = {added.n_tokens:,}: {added.validation_loss:.3f} after {added.step} steps")
folder.cleanup()
