"""Attention for training: causal without a dense mask, or within documents, on transformers' own modules.

Stock transformers under torch.compile always hands scaled_dot_product_attention a dense (B, 1, T, T) mask
(transformers issue 48925), which rules out FlashAttention. Registered here under the name "ragscale" is a function
that passes ``is_causal=True`` and no mask. The name is set on the live model only: config.json never mentions it.

B batch, H heads, T tokens, K width of a head.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch.nn import functional as F

NAME = "ragscale"


class TransformersModel(Protocol):
    """A model of transformers, as far as `use_ragscale_attention` goes."""

    def set_attn_implementation(self, name: Any, /) -> None: ...


def use_ragscale_attention(model: TransformersModel) -> None:
    """Make a transformers model attend through ragscale's function: causal, with no mask in memory.

    For training on packed tokens only. A padding mask is refused rather than ignored.
    """
    from transformers.masking_utils import AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _no_mask)
    model.set_attn_implementation(NAME)


def _no_mask(*_: Any, attention_mask: torch.Tensor | None = None, **__: Any) -> None:
    if attention_mask is not None:
        raise ValueError(
            "ragscale's training attention takes no padding mask: load the checkpoint with "
            "AutoModelForCausalLM.from_pretrained, which uses transformers' own attention"
        )


def _attend(
    module: torch.nn.Module,
    q_BHTK: torch.Tensor,
    k_BHTK: torch.Tensor,
    v_BHTK: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    documents: Any = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend causally; ``documents`` is None, a bool mask (B, 1, T, T), or a FlexAttention BlockMask."""
    groups = q_BHTK.shape[1] // k_BHTK.shape[1]
    if documents is None or isinstance(documents, torch.Tensor):
        if groups > 1:
            k_BHTK, v_BHTK = k_BHTK.repeat_interleave(groups, 1), v_BHTK.repeat_interleave(groups, 1)
        out_BHTK = F.scaled_dot_product_attention(
            q_BHTK, k_BHTK, v_BHTK, attn_mask=documents, dropout_p=dropout, is_causal=documents is None, scale=scaling
        )
    else:
        from torch.nn.attention.flex_attention import flex_attention

        out_BHTK = flex_attention(q_BHTK, k_BHTK, v_BHTK, block_mask=documents, scale=scaling, enable_gqa=groups > 1)
    return out_BHTK.transpose(1, 2), None


def document_mask(ids_BT: torch.Tensor, eos_id: int, *, flex: bool = False) -> Any:
    """Return the mask under which a token sees the tokens before it in its own document, and no others.

    Parameters
    ----------
    ids_BT : tensor (B, T)
        Token ids; a document ends with ``eos_id``, which belongs to it.
    eos_id : int
        The end-of-document token.
    flex : bool
        Return a FlexAttention BlockMask, which skips empty blocks on CUDA, instead of a bool tensor (B, 1, T, T).
    """
    ends_BT = (ids_BT == eos_id).int()
    documents_BT = ends_BT.cumsum(1) - ends_BT
    n_batch, n_tokens = ids_BT.shape
    if not flex:
        position_T = torch.arange(n_tokens, device=ids_BT.device)
        same_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]
        return (same_BTT & (position_T[:, None] >= position_T[None, :]))[:, None]
    from torch.nn.attention.flex_attention import create_block_mask

    def visible(b: Any, h: Any, query: Any, key: Any) -> Any:
        return (documents_BT[b, query] == documents_BT[b, key]) & (query >= key)

    return create_block_mask(visible, n_batch, None, n_tokens, n_tokens, device=str(ids_BT.device))
