"""A link answers for itself: what it says in closed form follows from its map; an own link needs nothing but that."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

from ragscale.datasets import simulate
from ragscale.errors import ConfigError
from ragscale.fitting import Bounded, Identity, Link, Log, ManifoldFit, fit_manifold
from ragscale.fitting.solver.links import Negative

LATENT = np.linspace(0.3, 5.0, 23)
LINKS = [
    (Identity(), "log"), (Identity(), "linear"), (Log(), "log"), (Log(), "linear"), (Negative(), "linear"),
    (Bounded(direction="up"), "linear"), (Bounded(0.1, 0.8, direction="up"), "log"),
    (Bounded(2, 90, "down", "log"), "log"),
]  # fmt: skip
ids = [f"{link.name}-{space}-{i}" for i, (link, space) in enumerate(LINKS)]


@dataclass(frozen=True, slots=True)
class Perplexity(Link):
    """The exponential of the loss, with nothing written but the map."""

    name: ClassVar[str] = "own-perplexity"
    invertible: ClassVar[bool] = True

    def metric(self, latent: np.ndarray, extra: Mapping[str, Any] | None = None) -> np.ndarray:
        return np.exp(latent)

    def slopes(self, latent: np.ndarray, extra: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return np.exp(latent), {}

    def latent(self, metric: np.ndarray, extra: Mapping[str, Any] | None = None) -> np.ndarray:
        return np.log(metric)


class Searched(Perplexity):
    """The same, found by another way than projection."""

    name: ClassVar[str] = "own-searched"
    invertible: ClassVar[bool] = False


def observed(link: Link, space: Any) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(link.metric(LATENT[::-1] * 0.8 + 0.2))
    return values, np.log(values) if space == "log" else values


@pytest.mark.parametrize(("link", "space"), LINKS, ids=ids)
def test_a_residual_is_predicted_minus_observed(link: Link, space: Any) -> None:
    _, seen = observed(link, space)
    np.testing.assert_allclose(link.residual(LATENT, seen, space), Link.residual(link, LATENT, seen, space), atol=1e-12)
    predicted = np.asarray(link.metric(LATENT))
    expected = np.log(predicted) - seen if space == "log" else predicted - seen
    np.testing.assert_allclose(link.residual(LATENT, seen, space), expected, atol=1e-12)


@pytest.mark.parametrize(("link", "space"), LINKS, ids=ids)
def test_slopes_and_bending_are_those_of_the_residual(link: Link, space: Any) -> None:
    _, seen = observed(link, space)
    step = 1e-4

    def at(shift: float) -> np.ndarray:
        return link.residual(LATENT + shift, seen, space)

    slope = np.broadcast_to(link.residual_slopes(LATENT, space)[0], LATENT.shape)
    np.testing.assert_allclose(slope, (at(step) - at(-step)) / (2 * step), rtol=1e-6)
    bending = link.bending(LATENT, space)
    if bending is not None:
        second = (at(step) - 2 * at(0.0) + at(-step)) / step**2
        np.testing.assert_allclose(bending * np.ones_like(slope), second / slope**2, atol=2e-6)


@pytest.mark.parametrize(
    ("link", "space"), [pair for pair in LINKS if pair[0].invertible or pair[0].name == "negative"]
)
def test_the_secant_weight_keeps_the_slope_of_the_objective(link: Link, space: Any) -> None:
    values, seen = observed(link, space)
    near = np.where(np.arange(len(LATENT)) % 5 == 0, link.latent(values) + 1e-10, LATENT)  # where it is 0 / 0
    r = link.residual(near, seen, space)
    weight = link.secant(near, r, values, space)
    slope = np.broadcast_to(link.residual_slopes(near, space)[0], r.shape)
    np.testing.assert_allclose(weight * (near - link.latent(values)), r * slope, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(weight, Link.secant(link, near, r, values, space), rtol=2e-6)


@pytest.mark.parametrize("space", ["log", "linear"])
@pytest.mark.parametrize("own", [Perplexity(), Searched()], ids=["projected", "searched"])
def test_an_own_link_finds_the_same_optimum(own: Link, space: Any, tmp_path: Any) -> None:
    table = simulate("log1p", noise=0.01, rng=1)
    table = table.assign(value=np.exp(table["value"]), metric="perplexity")
    known = fit_manifold(table, "log1p", link="log", space=space)
    fit = fit_manifold(table, "log1p", link=own, space=space)
    assert fit.objective == pytest.approx(known.objective, rel=1e-9)
    fit.to_json(tmp_path / "fit.json")
    again = ManifoldFit.from_json(tmp_path / "fit.json")
    assert type(again.link) is type(own)
    assert again.predict(1e9, 2e10, 1e9) == fit.predict(1e9, 2e10, 1e9)


def test_a_link_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"'logit' must be 'auto', 'bounded', 'identity', 'log', 'negative'"):
        fit_manifold(pd.DataFrame({"N": [1e8], "D": [1e9], "value": [3.0]}), "chinchilla", link="logit")
    with pytest.raises(ConfigError, match="import the module of an own one"):
        Link.from_dict({"name": "lost"})


@pytest.mark.parametrize(
    "link", [Identity(), Log(), Negative(), Bounded(0.25, 0.9, direction="up")], ids=lambda x: x.name
)
def test_a_link_comes_back_as_it_was_written(link: Link) -> None:
    assert Link.from_dict(link.to_dict()) == link


def test_only_a_bounded_link_waits_for_the_table_to_know_its_direction() -> None:
    assert [link.knows_direction for link in (Identity(), Log(), Negative(), Bounded("free", 1.0))] == [
        True,
        True,
        True,
        False,
    ]
    assert Bounded(direction="down").knows_direction
    assert not Bounded(direction="down").rising
