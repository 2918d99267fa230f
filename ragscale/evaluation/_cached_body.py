"""Any Hugging Face model in two steps, through its own cache of keys and values."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class CachedBody:
    """The base model of a Hugging Face causal LM, as `_steps.Body`."""

    def __init__(self, module: Any) -> None:
        self.module = module.base_model
        accepted = inspect.signature(type(self.module).forward).parameters
        self.argument = "cache" if "cache" in accepted else "past_key_values"  # renamed in transformers 5.24

    def __call__(
        self,
        tokens_BL: torch.Tensor,
        needed_BN: torch.Tensor | None,
        *,
        positions_BL: torch.Tensor | None = None,
        mask_BLK: torch.Tensor | None = None,
        before: Any = None,
        keep: bool = False,
    ) -> tuple[torch.Tensor, Any]:
        """Return hidden states at the needed columns, and the cache."""
        import torch
        from transformers.cache_utils import DynamicCache

        options: dict[str, Any] = {"use_cache": keep or before is not None}
        cache = before if before is not None else DynamicCache() if keep else None
        if cache is not None:
            options[self.argument] = cache
        if mask_BLK is not None:
            dtype = next(self.module.parameters()).dtype
            mask = torch.zeros(mask_BLK.shape, dtype=dtype, device=mask_BLK.device)
            options["attention_mask"] = mask.masked_fill_(~mask_BLK, torch.finfo(dtype).min)[:, None]
        if positions_BL is not None:
            options["position_ids"] = positions_BL
        hidden_BLD = self.module(input_ids=tokens_BL, **options).last_hidden_state
        if needed_BN is not None:
            hidden_BLD = hidden_BLD.gather(1, needed_BN[:, :, None].expand(-1, -1, hidden_BLD.shape[-1]))
        return hidden_BLD, cache
