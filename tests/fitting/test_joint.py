"""Several tasks, one skill: one objective over all parameters, whatever the column and the law."""

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ragscale import bootstrap, fit_manifold, optimal_allocation
from ragscale.datasets import simulate_reading
from ragscale.errors import ConfigError, IdentifiabilityWarning, ResultsError
from ragscale.fitting import JointFit, Reading
from ragscale.fitting._experiments import EXPERIMENT, MODEL
from ragscale.fitting._joint import _trained_models, _weights

GAINS = {"easy": {"gold": 1.6, "leap": 0.3}, "weak": {"gold": 0.25, "leap": 0.1, "E": 4.0}}
SHARED = ("D0", "c", "k")


def tasks(noise=0.01, seed=0):
    parts = [
        simulate_reading(own, model_noise=noise, row_noise=noise / 2, n_questions=400, rng=seed + i).assign(task=name)
        for i, (name, own) in enumerate(GAINS.items())
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def joint():
    return fit_manifold(tasks(), "reading", over="task")


def test_the_skill_is_one_and_the_gains_are_their_own(joint):
    assert joint.tasks == ("easy", "weak")
    assert joint.shared == SHARED
    for name in SHARED:
        assert joint["easy"].theta[name] == joint["weak"].theta[name] == joint.theta[name]
    assert joint["easy"].theta["gold"] == pytest.approx(1.6, rel=0.1)
    assert joint["weak"].theta["gold"] == pytest.approx(0.25, abs=0.08)
    alone = fit_manifold(tasks().query("task == 'weak'"), "reading")
    assert abs(np.log(joint.theta["D0"] / 1.2e7)) < abs(np.log(alone.theta["D0"] / 1.2e7)) + 0.02
    assert abs(np.log(joint.theta["D0"] / 1.2e7)) < 0.1


def test_exact_tables_give_the_exact_parameters():
    found = fit_manifold(tasks(noise=0.0).assign(hit_rate=lambda t: t["hit_rate"]), Reading(c=0.2), over="task")
    assert found.theta["D0"] == pytest.approx(1.2e7, rel=0.02)
    assert found.theta["k"] == pytest.approx(3.0, rel=0.1)
    assert found.shared == ("D0", "k")


def test_no_other_common_skill_is_better(joint):
    table = tasks()

    def total(values):
        law = Reading(fixed={**values, "N_ref": 1e7})
        parts = {name: fit_manifold(table[table["task"] == name], law) for name in joint.tasks}
        return sum(joint.weights[name] * fit.objective for name, fit in parts.items())

    here = joint.theta
    assert total(here) == pytest.approx(joint.objective, rel=1e-6)
    for name, factor in (("D0", 1.04), ("D0", 0.96), ("k", 1.1), ("k", 0.9), ("c", 1.3), ("c", 0.7)):
        assert total({**here, name: here[name] * factor}) > joint.objective


def test_no_task_rules_by_the_size_of_its_losses(joint):
    objectives = {name: joint.weights[name] * joint[name].objective for name in joint.tasks}
    assert max(objectives.values()) < 1.5 * min(objectives.values())
    scaled = tasks()
    scaled.loc[scaled["task"] == "weak", "value"] *= 1000
    again = fit_manifold(scaled, "reading", over="task")
    for name in SHARED:
        assert again.theta[name] == pytest.approx(joint.theta[name], rel=1e-3)


def test_predictions_and_decisions_are_by_task(joint):
    every = joint.predict(1.1e7, 2.4e7, [1e6, 1e7])
    assert set(every) == {"easy", "weak"}
    np.testing.assert_array_equal(every["weak"], joint.predict(1.1e7, 2.4e7, [1e6, 1e7], task="weak"))
    with pytest.raises(ConfigError, match="no group 'hard'"):
        joint["hard"]
    assert "shared: D0 =" in joint.summary()
    assert joint["easy"].verdict.text in joint.summary()


def test_trained_models_are_drawn_for_all_tasks_at_once(joint):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentifiabilityWarning)
        boot = bootstrap(joint, n_resamples=30, rng=0)
    for name in SHARED:
        np.testing.assert_allclose(boot["easy"].theta[name], boot["weak"].theta[name], rtol=1e-12)
    low, high = boot.params.loc[("all", "D0"), ["low", "high"]]
    assert low < 1.2e7 * 1.05
    assert high > 1.2e7 * 0.95
    assert high / low < 1.5
    assert boot["weak"].predict(1.1e7, 2.4e7, 1e7).shape == (30,)
    with pytest.raises(ConfigError, match="draws trained models"):
        bootstrap(joint, by="rows")


