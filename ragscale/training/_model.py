"""Shapes of OLMo-2 decoders: the ladders, how parameters and FLOPs are counted, and the Hugging Face model itself."""

from __future__ import annotations

import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from ragscale._counts import whole_or_same
from ragscale._extras import require
from ragscale.errors import ConfigError

if TYPE_CHECKING:
    from transformers.models.olmo2.configuration_olmo2 import Olmo2Config
    from transformers.models.olmo2.modeling_olmo2 import Olmo2ForCausalLM

FlopConvention = Literal["mfu", "causal", "6N", "6N_total"]

# layers, width, heads, feed-forward width
PAPER = {
    "30M": (8, 256, 4, 512),
    "136M": (8, 512, 8, 2048),
    "233M": (16, 640, 10, 2560),
    "728M": (18, 1280, 10, 5120),
    "1B": (24, 1408, 11, 5632),
    "3B": (26, 2560, 20, 10240),
}
# rungs that a CPU can train, with the vocabulary that goes with them
CPU = {
    "0.05M": (2, 32, 1, 64, 1024),
    "0.15M": (2, 64, 2, 128, 1024),
    "0.5M": (2, 96, 3, 256, 2048),
    "1M": (2, 128, 2, 512, 2048),
    "2.5M": (3, 192, 3, 512, 4096),
    "6M": (4, 256, 4, 1024, 4096),
    "13M": (5, 320, 5, 1280, 8192),
}
OLMO_CORE = {
    "30M": (4, 256, 8, 768),
    "60M": (8, 384, 8, 1536),
    "100M": (12, 512, 8, 2048),
    "190M": (12, 768, 12, 3072),
    "370M": (16, 1024, 16, 4096),
    "600M": (16, 1344, 16, 5376),
    "760M": (16, 1536, 16, 6144),
    "1B": (18, 2048, 16, 8192),
    "1B_v2": (16, 2048, 16, 8192),
    "3B": (16, 3328, 16, 13312),
}
OLMO2_VOCABULARY = 100_352


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The shape of an OLMo-2 decoder.

    Take a shape by name (`olmo2`, `olmo_core`) or write your own (`custom`). The class is light: counts need no
    torch; `build` makes transformers' ``Olmo2ForCausalLM``.

    Parameters
    ----------
    n_layers, d_model, n_heads, d_ff : int
        Blocks, width, attention heads, width of the SwiGLU feed-forward.
    vocab_size : int
        Rows of the embedding and of the output head; at least the tokenizer's size.
    n_kv_heads : int or None
        Heads of keys and values; None means ``n_heads``.
    head_dim : int or None
        Width of one head; None means ``d_model // n_heads``.
    tied : bool
        Share the embedding with the output head. The paper and OLMo-2 do not.
    max_seq_len : int
        Longest context in tokens; training may use a shorter one.
    rope_theta, norm_eps : float
        OLMo-2's values by default.
    init_std : float or None
        Matrices start as a normal distribution of this deviation, cut off at three times it. None: sqrt(2 / (5 d)), as
        in the paper. OLMo-2's fixed 0.02 is about that at its widths, but leaves a narrow model's embeddings too small
        to be heard beside its normalised blocks.
    name : str
        Appears in tables and plots.

    Examples
    --------
    >>> model = ModelConfig.olmo2("30M")
    >>> model.n_core, model.n_embed, model.n_params, model.n_params_total
    (5251328, 25690112, 30941440, 56631552)
    """

    n_layers: int
    d_model: int
    n_heads: int
    d_ff: int
    vocab_size: int
    n_kv_heads: int | None = None
    head_dim: int | None = None
    tied: bool = False
    max_seq_len: int = 4096
    rope_theta: float = 500_000.0
    norm_eps: float = 1e-6
    init_std: float | None = None
    name: str = "custom"

    def __post_init__(self) -> None:
        for name in ("n_layers", "d_model", "n_heads", "d_ff", "vocab_size", "n_kv_heads", "head_dim", "max_seq_len"):
            object.__setattr__(self, name, whole_or_same(getattr(self, name)))
        problems = [
            f"{name} must be a whole number of at least 1, got {getattr(self, name)!r}"
            for name in ("n_layers", "d_model", "n_heads", "d_ff", "vocab_size", "max_seq_len")
            if not _is_count(getattr(self, name))
        ]
        problems += [
            f"{name} must be None or a whole number of at least 1, got {getattr(self, name)!r}"
            for name in ("n_kv_heads", "head_dim")
            if getattr(self, name) is not None and not _is_count(getattr(self, name))
        ]
        if not problems:
            if self.head_dim is None and self.d_model % self.n_heads:
                problems.append(f"d_model={self.d_model} is no multiple of n_heads={self.n_heads}: give head_dim")
            elif self._head_dim % 2:
                problems.append(f"rotary embeddings need an even width per head, got {self._head_dim}")
            if self.n_heads % self._kv_heads:
                problems.append(f"n_heads={self.n_heads} is no multiple of n_kv_heads={self.n_kv_heads}")
        if problems:
            raise ConfigError("this model cannot be built: " + "; ".join(problems))

    @classmethod
    def olmo2(cls, name: str, *, vocab_size: int | None = None, **changes: object) -> ModelConfig:
        """Return a shape of the paper's family (30M to 3B) or a rung for CPUs (0.05M to 13M) by name.

        Parameters
        ----------
        name : str
            "30M", "136M", "233M", "728M", "1B", "3B" (the paper's labels), or "0.05M", "0.15M", "0.5M", "1M", "2.5M",
            "6M", "13M".
        vocab_size : int or None
            None takes 100,352 (OLMo-2's) for the paper's shapes and 1,024 to 8,192 for the CPU rungs.
        **changes
            Any other field of `ModelConfig`, e.g. ``tied=True``.

        Notes
        -----
        The paper labels its smallest model with core + head (30.9M) and all others with the untied total; read
        ``n_params`` and ``n_params_total`` rather than the label.

        Raises
        ------
        ConfigError
            For an unknown name; the message lists the known ones.
        """
        if name in PAPER:
            shape, vocabulary = PAPER[name], OLMO2_VOCABULARY
        elif name in CPU:
            *shape, vocabulary = CPU[name]
        else:
            known = ", ".join([*CPU, *PAPER])
            raise ConfigError(
                f"no OLMo-2 shape is called {name!r}: choose from {known}, or use ModelConfig.custom(...)"
            )
        return cls._of(shape, vocab_size=vocabulary if vocab_size is None else vocab_size, name=name, **changes)

    @classmethod
    def olmo_core(cls, name: str, *, vocab_size: int = OLMO2_VOCABULARY, **changes: object) -> ModelConfig:
        """Return a rung of OLMo-core's own ladder, "30M" to "3B"; its names count core + head at V = 100,352.

        Raises
        ------
        ConfigError
            For an unknown name; the message lists the known ones.
        """
        if name not in OLMO_CORE:
            raise ConfigError(f"OLMo-core's ladder has no {name!r}: choose from {', '.join(OLMO_CORE)}")
        return cls._of(OLMO_CORE[name], vocab_size=vocab_size, name=f"olmo-core-{name}", **changes)

    @classmethod
    def custom(
        cls, *, n_layers: int, d_model: int, n_heads: int, d_ff: int, vocab_size: int, **changes: object
    ) -> ModelConfig:
        """Return any other shape; the keywords are the fields of `ModelConfig`."""
        return cls._of((n_layers, d_model, n_heads, d_ff), vocab_size=vocab_size, **changes)

    @classmethod
    def _of(cls, shape: Any, **rest: Any) -> ModelConfig:
        n_layers, d_model, n_heads, d_ff = shape
        return cls(**{"n_layers": n_layers, "d_model": d_model, "n_heads": n_heads, "d_ff": d_ff, **rest})

    @property
    def _head_dim(self) -> int:
        return self.d_model // self.n_heads if self.head_dim is None else self.head_dim

    @property
    def _kv_heads(self) -> int:
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def _init_std(self) -> float:
        return (2 / (5 * self.d_model)) ** 0.5 if self.init_std is None else self.init_std

    @property
    def _d_attention(self) -> int:
        return self.n_heads * self._head_dim

    @property
    def n_matmul(self) -> int:
        """Weights of the blocks that multiply every token: projections and feed-forward, without the head."""
        keys_values = self._kv_heads * self._head_dim
        attention = self.d_model * (2 * self._d_attention + 2 * keys_values)
        return self.n_layers * (attention + 3 * self.d_model * self.d_ff)

    @property
    def n_core(self) -> int:
        """Parameters of the blocks and norms: everything but the embedding and the output head."""
        gains = self.n_layers * (2 * self.d_model + self._d_attention + self._kv_heads * self._head_dim) + self.d_model
        return self.n_matmul + gains

    @property
    def n_embed(self) -> int:
        """Parameters of the input embedding."""
        return self.vocab_size * self.d_model

    @property
    def n_head(self) -> int:
        """Parameters of the output head; when tied they are the embedding's, counted here as well."""
        return self.vocab_size * self.d_model

    @property
    def n_params(self) -> int:
        """N: core + output head, OLMo-core's count, whose exponents are stable down to small sizes."""
        return self.n_core + self.n_head

    @property
    def n_params_total(self) -> int:
        """Every parameter that is stored: core + embedding + head, the last two once when tied."""
        return self.n_core + self.n_embed + (0 if self.tied else self.n_head)

    @property
    def flops_per_token(self) -> int:
        """Training FLOPs per token at the longest context, in the convention of MFU (`flops`)."""
        return self.flops(self.max_seq_len)

    def flops(self, seq_len: int, convention: FlopConvention = "mfu") -> int:
        """Return the training FLOPs (forward and backward) per token.

        Parameters
        ----------
        seq_len : int
            Tokens of context T.
        convention : {"mfu", "causal", "6N", "6N_total"}
            ``"mfu"``: 6 x (block matrices + head) + 12 L d T, the full square of attention (PaLM, litgpt, nanochat).
            ``"causal"``: the same with 6 L d T, the half that a causal kernel computes. ``"6N"``: 6 x (core + head),
            ``"6N_total"``: 6 x all parameters; neither sees attention.

        References
        ----------
        Chowdhery et al. 2022, arXiv 2204.02311, appendix B; Kaplan et al. 2020, arXiv 2001.08361, section 2.1.

        Examples
        --------
        >>> ModelConfig.custom(n_layers=4, d_model=128, n_heads=4, d_ff=512, vocab_size=4096).flops(256)
        11010048
        """
        if convention in {"mfu", "causal"}:
            per_pair = 12 if convention == "mfu" else 6
            return 6 * (self.n_matmul + self.n_head) + per_pair * self.n_layers * self._d_attention * seq_len
        if convention == "6N":
            return 6 * self.n_params
        if convention == "6N_total":
            return 6 * self.n_params_total
        raise ConfigError(f"convention must be 'mfu', 'causal', '6N' or '6N_total', got {convention!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-able dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Make a config from what `to_dict` returned; keys of newer versions are ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})

    def to_hf(self, *, eos_token_id: int | None = None) -> Olmo2Config:
        """Return transformers' config of this shape.

        ``pad_token_id`` is None: transformers' default of 1 would freeze the embedding of a real token at zero.
        """
        transformers = require("transformers", "train")
        return transformers.Olmo2Config(
            vocab_size=self.vocab_size,
            hidden_size=self.d_model,
            intermediate_size=self.d_ff,
            num_hidden_layers=self.n_layers,
            num_attention_heads=self.n_heads,
            num_key_value_heads=self._kv_heads,
            head_dim=self._head_dim,
            max_position_embeddings=self.max_seq_len,
            rms_norm_eps=self.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            tie_word_embeddings=self.tied,
            initializer_range=self._init_std,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=eos_token_id,
            use_cache=True,
        )

    def build(self, *, seed: int = 0, eos_token_id: int | None = None) -> Olmo2ForCausalLM:
        """Make the float32 model on the CPU with weights that depend only on the shape, the seed and their names.

        Each matrix has its own generator, so a weight does not change when another is added or the order changes, and
        no global random state is read or set. Matrices follow a normal distribution of ``init_std`` cut off at three
        times it, gains are one.

        References
        ----------
        Nguyen and Salazar 2019, arXiv 1910.05895, section 2.2 (sqrt(2 / (5 d))).
        """
        torch = require("torch", "train")
        olmo2 = require("transformers.models.olmo2.modeling_olmo2", "train")
        import numpy as np

        config = self.to_hf(eos_token_id=eos_token_id)
        with torch.device("meta"):
            model = olmo2.Olmo2ForCausalLM(config)
        model.to_empty(device="cpu")
        # the rotary frequencies are buffers computed in the constructor, which left them on the meta device
        model.model.rotary_emb = olmo2.Olmo2RotaryEmbedding(config=config)
        model.tie_weights()
        cut = 3 * self._init_std

        def start(name: str, parameter: Any) -> None:
            with torch.no_grad():
                if parameter.ndim == 1:
                    parameter.fill_(1.0)
                    return
                entropy = np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1, np.uint64)[0]
                generator = torch.Generator().manual_seed(int(entropy) & (2**63 - 1))
                torch.nn.init.trunc_normal_(parameter, std=self._init_std, a=-cut, b=cut, generator=generator)

        # a generator draws one number after the other, and there are as many as matrices
        with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
            list(pool.map(start, *zip(*model.named_parameters(), strict=True)))
        return model


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
