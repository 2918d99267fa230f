"""What a fit takes from its residuals: how large those of new rows are, and how many models it leaves unspent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragscale.fitting._diagnostics import sandwich
from ragscale.fitting._own import peek
from ragscale.fitting._result import ManifoldFit

_LEAST_LEFT = 0.1  # a direction of which the fit took more than nine tenths says nothing about noise
_NEGLIGIBLE = 1e-9


@dataclass(frozen=True, slots=True)
class Freedom:
    """What is left of the noise after a fit.

    Attributes
    ----------
    residuals : ndarray (n,)
        Residuals as large as those of rows that the fit has not seen.
    degrees : float
        Degrees of freedom left between experiments.
    inflation : float
        By how much the variance of estimates is larger than resamples of all experiments say: about C / (C - p) for
        least squares, 1 where the loss does not look at the size of a residual (absolute loss), in between for Huber's,
        by the share of rows whose size counts.
    """

    residuals: np.ndarray
    degrees: float
    inflation: float

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        """Draw residuals of new rows, (n_replicates, ...).

        They are smoothed, since the largest of 30 is not as large as the largest of many; and each replicate has a
        spread of its own, since that of few models is uncertain: for normal noise the draws follow Student's law.
        """
        r = self.residuals
        spread = float(np.std(r))
        if spread == 0.0:
            return np.zeros(shape)
        low, high = np.quantile(r, [0.25, 0.75])
        narrow = min(spread, float(high - low) / 1.349) or spread
        width = 1.06 * narrow * max(self.degrees, 1.0) ** -0.2
        drawn = generator.choice(r, size=shape) + width * generator.standard_normal(shape)
        drawn *= spread / np.hypot(spread, width)
        degrees = max(self.degrees, 2.0)
        each = np.sqrt(degrees / generator.chisquare(degrees, size=shape[:1]))
        return drawn * each.reshape(-1, *([1] * (len(shape) - 1)))

    def models_drawn(self, count: int) -> int:
        """Return how many of ``count`` experiments a resample draws."""
        return int(np.clip(round(count / self.inflation), -(-count // 2), count))


@np.errstate(all="ignore")
def freedom(fit: ManifoldFit, group: np.ndarray) -> Freedom:
    r"""Give residuals back what the fit took of them, experiment by experiment.

    .. math:: \tilde r_c = (I - H_{cc})^{-1/2}\, r_c

    with the hat matrix H of the linearised, weighted fit. Their variance is that of new rows, exactly so where rows are
    independent, and for the part that rows of one experiment share up to the correlation of the fit's errors between
    experiments.

    Parameters
    ----------
    fit : ManifoldFit
    group : ndarray of int (n,)
        The experiment of each row.

    References
    ----------
    Bell and McCaffrey 2002, Survey Methodology 28(2), eq. 10 (bias-reduced linearisation); Pustejovsky and Tipton
    2018, J. Business & Economic Statistics 36(4).
    """
    local = sandwich(fit)
    root = np.sqrt(peek(fit, "data")["weight"].to_numpy(float))
    counted = np.abs(fit.residuals) <= fit.loss.limit
    return given_back(local.jacobian[~local.held], fit.residuals, root, group, counted)


@np.errstate(all="ignore")
def given_back(
    slopes: np.ndarray, residual: np.ndarray, root: np.ndarray, group: np.ndarray, counted: np.ndarray
) -> Freedom:
    """Give residuals back what a fit took of them, as `freedom` says.

    Parameters
    ----------
    slopes : ndarray (p, n)
        Of the residuals with the parameters that were free.
    residual, root : ndarray (n,)
        Residuals, and square roots of the weights of rows.
    group : ndarray of int (n,)
    counted : ndarray of bool (n,)
        Rows the size of whose residuals the loss looks at.
    """
    count = int(group.max()) + 1
    used = root > 0
    basis = _basis(slopes * root)
    if not len(basis) or not used.any():
        return Freedom(residual, float(count), 1.0)
    scaled = residual * root
    p = len(basis)
    taken = np.empty((count, p, p))
    for i in range(p):
        for j in range(i + 1):
            taken[:, i, j] = taken[:, j, i] = np.bincount(group, basis[i] * basis[j], count)
    share, axes = np.linalg.eigh(taken)
    share = np.clip(share, 0.0, 1.0)
    left = np.maximum(1.0 - share, _LEAST_LEFT)
    back = np.where(share > _NEGLIGIBLE, (left**-0.5 - 1.0) / np.maximum(share, _NEGLIGIBLE), 0.5)
    inside = np.stack([np.bincount(group, row * scaled, count) for row in basis], axis=1)
    returned = np.einsum("cij,cj,ckj,ck->ci", axes, back, axes, inside)
    whole = scaled + np.einsum("in,ni->n", basis, returned[group])
    lost = float(np.sum(1.0 - (1.0 - share) / left))  # of directions that the fit took nearly whole
    whole *= np.sqrt(len(scaled) / max(len(scaled) - lost, 1.0))
    seen = np.where(used, whole / np.where(used, root, 1.0), residual)
    size = np.bincount(group, minlength=count)
    sums = np.stack([np.bincount(group, row, count) for row in basis], axis=1)
    between = float(np.sum(np.sum(sums**2, axis=1) / size))
    larger = _variance(seen, basis * root, group) / max(_variance(residual, basis * root, group), 1e-300)
    inflation = 1.0 + float(counted.mean()) * max(larger - 1.0, 0.0) if np.isfinite(larger) else 1.0
    return Freedom(np.nan_to_num(seen), max(count - between, 1.0), inflation)


def _basis(jacobian: np.ndarray) -> np.ndarray:
    """Return orthonormal rows that span what the parameters can do to the rows of the table, (p, n)."""
    jacobian = np.nan_to_num(jacobian, posinf=0.0, neginf=0.0)
    length = np.linalg.norm(jacobian, axis=1)
    if not (length > 0).any():
        return np.zeros((0, jacobian.shape[1]))
    scaled = jacobian[length > 0] / length[length > 0, None]
    _, singular, rows = np.linalg.svd(scaled, full_matrices=False)
    return rows[singular > 1e-7 * singular[0]]


def _variance(residual: np.ndarray, scores: np.ndarray, group: np.ndarray) -> float:
    """Return the sum of squares of what experiments contribute to the normal equations, over all directions."""
    return float(sum(np.sum(np.bincount(group, row * residual) ** 2) for row in scores))