@pytest.mark.parametrize(
    ("runs", "experiment", "models"),
    [
        (["a", "b", "a", "b"], [0, 1, 2, 3], [0, 1, 0, 1]),  # numbered group by group, named over all
        (["a", "a", "a", "a"], [0, 0, 1, 1], [0, 0, 0, 0]),
        ([None, "b", "a", "b"], [0, 1, 2, 3], [0, 1, 0, 1]),  # a gap in the runs: N, D and seed tell them apart
        (None, [0, 1, 2, 3], [0, 1, 0, 1]),
    ],
)
def test_a_run_is_one_model_in_every_group(runs, experiment, models):
    every = pd.DataFrame({"N": [1e8, 2e8] * 2, "D": 1e10, "R": 0.0, EXPERIMENT: experiment})
    if runs is not None:
        every["run"] = runs
    assert _trained_models(every, MODEL).tolist() == models
    assert _trained_models(every, ("N",)).tolist() == [0, 1, 0, 1]


def test_groups_weigh_by_the_inverse_of_their_own_mean_loss():
    def one(objective, rows):
        return SimpleNamespace(objective=objective, data=pd.DataFrame(index=range(rows)))

    found = _weights({"a": one(2.0, 10), "b": one(8.0, 20), "exact": one(0.0, 10)})
    mean = np.array([0.2, 0.4, 0.4e-6])  # a group that is fitted exactly is not all that counts
    inverse, rows = 1 / mean, np.array([10, 20, 10])
    np.testing.assert_allclose(list(found.values()), inverse * 40 / (inverse * rows).sum())
    assert sum(weight * count for weight, count in zip(found.values(), rows, strict=True)) == pytest.approx(40)


def test_a_joint_fit_survives_a_file(joint, tmp_path):
    joint.to_json(tmp_path / "joint.json")
    again = JointFit.from_json(tmp_path / "joint.json")
    assert again.theta == joint.theta
    np.testing.assert_array_equal(
        again.predict(1.1e7, 2.4e7, 1e7, task="weak"), joint.predict(1.1e7, 2.4e7, 1e7, task="weak")
    )
    assert again.params.equals(joint.params)


def test_any_column_and_any_law_will_do():
    parts = [simulate_reading(gain=lambda n, d, r: 0.06 * np.log1p(r / 3e6), rng=i, model_noise=0.01, row_noise=0.004)
             for i in (0, 1)]  # fmt: skip
    table = pd.concat([part.assign(corpus=name) for part, name in zip(parts, ("web", "wiki"), strict=True)])
    together = fit_manifold(table, "log1p", over="corpus", shared=("eta",))
    assert together.tasks == ("web", "wiki")
    assert together["web"].theta["eta"] == together["wiki"].theta["eta"]
    apart = fit_manifold(table, "log1p", over="corpus")
    assert apart.shared == ()
    alone = fit_manifold(table[table["corpus"] == "web"], "log1p")
    assert apart["web"].theta == alone.theta
    share = float(optimal_allocation(together["web"], N=1.1e7, budget=5.2e7).share)
    assert 0 <= share <= 1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"over": "subject"}, ConfigError, "over = 'subject' is no column"),
        ({"over": "task", "shared": ("gold",)}, ConfigError, "only free parameters that enter non-linearly"),
        ({"over": "task", "shared": ("D7",)}, ConfigError, "'D7' are no parameters"),
        ({"over": "task", "shared": "D0"}, ConfigError, "must be a sequence"),
        ({"over": "task", "law": "auto"}, ConfigError, "needs a named law"),
        ({"shared": ("D0",)}, ConfigError, "needs over="),
    ],
)
def test_what_cannot_be_shared_is_named(options, error, words):
    with pytest.raises(error, match=words):
        fit_manifold(tasks(), **{"law": "reading", **options})


def test_a_group_that_cannot_be_fitted_is_named():
    table = tasks()
    table.loc[table["task"] == "weak", "hit_rate"] = np.nan
    with pytest.raises(ResultsError, match="weak: the law 'reading' reads hit_rate"):
        fit_manifold(table, "reading", over="task")
