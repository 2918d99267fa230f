"""Cells never let a model train on its store, the frontier is exact, and costs add up to those of the training plan."""

import json

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ragscale.errors import ConfigError, StudyWarning
from ragscale.study import Grid, Study, StudyConfig, StudyPlan
from ragscale.study._cost import plan_study
from ragscale.study._plan import cells, model_config, model_training, refuse_impossible
from ragscale.study._sizes import Sizes, estimated_sizes
from ragscale.training import Device, ModelConfig, TrainConfig, make_plan

BUDGET = 1_000_000
DEVICE = Device(name="one GFLOP/s", peak_flops=1e9, memory_gib=None, mfu=1.0)


def config(**changes):
    base = {"corpus": {"synthetic": {}}, "models": ["0.15M"], "D": [200_000, 400_000, 800_000], "R": [100_000, 300_000]}
    changes = {"training": {"seq_len": 64}, **changes}
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


def plan(config, *, n_questions=30, **options):
    options = {"device": DEVICE, "n_devices": 1, "price_per_hour": None, **options}
    return plan_study(config, Sizes(budget=BUDGET, vocab_size=256), n_questions=n_questions, **options)


@pytest.mark.parametrize("decay", [0.1, 0.5])
def test_train_tokens_are_those_of_trunk_and_branches(decay):
    training = {"seq_len": 64, "batch_tokens": 640, "decay_fraction": decay}
    table = plan(config(training=training)).cells
    model = ModelConfig.olmo2("0.15M", vocab_size=256)
    expected = make_plan(model, TrainConfig(**training), [200_000, 400_000, 800_000])
    assert table["train_tokens"].sum() == expected.tokens_trained
    assert table["train_flops"].sum() == pytest.approx(expected.tokens_trained * model.flops(64))
    assert table["hours"].sum() == pytest.approx(table["train_flops"].sum() / 1e9 / 3600)
    assert (table.loc[table["R"] > 0, "train_tokens"] == 0).all()
    assert (table["prompt_tokens"] == 30 * 64).all()


def test_money_and_device_hours_do_not_depend_on_how_many_devices_share_the_work():
    chosen = config(training={"seq_len": 64, "batch_tokens": 640}, seeds=(0, 1, 2))
    alone, shared = (plan(chosen, n_devices=n, price_per_hour=2.5) for n in (1, 4))
    assert alone.device_hours == shared.device_hours
    assert alone.money == pytest.approx(2.5 * alone.device_hours) == shared.money
    assert shared.wall_hours < alone.wall_hours
    assert alone.wall_hours >= alone.device_hours
    assert shared.wall_hours >= alone.device_hours / 4
    stages = alone.stages.set_index("stage")
    for name in ("device_hours", "cpu_hours", "money", "disk_gib", "jobs"):
        assert stages.loc["total", name] == pytest.approx(stages[name].drop("total").sum())
    assert stages.loc["evaluate", "device_hours"] > 0, "evaluation is paid for too"


def test_the_wall_hours_are_those_of_the_longest_chain_where_there_are_devices_enough():
    chosen = config(training={"seq_len": 64, "batch_tokens": 640}, D=[800_000], R=[])
    many = plan(chosen, n_devices=100, n_questions=0)
    flops = many.cells["train_flops"].sum()
    assert 1 < many.wall_hours / (flops / 1e9 / 3600) < 1.2, "the rest is the start of three processes"


def test_a_plan_without_questions_that_can_be_counted_says_so():
    assert "questions are not counted" in plan(config(), n_questions=None).note


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_devices": 0}, "n_devices = 0"),
        ({"n_devices": 1.5}, "n_devices = 1.5"),
        ({"price_per_hour": -1}, "price_per_hour = -1"),
        ({"price_per_hour": "2 EUR"}, "price_per_hour = '2 EUR'"),
        ({"device": "H900"}, "device must be one of"),
    ],
)
def test_wrong_arguments_are_named(options, match):
    with pytest.raises(ConfigError, match=match):
        plan(config(), **options)


def test_a_run_that_needs_more_devices_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="processes_per_training = 2"):
        plan(config(processes_per_training=2), n_devices=1)


def test_a_plan_is_written_and_read(tmp_path):
    made = plan(config(), price_per_hour=1.0)
    made.to_json(tmp_path / "plan.json")
    again = StudyPlan.from_json(tmp_path / "plan.json")
    pd.testing.assert_frame_equal(again.to_frame(), made.to_frame())
    assert again.summary() == made.summary()
    assert len(made.summary()) < 2000
    assert "tabular" in made.to_latex()


def test_a_training_run_that_cannot_work_is_refused_before_any_is_spent():
    wrong = config(training={"seq_len": 64, "batch_tokens": 64_000})
    with pytest.raises(ConfigError, match=r"0\.15M: .*D=200000 is 4 steps"):
        refuse_impossible(wrong, budget=BUDGET, vocab_size=256)
    with pytest.raises(ConfigError, match="D=200000 is 4 steps"):
        refuse_impossible(wrong, budget=None, vocab_size=256)


def test_a_model_may_be_a_rung_with_its_own_training():
    chosen = config(models=[{"rung": "0.15M", "training": {"learning_rate": 0.5}}, "0.5M"], training={"z_loss": 0.1})
    first, second = chosen.models
    assert first.name == "0.15M"
    assert model_config(first, 256) == model_config("0.15M", 256)
    assert (model_training(chosen, first).learning_rate, model_training(chosen, first).z_loss) == (0.5, 0.1)
    assert model_training(chosen, second) == TrainConfig(z_loss=0.1)
    assert {cell.model for cell in cells(chosen, budget=BUDGET, vocab_size=256)} == {"0.15M", "0.5M"}


