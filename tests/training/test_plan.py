"""From D to steps: rules for rate and batch, branches, refusals, and the paper's own schedule."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragscale.errors import ConfigError
from ragscale.training import ModelConfig, TrainConfig, dry_run, make_plan
from ragscale.training._rates import deepseek, olmo_ladder, step_law

RATIOS = (1, 2, 5, 10, 15, 20, 25, 50, 100, 150)
# end step, steps of the segment, warm-up, decay: derived from the paper's code for its 136M run
PAPER_136M = [
    (136_000_000, 130, 130, 0),
    (272_000_000, 259, 129, 13),
    (680_000_000, 648, 389, 39),
    (1_360_000_000, 1297, 649, 65),
    (3_400_000_000, 3242, 648, 324),
]


@pytest.mark.parametrize("name", ["30M", "136M", "233M", "728M", "1B", "3B"])
def test_ten_values_of_d_cost_196_n_instead_of_378(name: str) -> None:
    model = ModelConfig.olmo2(name)
    plan = make_plan(model, TrainConfig(), [ratio * model.n_params for ratio in RATIOS])
    assert plan.tokens_trained <= 196 * model.n_params
    cheap = make_plan(model, TrainConfig(decay_fraction=0.1), [ratio * model.n_params for ratio in RATIOS])
    assert cheap.tokens_trained <= 173 * model.n_params
    separate = make_plan(model, TrainConfig(schedule="cosine"), [ratio * model.n_params for ratio in RATIOS])
    assert separate.tokens_trained == 378 * model.n_params


def test_rate_and_batch_are_the_step_laws() -> None:
    # 1.79 N^-0.713 D^0.307 and 0.58 D^0.571 worked out by hand; N without embedding and head
    for name, tokens, rate, batch in [
        ("136M", 10**10, 9.05e-3, 298e3),
        ("728M", 2 * 10**10, 1.703e-3, 442e3),
        ("3B", 10**11, 7.97e-4, 1.108e6),
    ]:
        plan = make_plan(ModelConfig.olmo2(name), TrainConfig(), tokens)
        assert plan.batch_tokens == pytest.approx(batch, rel=0.01)
        assert plan.config.learning_rate == pytest.approx(rate, rel=0.01)
        assert step_law(ModelConfig.olmo2(name).n_core, tokens) == pytest.approx((rate, batch), rel=0.01)


def test_other_rules_are_as_published() -> None:
    # the ladder at 108M has its own constants; DeepSeek's batch at 1e20 FLOPs is 292e-3 x 1e20^0.3271
    assert olmo_ladder(108e6) == pytest.approx((0.00235, 327_680))
    assert deepseek(1e9, 1e20 / 6e9) == pytest.approx((0.3118 * 10**-2.5, 0.292 * 10**6.542))


def test_the_rate_falls_with_the_square_root_of_a_smaller_batch_and_stays_for_a_larger_one() -> None:
    model, tokens = ModelConfig.olmo2("728M"), 2 * 10**10
    best = make_plan(model, TrainConfig(), tokens)

    def rate(batch_tokens: int) -> float:
        value = make_plan(model, TrainConfig(batch_tokens=batch_tokens), tokens).config.learning_rate
        assert value is not None
        return value

    assert rate(best.batch_tokens // 4 // 2048 * 2048) == pytest.approx(rate(best.batch_tokens) / 2, rel=0.01)
    assert rate(4 * best.batch_tokens) == pytest.approx(rate(best.batch_tokens), rel=0.01)


def test_several_d_share_the_rate_and_batch_of_their_geometric_mean() -> None:
    model = ModelConfig.olmo2("136M")
    several = make_plan(model, TrainConfig(), [10**9, 10**10, 10**11])
    single = make_plan(model, TrainConfig(), 10**10)
    assert several.config.learning_rate == pytest.approx(single.config.learning_rate)
    assert several.batch_tokens == single.batch_tokens


def test_the_rule_for_rates_has_a_ceiling() -> None:
    tiny = ModelConfig.custom(n_layers=1, d_model=16, n_heads=2, d_ff=16, vocab_size=64)
    assert make_plan(tiny, TrainConfig(seq_len=64), 10**7).config.learning_rate == 0.04


def test_the_shortest_d_gets_200_steps() -> None:
    model = ModelConfig.olmo2("0.15M")
    plan = make_plan(model, TrainConfig(seq_len=64), [model.n_params, 20 * model.n_params])
    assert 200 <= plan.steps(model.n_params) < 450
    crowded = make_plan(model, TrainConfig(seq_len=64), [model.n_params, 10**6 * model.n_params])
    assert 200 <= crowded.steps(model.n_params) < 230


def test_the_plans_config_is_complete_and_stands_alone() -> None:
    model = ModelConfig.olmo2("0.15M")
    plan = make_plan(model, TrainConfig(seq_len=64), [200_000, 800_000])
    alone = make_plan(model, plan.config, 800_000)
    assert alone.config == plan.config
    branch, single = plan.segments[-1], alone.segments[-1]
    assert branch == single


@given(
    tokens=st.lists(st.integers(10_000, 200_000), min_size=1, max_size=5, unique=True),
    fraction=st.sampled_from([0.1, 0.2, 0.5]),
    schedule=st.sampled_from(["wsd", "cosine", "wsd-s"]),
)
def test_segments_cover_every_d_once(tokens: list[int], fraction: float, schedule: str) -> None:
    model = ModelConfig.custom(n_layers=1, d_model=16, n_heads=2, d_ff=16, vocab_size=16)
    config = TrainConfig(
        seq_len=16,
        batch_tokens=64,
        learning_rate=0.01,
        warmup_steps=5,
        decay_fraction=fraction,
        schedule=schedule,
        allow_short_runs=True,
    )
    plan = make_plan(model, config, tokens)
    assert plan.tokens == tuple(sorted(tokens))
    ends = [segment for segment in plan.segments if segment.tokens is not None]
    assert [segment.tokens for segment in ends] == sorted(tokens)
    at = 0
    for segment in plan.segments:
        assert segment.start < segment.stop or schedule == "wsd-s"
        assert segment.start <= segment.decay_start <= segment.stop
        if segment.tokens is None:
            assert segment.start == at
            at = segment.stop
        elif schedule == "wsd":
            assert segment.start == at
            read = segment.start * 64 + plan.segment_tokens(segment)
            assert read == segment.tokens
        rates = [plan.learning_rate(segment, step) for step in range(segment.start, segment.stop)]
        assert all(0 < rate <= 0.01 * (1 + 1e-12) for rate in rates)
        tail = [plan.learning_rate(segment, step) for step in range(max(5, segment.decay_start), segment.stop)]
        assert all(a > b for a, b in itertools.pairwise(tail))


@pytest.mark.parametrize(("shape", "left"), [("linear", 0.5), ("1-sqrt", 1 - math.sqrt(0.5)), ("cosine", 0.5)], ids=str)
def test_decay_shapes_at_half_way(shape: str, left: float) -> None:
    model = ModelConfig.custom(n_layers=1, d_model=16, n_heads=2, d_ff=16, vocab_size=16)
    config = TrainConfig(
        seq_len=16, batch_tokens=16, learning_rate=1.0, warmup_steps=10, decay_shape=shape, final_rate=0.1
    )
    plan = make_plan(model, config, 16 * 1005)
    branch = plan.segments[-1]
    assert branch.stop - branch.start == 201
    # x = 101 / 202
    assert plan.learning_rate(branch, branch.start + 100) == pytest.approx(0.1 + 0.9 * left)
    assert plan.learning_rate(plan.segments[0], 0) == pytest.approx(0.1)
    assert plan.learning_rate(plan.segments[0], 9) == 1.0


def test_all_warm_up_is_refused_with_the_fix() -> None:
    model = ModelConfig.olmo2("136M")
    with pytest.raises(ConfigError, match=r"130 steps, but 130 of warm-up and 13 of decay do not fit.*warmup_steps=13"):
        make_plan(model, TrainConfig.paper(allow_short_runs=False), 136_000_000)


def test_too_few_steps_are_refused_with_the_fix() -> None:
    model = ModelConfig.olmo2("30M")
    with pytest.raises(ConfigError, match=r"D=30000000 is 29 steps.*under 100.*batch_tokens=299008") as caught:
        make_plan(model, TrainConfig(seq_len=4096, batch_tokens=2**20, warmup_steps=2000), [30_000_000, 60_000_000])
    assert "2000 of warm-up" in str(caught.value), "all problems come at once"
    fixed = TrainConfig(seq_len=4096, batch_tokens=299_008)
    assert make_plan(model, fixed, [30_000_000, 60_000_000]).steps(30_000_000) >= 100


def test_plan_refuses_a_context_beyond_the_models() -> None:
    with pytest.raises(ConfigError, match="seq_len=8192 exceeds the model's max_seq_len=4096"):
        make_plan(ModelConfig.olmo2("30M"), TrainConfig(seq_len=8192), 10**9)


@pytest.mark.parametrize("tokens", [[], 0, [1], "many"])
def test_d_must_be_a_count(tokens: object) -> None:
    with pytest.raises(ConfigError, match=r"tokens|every D"):
        make_plan(ModelConfig.olmo2("30M"), TrainConfig(), tokens)  # type: ignore[arg-type]


def test_all_problems_of_a_config_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(seq_len=64, batch_tokens=100, schedule="linear", learning_rate=-1, final_rate=2)  # type: ignore[arg-type]
    text = str(caught.value)
    for part in ("batch_tokens=100 is no multiple of seq_len=64: try 128", "'wsd-s'", "learning_rate", "final_rate"):
        assert part in text


def test_bf16_true_is_refused_by_default() -> None:
    with pytest.raises(ConfigError, match=r"RMSNorm gains.*precision='bf16'"):
        TrainConfig(precision="bf16-true")
    assert TrainConfig(precision="bf16-true", allow_bf16_true=True).precision == "bf16-true"


def test_wsd_s_reproduces_the_papers_steps() -> None:
    plan = make_plan(ModelConfig.olmo2("136M"), TrainConfig.paper(), [tokens for tokens, *_ in PAPER_136M])
    assert plan.config.warmup_steps == 130
    assert [segment.stop for segment in plan.segments] == [stop for _, stop, *_ in PAPER_136M]
    last = plan.segments[-1]
    assert plan.learning_rate(last, last.decay_start - 1) == 3e-4, "the rate jumps back to the peak after each decay"
    assert plan.learning_rate(last, last.stop - 1) == pytest.approx(6e-5, rel=1e-3)


def test_wsd_s_reproduces_the_derived_table(shared_data: Path) -> None:
    with open(shared_data.parent / "paper" / "tables" / "checkpoint_schedule_derived.csv") as file:
        rows = list(csv.DictReader(file))
    for name in ("136M", "233M", "728M", "1B", "3B"):
        # checkpoints that overwrite an earlier one of the same label are artefacts of the paper's code
        published = [row for row in rows if row["model"] == name and not row["note"].startswith("same ratio label")]
        plan = make_plan(ModelConfig.olmo2(name), TrainConfig.paper(), [int(row["tokens"]) for row in published])
        for row, segment in zip(published, plan.segments, strict=True):
            assert segment.stop == int(row["end_step"]), (name, row["label"])
            decay = segment.stop - max(segment.decay_start, min(2000, plan.config.warmup_steps or 0))
            assert decay == pytest.approx(int(row["decay_steps"]), abs=1), (name, row["label"])


def test_cosine_runs_every_d_from_the_start() -> None:
    model = ModelConfig.custom(n_layers=1, d_model=16, n_heads=2, d_ff=16, vocab_size=16)
    config = TrainConfig(seq_len=16, batch_tokens=16, schedule="cosine", final_rate=0.1, learning_rate=1.0)
    plan = make_plan(model, config, [3200, 6400])
    assert [(segment.start, segment.parent) for segment in plan.segments] == [(0, None), (0, None)]
    assert plan.learning_rate(plan.segments[0], 199) == pytest.approx(0.1, abs=0.01)
    middle = plan.config.warmup_steps + (200 - plan.config.warmup_steps) // 2
    assert plan.learning_rate(plan.segments[0], middle) == pytest.approx(0.55, abs=0.01)


def test_dry_run_sums_to_the_run() -> None:
    model = ModelConfig.olmo2("30M")
    table = dry_run(model, TrainConfig(seq_len=4096), RATIOS, ratios=True)
    assert list(table["D/N"]) == list(RATIOS)
    plan = make_plan(model, TrainConfig(seq_len=4096), [ratio * model.n_params for ratio in RATIOS])
    assert table["trained_tokens"].sum() == plan.tokens_trained
    assert table["flops"].sum() == plan.tokens_trained * model.flops(4096)
    # one H100 at 40 % of 989 TFLOP/s
    assert table["hours"].sum() == pytest.approx(plan.tokens_trained * model.flops(4096) / (0.4 * 989e12) / 3600)
    eight = dry_run(model, TrainConfig(seq_len=4096), RATIOS, ratios=True, n_devices=8)
    assert eight["hours"].sum() == pytest.approx(table["hours"].sum() / 8)


def test_dry_run_takes_several_models_and_names_devices() -> None:
    models = [ModelConfig.olmo2("30M"), ModelConfig.olmo2("3B")]
    table = dry_run(models, TrainConfig(), 20, ratios=True, device="A100")
    assert list(table["model"]) == ["30M", "3B"]
    # 16 bytes per parameter do not fit in 40 GiB at 3B
    assert table["memory_gib"].iloc[1] > 48
    with pytest.raises(ConfigError, match="H100"):
        dry_run(models, TrainConfig(), 20, ratios=True, device="TPU")
