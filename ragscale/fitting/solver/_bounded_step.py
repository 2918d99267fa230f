"""One step of a quadratic model inside bounds, for a batch."""

from __future__ import annotations

import numpy as np

from ragscale.fitting.solver._linear import solve


def bounded_step(
    hessian: np.ndarray, gradient: np.ndarray, p: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Solve H s = -g with p + s inside the bounds; return s and the gain that the quadratic model predicts, (S, p)."""
    slack = 1e-12 * (1.0 + np.abs(p))
    held = ((p <= lower + slack) & (gradient > 0)) | ((p >= upper - slack) & (gradient < 0))
    fixed, step = np.zeros_like(p), np.zeros_like(p)
    for _ in range(3):
        free = ~held
        matrix = hessian * (free[:, :, None] & free[:, None, :])
        index = np.arange(p.shape[1])
        matrix[:, index, index] += held
        right = np.where(held, fixed, -gradient - np.einsum("sij,sj->si", hessian, np.where(held, fixed, 0.0)))
        step = solve(matrix.transpose(1, 2, 0), right.T).T
        step = np.where(np.isfinite(step), step, 0.0)
        beyond = free & ((p + step < lower) | (p + step > upper))
        if not beyond.any():
            break
        fixed = np.where(beyond, np.clip(p + step, lower, upper) - p, fixed)
        held = held | beyond
    step = np.clip(p + step, lower, upper) - p
    predicted = -(gradient * step).sum(axis=1) - 0.5 * np.einsum("si,sij,sj->s", step, hessian, step)
    return step, predicted