def test_models_of_one_name_are_refused_and_told_apart_by_a_name_of_their_own():
    sweep = [{"rung": "0.15M", "training": {"learning_rate": rate}} for rate in (0.01, 0.02)]
    with pytest.raises(ConfigError, match=r"0\.15M stands twice"):
        config(models=sweep)
    named = [{**model, "name": f"rate {i}"} for i, model in enumerate(sweep)]
    found = cells(config(models=named), budget=BUDGET, vocab_size=256)
    assert {(cell.model, cell.N) for cell in found} == {(f"rate {i}", found[0].N) for i in range(2)}


@pytest.mark.parametrize(("tokenizer", "least", "most"), [(1024, 0.8, 1.25), (300, 0.5, 2.0)])
def test_t_before_the_split_is_near_what_the_split_will_have(tmp_path, tokenizer, least, most):
    from ragscale.datasets import synthetic_corpus
    from ragscale.splitting import train_tokenizer

    world = synthetic_corpus(n_documents=400, n_entities=20)
    texts = [document.text for document in world.documents]
    true = sum(len(ids) + 1 for ids in train_tokenizer(texts, tokenizer)(texts)["input_ids"])
    guess = estimated_sizes(config(corpus={"synthetic": {"n_documents": 400}}, tokenizer=tokenizer))
    assert least < guess.budget / true < most
    assert "estimated" in guess.note
    (tmp_path / "corpus.jsonl").write_text(
        "".join(json.dumps({"id": str(i), "text": t}) + "\n" for i, t in enumerate(texts))
    )
    files = config(corpus=str(tmp_path / "corpus.jsonl"), tokenizer=tokenizer, tasks=["squad.jsonl"])
    assert 0.4 < estimated_sizes(files).budget / true < 2.5  # an invented language: shorter words than English
    assert estimated_sizes(files.replace(max_tokens=1000)).budget == 1000


def test_a_seen_store_may_be_read_beside_any_d_and_a_held_out_one_only_below_t():
    both = config(store_sources=["seen", "held-out"])
    assert both.store_sources == ("held-out", "seen")
    found = cells(both, budget=BUDGET, vocab_size=256)
    held = {(c.D, c.R) for c in found if c.source == "held-out"}
    seen = {(c.D, c.R) for c in found if c.source == "seen"}
    assert held == {(c.D, c.R) for c in cells(config(), budget=BUDGET, vocab_size=256) if c.R}
    assert seen == {(d, r) for d in (200_000, 400_000, 800_000) for r in (100_000, 300_000)}
    assert seen > held
    assert not any(cell.overlap for cell in found)
    assert [(c.D, c.source) for c in found if c.R == 0] == [(d, "none") for d in (200_000, 400_000, 800_000)]


def test_the_plan_counts_both_sources_of_a_store():
    one, both = plan(config()), plan(config(store_sources=["held-out", "seen"]))
    jobs = [dict(zip(p.stages["stage"], p.stages["jobs"], strict=True)) for p in (one, both)]
    assert [(j["index"], j["retrieve"], j["train"], j["evaluate"]) for j in jobs] == [(1, 1, 6, 3), (2, 2, 6, 6)]
    assert both.device_hours > one.device_hours
    table = both.to_frame()
    (share,) = table.query("store_source == 'seen' and D == 200_000 and R == 300_000")["seen_share"].unique()
    assert share == pytest.approx(2 / 3)
    assert (table.query("store_source == 'held-out'")["seen_share"] == 0).all()


@pytest.mark.parametrize(
    ("most", "batch", "warned"), [(4_000_000, 8192, True), (6_000_000, 8192, False), (4_000_000, 2048, False)]
)
def test_a_grid_below_the_threshold_of_reading_is_said_before_anything_is_spent(tmp_path, most, batch, warned):
    """ragscale-gpu begins at 13M with batches of 8,192: a third of that is clearly below, and half of it is not."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"id": "a", "text": "one"}) + "\n")
    options = {"corpus": str(corpus), "tasks": ["squad.jsonl"], "max_tokens": 10**8, "tokenizer": 512}
    study = Study(config(**options, D=[10**6, most], training={"seq_len": 256, "batch_tokens": batch}), tmp_path / "s")
    if not warned:
        assert study.plan().below_reading == ""
        return
    with pytest.warns(StudyWarning, match=r"all D of this study lie below.*10\^5\.7.*2511\.16893.*4\.5e\+07.*a third"):
        assert "all D of this study" in study.plan().summary()
    assert Study(study.config.replace(R=[]), tmp_path / "s").plan().below_reading == "", "nothing is retrieved"


def test_the_invented_world_is_read_sooner():
    """The earliest of 60 runs began at 0.20M with batches of 1,536, where the law says 20M."""
    early = config(D=[200_000], training={"seq_len": 96, "batch_tokens": 1536, "allow_short_runs": True})
    assert plan(early).below_reading == ""
    late = early.replace(D=[100_000], R=[50_000])
    assert "earliest of 60 runs" in plan(late).below_reading


def test_ratios_depend_on_the_model_and_counts_do_not():
    chosen = config(models=["0.15M", "0.5M"], D=Grid((1,), "per_parameter"), R=[])
    sizes = {c.model: (c.N, c.D) for c in cells(chosen, budget=BUDGET, vocab_size=256)}
    assert all(n == d for n, d in sizes.values())
    assert len(set(sizes.values())) == 2
