"""Shapes, counts and FLOPs against published numbers; the model against transformers' own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from ragscale.errors import ConfigError
from ragscale.training import ModelConfig, use_ragscale_attention

# core, one embedding, total if tied, total untied: table 3 of arXiv 2604.00715 and its code
PAPER = {
    "30M": (5_251_328, 25_690_112, 30_941_440, 56_631_552),
    "136M": (33_571_328, 51_380_224, 84_951_552, 136_331_776),
    "233M": (104_899_200, 64_225_280, 169_124_480, 233_349_760),
    "728M": (471_952_640, 128_450_560, 600_403_200, 728_853_760),
    "1B": (761_402_752, 141_295_616, 902_698_368, 1_043_993_984),
    "3B": (2_726_566_400, 256_901_120, 2_983_467_520, 3_240_368_640),
}
# millions of non-embedding parameters that OLMo-core's configurations report at V = 100,352
OLMO_CORE = {
    "30M": 29.1,
    "60M": 57.4,
    "100M": 101.7,
    "190M": 190.4,
    "370M": 371.3,
    "600M": 597.4,
    "760M": 758.2,
    "1B": 1413.6,
    "1B_v2": 1279.4,
    "3B": 3169.5,
}


@pytest.mark.parametrize("name", PAPER)
def test_counts_are_the_papers(name: str) -> None:
    core, embedding, tied, untied = PAPER[name]
    model = ModelConfig.olmo2(name)
    assert (model.n_core, model.n_embed, model.n_head) == (core, embedding, embedding)
    assert model.n_params == tied
    assert model.n_params_total == untied
    assert ModelConfig.olmo2(name, tied=True).n_params_total == tied


@pytest.mark.parametrize("name", OLMO_CORE)
def test_counts_are_olmo_cores(name: str) -> None:
    assert round(ModelConfig.olmo_core(name).n_params / 1e6, 1) == OLMO_CORE[name]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shape", [{}, {"n_kv_heads": 1}, {"head_dim": 6}])
def test_counts_are_those_of_the_built_model(tied: bool, shape: dict[str, int]) -> None:
    model = ModelConfig.custom(n_layers=2, d_model=24, n_heads=2, d_ff=40, vocab_size=50, tied=tied, **shape)
    assert sum(p.numel() for p in model.build().parameters()) == model.n_params_total


def test_flops_are_litgpts_measure_flops() -> None:
    # litgpt 0.5.13 measured 11,010,048 FLOPs per token for this shape on the meta device
    model = ModelConfig.custom(n_layers=4, d_model=128, n_heads=4, d_ff=512, vocab_size=4096, max_seq_len=256)
    assert model.flops(256) == model.flops_per_token == 11_010_048


def test_flop_conventions_differ_as_published() -> None:
    # 6ND is off by 59 % at 30M and T = 4096, and by -18 % at 3B
    small, large = ModelConfig.olmo2("30M"), ModelConfig.olmo2("3B")
    assert small.flops(4096) == pytest.approx(0.286e9, rel=2e-3)
    assert large.flops(4096) == pytest.approx(21.2e9, rel=2e-3)
    assert small.flops(4096, "6N") == 6 * small.n_params
    assert small.flops(4096, "6N_total") == 6 * small.n_params_total
    assert small.flops(4096) - small.flops(4096, "causal") == 6 * 8 * 256 * 4096
    assert small.flops(4096) / small.flops(4096, "6N") == pytest.approx(1.54, abs=0.01)


def test_unknown_names_and_conventions_list_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'7B'.*30M, 136M"):
        ModelConfig.olmo2("7B")
    with pytest.raises(ConfigError, match="1B_v2"):
        ModelConfig.olmo_core("2B")
    with pytest.raises(ConfigError, match="'6N_total'"):
        ModelConfig.olmo2("30M").flops(10, "chinchilla")  # type: ignore[arg-type]


def test_all_problems_of_a_shape_come_at_once() -> None:
    with pytest.raises(ConfigError, match=r"n_layers.*got 0.*vocab_size.*got 1\.5"):
        ModelConfig.custom(n_layers=0, d_model=8, n_heads=2, d_ff=8, vocab_size=1.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"d_model=10.*n_heads=4"):
        ModelConfig.custom(n_layers=1, d_model=10, n_heads=4, d_ff=8, vocab_size=8)
    with pytest.raises(ConfigError, match="n_kv_heads=3"):
        ModelConfig.custom(n_layers=1, d_model=16, n_heads=4, d_ff=8, vocab_size=8, n_kv_heads=3)


def test_config_survives_its_dictionary() -> None:
    model = ModelConfig.olmo2("1M", tied=True)
    assert ModelConfig.from_dict({**model.to_dict(), "from_the_future": 1}) == model


def test_weights_depend_on_seed_shape_and_name_only() -> None:
    model = ModelConfig.custom(n_layers=2, d_model=16, n_heads=2, d_ff=16, vocab_size=32)
    state = torch.get_rng_state()
    first, again, other = model.build(seed=3), model.build(seed=3), model.build(seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    for (name, a), b, c in zip(first.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert torch.equal(a, c) == (a.ndim == 1)
    deeper = ModelConfig.custom(n_layers=3, d_model=16, n_heads=2, d_ff=16, vocab_size=32).build(seed=3)
    assert torch.equal(first.lm_head.weight, deeper.lm_head.weight)
    # sqrt(2 / (5 * 16)), cut off at three times that, which takes 1.3 % off
    assert first.lm_head.weight.std().item() == pytest.approx(0.158, rel=0.06)
    assert first.lm_head.weight.abs().max() <= 3 * 0.1582
    fixed = ModelConfig.custom(n_layers=1, d_model=16, n_heads=2, d_ff=16, vocab_size=512, init_std=0.02).build()
    assert fixed.lm_head.weight.std().item() == pytest.approx(0.0197, rel=0.03)
    assert fixed.config.initializer_range == 0.02


def test_ragscale_attention_equals_transformers_own() -> None:
    model = ModelConfig.custom(n_layers=2, d_model=32, n_heads=4, d_ff=32, vocab_size=32, n_kv_heads=2).build()
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 32, (2, 12)))
    expected = model(ids).logits
    use_ragscale_attention(model)
    torch.testing.assert_close(model(ids).logits, expected, atol=1e-6, rtol=0)
    assert "ragscale" not in model.config.to_json_string()


def test_ragscale_attention_refuses_a_padding_mask() -> None:
    model = ModelConfig.custom(n_layers=1, d_model=16, n_heads=2, d_ff=16, vocab_size=16).build()
    use_ragscale_attention(model)
    with pytest.raises(ValueError, match="padding mask"):
        model(torch.zeros(1, 4, dtype=torch.long), attention_mask=torch.ones(1, 4))


def test_compiled_attention_sees_no_dense_mask() -> None:
    model = ModelConfig.custom(n_layers=1, d_model=16, n_heads=2, d_ff=16, vocab_size=16).build().model
    use_ragscale_attention(model)
    nodes: list[object] = []

    def keep(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> object:
        nodes.extend(graph.graph.nodes)
        return graph.forward

    torch.compile(model, backend=keep, fullgraph=True)(torch.zeros(1, 8, dtype=torch.long), use_cache=False)
    [attention] = [node for node in nodes if "scaled_dot_product" in str(node.target)]
    assert attention.kwargs["is_causal"] is True
    assert attention.kwargs["attn_mask"] is None
    torch._dynamo.reset()


def test_pad_token_is_no_real_token() -> None:
    hf = ModelConfig.custom(n_layers=1, d_model=16, n_heads=2, d_ff=16, vocab_size=16).to_hf()
    assert hf.pad_token_id is None
    assert hf.rms_norm_eps == 1e-6
    assert hf.rope_parameters["rope_theta"] == 500_000


def test_counts_load_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, ragscale.training as t; m = t.ModelConfig.olmo2('30M'); m.flops_per_token;"
        "t.make_plan(m, t.TrainConfig(), 10**9);"
        "print(sorted({'torch', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
