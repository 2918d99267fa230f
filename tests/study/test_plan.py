"""Cells never let a model train on its store, the frontier is exact, and costs add up to those of the training plan."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ragscale.errors import ConfigError
from ragscale.study import Grid, StudyConfig
from ragscale.study._plan import cells, model_config, model_name, model_training, plan_table
from ragscale.training import Device, ModelConfig, TrainConfig, make_plan

BUDGET = 1_000_000
DEVICE = Device(name="one GFLOP/s", peak_flops=1e9, memory_gib=None, mfu=1.0)


def config(**changes):
    base = {"corpus": {"synthetic": {}}, "models": ["0.15M"], "D": [200_000, 400_000, 800_000], "R": [100_000, 300_000]}
    return StudyConfig(**{**base, **changes})


@given(
    shares=st.lists(st.floats(0.001, 1), min_size=1, max_size=4),
    stores=st.lists(st.integers(0, 2 * BUDGET), max_size=4),
    budgets=st.lists(st.floats(0.01, 1), max_size=3),
    overlap=st.booleans(),
)
def test_no_cell_exceeds_the_budget_unless_asked_and_then_it_says_so(shares, stores, budgets, overlap):
    chosen = config(
        D=Grid(tuple(shares), "share_of_budget"),
        R=stores,
        budgets=Grid(tuple(budgets), "share_of_budget"),
        allow_overlap=overlap,
    )
    found = cells(chosen, budget=BUDGET, vocab_size=256)
    assert len({(c.D, c.R) for c in found}) == len(found)
    for cell in found:
        assert cell.overlap == (cell.D + cell.R > BUDGET)
        assert overlap or not cell.overlap
    for tokens in {c.D for c in found}:
        assert any(tokens == c.D and c.R == 0 for c in found)


@given(st.floats(0.2, 1))
def test_every_budget_pairs_every_smaller_d_with_exactly_the_rest(share):
    chosen = config(R=[], budgets=Grid((share,), "share_of_budget"))
    total = round(share * BUDGET)
    assume(total > 200_000)
    found = {(c.D, c.R) for c in cells(chosen, budget=BUDGET, vocab_size=256) if c.R}
    assert found == {(tokens, total - tokens) for tokens in (200_000, 400_000, 800_000) if tokens < total}


def test_a_model_without_a_cell_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match=r"0\.15M has no cell.*smallest D is 200,000"):
        cells(config(), budget=100_000, vocab_size=256)


@pytest.mark.parametrize("decay", [0.1, 0.5])
def test_train_tokens_are_those_of_trunk_and_branches(decay):
    training = {"seq_len": 64, "batch_tokens": 640, "decay_fraction": decay}
    table = plan_table(config(training=training), budget=BUDGET, vocab_size=256, device=DEVICE, n_questions=30)
    model = ModelConfig.olmo2("0.15M", vocab_size=256)
    plan = make_plan(model, TrainConfig(**training), [200_000, 400_000, 800_000])
    assert table["train_tokens"].sum() == plan.tokens_trained
    assert table["train_flops"].sum() == pytest.approx(plan.tokens_trained * model.flops(64))
    assert table["hours"].sum() == pytest.approx(table["train_flops"].sum() / 1e9 / 3600)
    assert (table.loc[table["R"] > 0, "train_tokens"] == 0).all()
    assert (table["prompt_tokens"] == 30 * 64).all()


def test_a_training_run_that_cannot_work_is_refused_before_any_is_spent():
    with pytest.raises(ConfigError, match="D=200000 is 4 steps"):
        plan_table(
            config(training={"seq_len": 64, "batch_tokens": 64_000}),
            budget=BUDGET,
            vocab_size=256,
            device=DEVICE,
            n_questions=None,
        )


def test_a_model_may_be_a_rung_with_its_own_training():
    chosen = config(models=[{"rung": "0.15M", "training": {"learning_rate": 0.5}}, "0.5M"], training={"seed": 3})
    first, second = chosen.models
    assert model_name(first) == "0.15M"
    assert model_config(first, 256) == model_config("0.15M", 256)
    assert model_training(chosen, first) == {"seed": 3, "learning_rate": 0.5}
    assert model_training(chosen, second) == {"seed": 3}
    assert {cell.model for cell in cells(chosen, budget=BUDGET, vocab_size=256)} == {"0.15M", "0.5M"}


def test_models_of_one_name_are_refused_and_told_apart_by_a_name_of_their_own():
    sweep = [{"rung": "0.15M", "training": {"learning_rate": rate}} for rate in (0.01, 0.02)]
    with pytest.raises(ConfigError, match=r"0\.15M stands twice"):
        cells(config(models=sweep), budget=BUDGET, vocab_size=256)
    named = [{**model, "name": f"rate {i}"} for i, model in enumerate(sweep)]
    found = cells(config(models=named), budget=BUDGET, vocab_size=256)
    assert {(cell.model, cell.N) for cell in found} == {(f"rate {i}", found[0].N) for i in range(2)}


def test_ratios_depend_on_the_model_and_counts_do_not():
    chosen = config(models=["0.15M", "0.5M"], D=Grid((1,), "per_parameter"), R=[])
    sizes = {c.model: (c.N, c.D) for c in cells(chosen, budget=BUDGET, vocab_size=256)}
    assert all(n == d for n, d in sizes.values())
    assert len(set(sizes.values())) == 2
