"""The contract of a scaling law, run on anyone's class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ragscale.errors import ConfigError, RagscaleError
from ragscale.fitting import ScalingLaw, SeparableLaw, Theta, fit_manifold
from ragscale.fitting.laws._law import difference
from ragscale.fitting.solver._linear_parameters import linear_names, probe_value

_N = np.array([3e7, 1e8, 3e8, 1e9, 3e9, 1e10])
_D_OVER_N = np.array([2.0, 8.0, 30.0, 120.0])
_RANGES = {"hit_rate": (0.0, 1.0)}
_R_OVER_N = np.array([0.0, 0.5, 4.0, 20.0])


def check_scaling_law(
    law: ScalingLaw | Callable[[], ScalingLaw],
    *,
    theta: dict[str, float] | None = None,
    columns: dict[str, tuple[float, float]] | None = None,
) -> list[str]:
    """Check everything that a fit, a bootstrap and a decision expect of a law.

    Parameters
    ----------
    law : ScalingLaw, or a callable that returns one (a class will do)
    theta : mapping, optional
        Sensible parameter values in counts; without it, values well inside the bounds are tried.
    columns : mapping of str to (low, high), optional
        Ranges of the law's further columns; by default 0.2 to 0.8 of D, as for unique tokens, and 0 to 1 for hit_rate.

    Returns
    -------
    list of str
        Names of the checks that ran.

    Raises
    ------
    AssertionError
        Naming the promise that is broken, with the numbers.

    Examples
    --------
    >>> from ragscale.fitting import Log1p
    >>> check_scaling_law(Log1p)[:3]
    ['has_parameters', 'has_a_name', 'survives_a_round_trip']
    """
    subject = _Subject(_make(law), theta, columns or {})
    return [check.__name__.lstrip("_") for check in _CHECKS if check(subject)]


def _make(law: Any) -> ScalingLaw:
    try:
        made = law if isinstance(law, ScalingLaw) else law()
    except (TypeError, RagscaleError) as error:
        raise AssertionError(f"the law cannot be built: {error}") from error
    assert isinstance(made, ScalingLaw), f"expected a ScalingLaw, got {type(made).__name__}"
    return made


class _Subject:
    """A law with counts, values of further columns, and parameters to try it at."""

    def __init__(
        self, law: ScalingLaw, theta: dict[str, float] | None, columns: dict[str, tuple[float, float]]
    ) -> None:
        grid = np.meshgrid(_N, _D_OVER_N, _R_OVER_N, indexing="ij")
        self.n = grid[0].reshape(-1)
        self.d = grid[1].reshape(-1) * self.n
        reads_r = "R" in law.variables
        self.r = grid[2].reshape(-1) * self.n if reads_r else np.zeros_like(self.n)
        rng = np.random.default_rng(0)
        columns = {**_RANGES, **columns}
        self.further = {
            name: rng.uniform(*columns[name], self.n.shape)
            if name in columns
            else rng.uniform(0.2, 0.8, self.n.shape) * self.d
            for name in law.further_columns
        }
        self.plain = law
        self.law = law._resolve(self.n, self.d, self.r)
        self.given = theta
        stores = self.r[self.r > 0]
        self.typical = {
            "N": float(np.exp(np.log(self.n).mean())),
            "D": float(np.exp(np.log(self.d).mean())),
            "R": float(np.exp(np.log(stores).mean())) if stores.size else float(np.exp(np.log(self.d).mean())),
        }

    def theta(self, share: float = 0.45) -> dict[str, float]:
        """Return complete parameter values; coefficients so that every column contributes about 1."""
        law = self.law
        if self.given is not None:
            return {**self.given, **law.fixed, **{name: self.given[other] for name, other in law.tied.items()}}
        values = {p.name: probe_value(p, self.typical, share) for p in law.parameters}
        values |= law.fixed
        values |= {name: values[other] for name, other in law.tied.items()}
        bound = law.at(**self.further) if self.further else law
        for name in linear_names(bound, self.n, self.d, self.r, self.typical):
            if name in law.fixed or name in law.tied or name == "offset":
                continue
            one, zero = ({**values, name: x} for x in (1.0, 0.0))
            with np.errstate(all="ignore"):
                column = bound._loss(self.n, self.d, self.r, Theta(one)) - bound._loss(
                    self.n, self.d, self.r, Theta(zero)
                )
            largest = np.median if np.all(column >= 0) else np.max  # a gain must not exceed the loss
            size = float(largest(np.abs(column[np.asarray(column) != 0]))) if np.any(column) else 1.0
            values[name] = (2.0 if name == "E" else 0.3) / size
            bounds = next(p for p in law.parameters if p.name == name).bounds(self.typical)
            values[name] = float(np.clip(values[name], *bounds))  # what the law itself allows
        return values

    def loss(self, n: Any, d: Any, r: Any, values: dict[str, Any], **further: Any) -> np.ndarray:
        return np.asarray(self.law.loss(n, d, r, values, **(further or self.further)))


def _has_parameters(s: _Subject) -> bool:
    assert len(s.law.parameters) > 0, "parameters is empty: declare parameters = (Parameter('E', 0, 10), ...)"
    assert len(s.law.free) > 0, "no parameter is free: there is nothing to fit"
    return True


def _has_a_name(s: _Subject) -> bool:
    name = s.law.name
    assert name.isidentifier(), f"name = {name!r} must be an identifier in snake_case"
    assert name == name.lower(), f"name = {name!r} must be in lower case"
    return True


def _survives_a_round_trip(s: _Subject) -> bool:
    again = ScalingLaw.from_dict(s.law.to_dict())
    assert type(again) is type(s.law), (
        f"the name {s.law.name!r} belongs to {type(again).__name__} too: choose another, or fits cannot be saved"
    )
    assert again == s.law, f"from_dict(to_dict()) gives {again!r} instead of {s.law!r}: options() misses an option"
    return True


def _loss_is_finite_in_float64(s: _Subject) -> bool:
    for share in (0.3, 0.45, 0.6):
        values = s.theta(share)
        with np.errstate(all="ignore"):
            loss = s.loss(s.n, s.d, s.r, values)
        assert loss.shape == s.n.shape, f"_loss returns shape {loss.shape} for counts of shape {s.n.shape}"
        bad = np.flatnonzero(~np.isfinite(loss))
        assert not bad.size, (
            f"_loss is {loss[bad[0]]} at N = {s.n[bad[0]]:g}, D = {s.d[bad[0]]:g}, R = {s.r[bad[0]]:g}, with {values}"
        )
    return True


def _loss_broadcasts_over_replicates(s: _Subject) -> bool:
    replicates = [s.theta(share) for share in (0.35, 0.45, 0.55)]
    stacked = {name: np.array([[values[name]] for values in replicates]) for name in replicates[0]}
    free = {name: value for name, value in stacked.items() if name not in s.law.fixed and name not in s.law.tied}
    together = s.loss(s.n, s.d, s.r, free)
    assert together.shape == (3, s.n.size), (
        f"parameters of shape (3, 1) against counts of shape ({s.n.size},) give shape {together.shape}"
    )
    for row, values in zip(together, replicates, strict=True):
        alone = s.loss(s.n, s.d, s.r, values)
        assert np.allclose(row, alone, rtol=1e-12, atol=1e-14), (
            f"replicates change each other's loss, by up to {np.abs(row - alone).max():g}: "
            "use only operations that broadcast"
        )
    return True


def _counts_and_parameters_are_left_alone(s: _Subject) -> bool:
    before = [s.n.copy(), s.d.copy(), s.r.copy()]
    first = s.loss(s.n, s.d, s.r, s.theta())
    for name, old, new in zip("NDR", before, (s.n, s.d, s.r), strict=True):
        assert np.array_equal(old, new), f"_loss changes the array of {name} in place"
    assert np.array_equal(first, s.loss(s.n, s.d, s.r, s.theta())), "_loss gives another value when called again"
    return True


def _variables_are_the_ones_that_it_reads(s: _Subject) -> bool:
    values = s.theta()
    base = s.loss(s.n, s.d, s.r, values)
    for axis, name in enumerate("NDR"):
        if name in s.law.variables:
            continue
        moved = [s.n, s.d, s.r]
        moved[axis] = moved[axis] * 1.7 + 1e6
        changed = np.abs(s.loss(moved[0], moved[1], moved[2], values) - base).max()
        assert changed == 0, (
            f"variables = {s.law.variables} leaves out {name}, but the loss changes with it by {changed:g}"
        )
    return True


def _zero_gain_without_a_store(s: _Subject) -> bool:
    """A store that is nearly empty is worth nearly nothing, unless the law has an offset."""
    if "R" not in s.law.variables or s.law.offset or s.further:
        return False
    values = s.theta()
    empty = s.loss(s.n, s.d, np.zeros_like(s.n), values)
    tiny = s.loss(s.n, s.d, np.full_like(s.n, 1e-9), values)
    jump = np.abs(empty - tiny).max()
    assert jump <= 1e-3 * np.abs(empty).max(), (
        f"the loss jumps by {jump:g} between R = 0 and the smallest store: rows without retrieval do not anchor the "
        "base; subtract a gain that is zero at R = 0"
    )
    return True


def _gradient_agrees_with_differences(s: _Subject) -> bool:
    values = s.theta()
    bound = s.law.at(**s.further) if s.further else s.law
    complete = bound.theta({k: v for k, v in values.items() if k not in bound.fixed and k not in bound.tied})
    inside = s.r > 0 if "R" in s.law.variables else np.ones_like(s.r, dtype=bool)
    further = {name: column[inside] for name, column in s.further.items()}
    bound = bound.at(**further) if further else bound
    counts = (s.n[inside], s.d[inside], s.r[inside])
    given = bound._gradient(*counts, complete)
    for axis, name in enumerate("NDR"):
        if name not in s.law.variables:
            continue
        numeric = difference(bound._loss, counts, axis, complete)
        slope = np.broadcast_to(np.asarray(given[axis], dtype=float), numeric.shape)
        scale = np.abs(numeric) + 1e-6 * np.abs(bound._loss(*counts, complete)) / counts[axis]
        worst = int(np.argmax(np.abs(slope - numeric) / scale))
        assert abs(slope[worst] - numeric[worst]) <= 1e-4 * scale[worst], (
            f"_gradient gives dL/d{name} = {slope[worst]:g}, differences give {numeric[worst]:g} "
            f"at N = {counts[0][worst]:g}, D = {counts[1][worst]:g}, R = {counts[2][worst]:g}"
        )
    return True


def _columns_add_up_to_the_loss(s: _Subject) -> bool:
    bound = s.law.at(**s.further) if s.further else s.law
    if not isinstance(bound, SeparableLaw):
        return False
    values = s.theta()
    theta = Theta(values)
    columns = bound._columns(theta, s.n, s.d, s.r)
    names = {p.name for p in s.law.parameters}
    assert set(columns) <= names, f"_columns names {sorted(set(columns) - names)}, which are no parameters"
    nonlinear = Theta({name: value for name, value in values.items() if name not in columns})
    again = bound._columns(nonlinear, s.n, s.d, s.r)  # fails where a column reads a coefficient
    total: Any = sum(values[name] * column for name, column in again.items())
    loss = bound._loss(s.n, s.d, s.r, theta)
    assert np.allclose(total, loss, rtol=1e-10), f"_columns add up to {total[0]:g} where _loss is {loss[0]:g}"
    given = bound._columns_and_slopes(nonlinear, s.n, s.d, s.r)[1]
    slopes = given or {}
    for name in nonlinear if given is not None else ():
        if name in s.law.fixed:
            continue
        h = 1e-5 * abs(values[name])
        up, down = (bound._columns(Theta({**values, name: values[name] + x}), s.n, s.d, s.r) for x in (h, -h))
        for column in columns:
            numeric = np.asarray((up[column] - down[column]) / (2 * h) + 0 * s.n)
            slope = np.asarray(slopes.get((column, name), 0.0) + 0 * s.n)
            error = np.abs(slope - numeric).max()
            assert error <= 1e-5 * np.abs(numeric).max() + 1e-9 * np.abs(columns[column]).max() / abs(values[name]), (
                f"_column_slopes is off by {error:g} for the column of {column} against {name}"
            )
    return True


def _wrong_counts_are_refused(s: _Subject) -> bool:
    for counts in ((-1.0, 1e9, 0.0), (1e9, np.nan, 0.0), (1e9, 1e9, -5.0)):
        try:
            s.law.loss(*counts, s.theta(), **dict.fromkeys(s.further, 1000000000.0))
        except ConfigError:
            continue
        raise AssertionError(f"loss{counts} should raise ConfigError: do not override loss(), write _loss()")
    return True


def _a_fit_finds_the_surface_again(s: _Subject) -> bool:
    values = s.theta()
    loss = s.loss(s.n, s.d, s.r, values)
    if np.any(loss <= 0):
        return False
    table = pd.DataFrame({"N": s.n, "D": s.d, "R": s.r, "value": loss, **s.further})
    fit = fit_manifold(table.drop_duplicates(), s.plain, link="identity")
    predicted = np.asarray(fit.latent(s.n, s.d, s.r, **s.further))
    error = float(np.abs(predicted / loss - 1).max())
    assert error < 1e-3, (
        f"a fit to the law's own surface misses it by up to {error:.2%} (objective {fit.objective:.3g}): narrow the "
        "bounds, give start=(low, high), mark parameters that vary over decades with log=True"
    )
    return True


_CHECKS: tuple[Callable[[_Subject], bool], ...] = (
    _has_parameters,
    _has_a_name,
    _survives_a_round_trip,
    _loss_is_finite_in_float64,
    _loss_broadcasts_over_replicates,
    _counts_and_parameters_are_left_alone,
    _variables_are_the_ones_that_it_reads,
    _zero_gain_without_a_store,
    _gradient_agrees_with_differences,
    _columns_add_up_to_the_loss,
    _wrong_counts_are_refused,
    _a_fit_finds_the_surface_again,
)
