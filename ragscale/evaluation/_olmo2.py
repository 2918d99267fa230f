"""The forward pass of OLMo-2 models for scoring: causal context, keys and values kept for the branches, last layer cut.

A Hugging Face forward computes every position of every layer under one mask. Here the context runs under plain causal
attention, which needs no mask; the last layer is computed at the positions whose logits are wanted only; and products
may run in a narrower type, while the residual stream, the norms and the rotations stay in float32.

Shape letters: B rows, L tokens of this step, P tokens before it, D width, H heads, G key heads, W width of a head,
N needed positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

_ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")  # all compute one thing

Pair = tuple["torch.Tensor", "torch.Tensor"]
Kept = list[Pair]


class Layer(NamedTuple):
    """The weights of one block: products in the type they run in, norms in float32."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    out: torch.Tensor
    gate: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor
    q_norm: torch.Tensor
    k_norm: torch.Tensor
    after_attention: torch.Tensor
    after_mlp: torch.Tensor
    head_dim: int
    eps: float


class Olmo2Body:
    """The weights of an `Olmo2ForCausalLM`, and its hidden states at the positions that are asked for.

    Parameters
    ----------
    module : Olmo2ForCausalLM
        In float32. See `fits` for what is understood.
    dtype : torch.dtype
        Of the products; the hidden states that come out are float32. In float32 the module's own weights are used,
        in a narrower type copies of them.
    """

    def __init__(self, module: Any, dtype: torch.dtype) -> None:
        body, config = module.base_model, module.config
        self.dtype, self.embedding, self.final_norm = dtype, body.embed_tokens.weight, body.norm.weight
        self.rotary, self.eps = body.rotary_emb, float(config.rms_norm_eps)
        self.layers = [
            Layer(
                a.q_proj.weight.to(dtype),
                a.k_proj.weight.to(dtype),
                a.v_proj.weight.to(dtype),
                a.o_proj.weight.to(dtype),
                layer.mlp.gate_proj.weight.to(dtype),
                layer.mlp.up_proj.weight.to(dtype),
                layer.mlp.down_proj.weight.to(dtype),
                a.q_norm.weight,
                a.k_norm.weight,
                layer.post_attention_layernorm.weight,
                layer.post_feedforward_layernorm.weight,
                a.head_dim,
                self.eps,
            )
            for layer in body.layers
            for a in (layer.self_attn,)
        ]
        self.block = self.causal_block = _block

    @staticmethod
    def fits(module: Any) -> bool:
        """Whether this file knows the module: OLMo-2 in float32, no biases, hooks, adapters or attention of its own."""
        import torch

        if type(module).__name__ != "Olmo2ForCausalLM" or not type(module).__module__.startswith("transformers."):
            return False
        config = module.config
        plain = all(type(part) is torch.nn.Linear for part in module.modules() if isinstance(part, torch.nn.Linear))
        hooked = any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
        return (
            plain
            and not hooked
            and config._attn_implementation in _ATTENTION
            and not config.attention_bias
            and config.hidden_act == "silu"
            and all(parameter.dtype == torch.float32 for parameter in module.parameters())
        )

    def compile(self) -> None:
        """Compile the block under causal attention, once for all layers, batches and lengths.

        The branches and the last layer are a small part of the work, and three graphs take three times as long.
        """
        import torch

        self.causal_block = torch.compile(_block, dynamic=False)

    def __call__(
        self,
        tokens_BL: torch.Tensor,
        needed_BN: torch.Tensor | None,
        *,
        positions_BL: torch.Tensor | None = None,
        mask_BLK: torch.Tensor | None = None,
        before: Kept | None = None,
        keep: bool = False,
    ) -> tuple[torch.Tensor, Kept]:
        """Return the hidden states (B, N, D), or (B, L, D) without ``needed_BN``, and keys and values to go on from.

        With a ``mask_BLK`` that is only as wide as the tokens before, the last of those are padding that leaves room:
        the keys and values of these tokens are written in their place.
        """
        import torch

        if positions_BL is None:
            positions_BL = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)[None]
        x_BLD = torch.nn.functional.embedding(tokens_BL, self.embedding)
        cos, sin = (part.expand(len(tokens_BL), -1, -1) for part in self.rotary(x_BLD, positions_BL))
        mask = None if mask_BLK is None else self._additive(mask_BLK)
        kept: Kept = []
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            earlier = before[i] if before is not None else None
            if i == last and needed_BN is not None:
                seen = self._additive(_seen_from(needed_BN, mask_BLK, tokens_BL.shape[1]))
                x_BLD, keys = _last_block(x_BLD, layer, (cos, sin), earlier, seen, needed_BN=needed_BN)
            elif mask is None and earlier is None:
                x_BLD, keys = self._causal(x_BLD, layer, (cos, sin))
            else:
                x_BLD, keys = self.block(x_BLD, layer, (cos, sin), earlier, mask)
            if keep:
                kept.append(keys)
        return torch.nn.functional.rms_norm(x_BLD, x_BLD.shape[-1:], self.final_norm, self.eps), kept

    def _causal(self, x_BLD: torch.Tensor, layer: Layer, rotation: Pair) -> tuple[torch.Tensor, Pair]:
        if self.causal_block is _block:
            return self.block(x_BLD, layer, rotation, None, None)
        import torch

        for tensor in (x_BLD, *rotation):
            torch._dynamo.maybe_mark_dynamic(tensor, [0, 1])
        return self.causal_block(x_BLD, layer, rotation, None, None)

    def _additive(self, mask_BLK: torch.Tensor) -> torch.Tensor:
        """Return the mask that attention adds, (B, 1, L, K): 0 where a token may look."""
        import torch

        mask = torch.zeros(mask_BLK.shape, dtype=self.dtype, device=mask_BLK.device)
        return mask.masked_fill_(~mask_BLK, float("-inf"))[:, None]


def _seen_from(needed_BN: torch.Tensor, mask_BLK: torch.Tensor | None, length: int) -> torch.Tensor:
    """Return what the needed columns may see, (B, N, K): their rows of the mask, or what stands up to them."""
    import torch

    if mask_BLK is not None:
        return _columns(mask_BLK, needed_BN)
    return torch.arange(length, device=needed_BN.device)[None, None] <= needed_BN[:, :, None]


def _block(
    x_BLD: torch.Tensor, layer: Layer, rotation: Pair, before: Pair | None, mask: torch.Tensor | None
) -> tuple[torch.Tensor, Pair]:
    """Return the residual stream after one block, and its keys and values (B, G, P + L, W)."""
    import torch

    narrow_BLD = x_BLD.to(layer.query.dtype)
    query_BHLW = _rotated(torch.nn.functional.linear(narrow_BLD, layer.query), layer.q_norm, layer, rotation)
    keys = _keys_and_values(narrow_BLD, layer, rotation, before, mask)
    return _after_attention(x_BLD, _attention(query_BHLW, *keys, mask), layer), keys


def _last_block(
    x_BLD: torch.Tensor,
    layer: Layer,
    rotation: Pair,
    before: Pair | None,
    mask: torch.Tensor,
    *,
    needed_BN: torch.Tensor,
) -> tuple[torch.Tensor, Pair]:
    """Return the residual stream after the last block at needed columns (B, N, D), and keys and values of all."""
    import torch

    narrow_BLD = x_BLD.to(layer.query.dtype)
    keys = _keys_and_values(narrow_BLD, layer, rotation, before, mask)
    x_BND = _columns(x_BLD, needed_BN)
    query_BNQ = torch.nn.functional.linear(x_BND.to(narrow_BLD.dtype), layer.query)
    there = (_columns(rotation[0], needed_BN), _columns(rotation[1], needed_BN))
    query_BHNW = _rotated(query_BNQ, layer.q_norm, layer, there)
    return _after_attention(x_BND, _attention(query_BHNW, *keys, mask), layer), keys


def _keys_and_values(
    narrow_BLD: torch.Tensor, layer: Layer, rotation: Pair, before: Pair | None, mask: torch.Tensor | None
) -> Pair:
    """Return the keys and values of the tokens before and of these."""
    from torch import cat
    from torch.nn.functional import linear

    key_BGKW = _rotated(linear(narrow_BLD, layer.key), layer.k_norm, layer, rotation)
    value_BGKW = linear(narrow_BLD, layer.value).unflatten(-1, (-1, layer.head_dim)).transpose(1, 2)
    if before is None:
        return key_BGKW, value_BGKW
    if mask is not None and mask.shape[-1] == before[0].shape[2]:
        for all_of_them, new in zip(before, (key_BGKW, value_BGKW), strict=True):
            all_of_them[:, :, -new.shape[2] :] = new
        return before
    return cat((before[0], key_BGKW), dim=2), cat((before[1], value_BGKW), dim=2)


def _after_attention(x_BLD: torch.Tensor, seen_BHLW: torch.Tensor, layer: Layer) -> torch.Tensor:
    from torch.nn.functional import linear, rms_norm, silu

    size = x_BLD.shape[-1:]
    mixed = linear(seen_BHLW.transpose(1, 2).flatten(2), layer.out)
    x_BLD = x_BLD + rms_norm(mixed.float(), size, layer.after_attention, layer.eps)
    narrow = x_BLD.to(layer.gate.dtype)
    hidden = silu(linear(narrow, layer.gate)) * linear(narrow, layer.up)
    return x_BLD + rms_norm(linear(hidden, layer.down).float(), size, layer.after_mlp, layer.eps)


def _rotated(part_BLQ: torch.Tensor, norm: torch.Tensor, layer: Layer, rotation: Pair) -> torch.Tensor:
    """Return normalised and rotated queries or keys, (B, heads, L, W), in the type they came in."""
    import torch

    wide = torch.nn.functional.rms_norm(part_BLQ.float(), part_BLQ.shape[-1:], norm, layer.eps)
    wide = wide.unflatten(-1, (-1, layer.head_dim))
    left, right = wide.chunk(2, dim=-1)
    cos, sin = (part.unsqueeze(2) for part in rotation)
    turned = wide * cos + torch.cat((-right, left), dim=-1) * sin
    return turned.to(part_BLQ.dtype).transpose(1, 2)


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    import torch

    times = query.shape[1] // key.shape[1]
    if times > 1:
        key, value = (part.repeat_interleave(times, dim=1) for part in (key, value))
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)


def _columns(x_BLD: torch.Tensor, columns_BN: torch.Tensor) -> torch.Tensor:
    return x_BLD.gather(1, columns_BN[:, :, None].expand(-1, -1, x_BLD.shape[-1]))
