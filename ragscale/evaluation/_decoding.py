"""Greedy answers in batches: a static key-value cache where the model takes one, recomputation everywhere else.

Shape letters: B rows, L longest prompt of the batch, S cache slots (L + new tokens), V vocabulary.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ragscale.evaluation._language_model import Tokens

if TYPE_CHECKING:
    import torch

    from ragscale.evaluation._torch_model import TorchModel

_log = logging.getLogger("ragscale.evaluation")
_ROOM = 16  # a step computes one token a row, so a batch may hold many more rows than when scoring
_LOOK_EVERY = 4  # steps between looks for stop strings; what was written beyond one is cut


class Decoder:
    """Writes greedy continuations with one `TorchModel`."""

    def __init__(self, model: TorchModel) -> None:
        self.model = model
        eos = getattr(model.tokenizer, "eos_token_id", None)
        configured = getattr(getattr(model.module, "generation_config", None), "eos_token_id", None)
        listed = configured if isinstance(configured, list | tuple) else [configured]
        self.eos = {token for token in (eos, *listed) if isinstance(token, int)}
        self.cached = self._cache_works()

    def generate(self, prompts: Sequence[Tokens], max_new_tokens: int, stop: Sequence[str]) -> list[str]:
        """Return the greedy continuation of each prompt, ended before the first stop string."""
        texts = [""] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]), reverse=True)

        def run(rows: Sequence[int]) -> None:
            written = self._write([prompts[row] for row in rows], max_new_tokens, stop)
            for row, text in zip(rows, self.model.decode(written), strict=True):
                texts[row] = cut_at(text, stop)

        self.model.in_batches(order, lambda row: len(prompts[row]) + max_new_tokens, run, times=_ROOM)
        return texts

    def _write(self, prompts: Sequence[Tokens], max_new_tokens: int, stop: Sequence[str]) -> list[list[int]]:
        import torch

        steps = _CachedSteps(self.model, prompts, max_new_tokens) if self.cached else _Recomputed(self.model, prompts)
        written: list[list[int]] = [[] for _ in prompts]
        ended = [False] * len(prompts)
        logits_BV = steps.first()
        for step in range(max_new_tokens):
            tokens_B = logits_BV.argmax(-1)
            for row, token in enumerate(tokens_B.tolist()):
                if not ended[row]:
                    if token in self.eos:
                        ended[row] = True
                    else:
                        written[row].append(token)
            if stop and step % _LOOK_EVERY == _LOOK_EVERY - 1:
                going = [row for row, done in enumerate(ended) if not done]
                for row, text in zip(going, self.model.decode([written[row] for row in going]), strict=True):
                    ended[row] = any(string in text for string in stop)
            if all(ended) or step == max_new_tokens - 1:
                break
            logits_BV = steps.next(torch.as_tensor(tokens_B))
        return written

    def _cache_works(self) -> bool:
        """Compare three cached steps with recomputed ones on prompts of different length."""
        import torch

        model = self.model
        if not hasattr(model.module, "get_input_embeddings") or model.max_length < 12:
            return False
        window = getattr(getattr(model.module, "config", None), "sliding_window", None)
        if isinstance(window, int) and window < model.max_length:
            return False
        n_vocabulary = cast(Any, model.module).get_input_embeddings().weight.shape[0]
        prompts = [tuple((7 * i + 3) % n_vocabulary for i in range(n)) for n in (8, 5)]
        try:
            cached = _CachedSteps(model, prompts, 4)
            plain = _Recomputed(model, prompts)
            pairs = [(cached.first(), plain.first())]
            for token in (1, 2):
                given = torch.full((2,), token % n_vocabulary, device=model.device)
                pairs.append((cached.next(given), plain.next(given)))
        except Exception as error:  # noqa: BLE001 - third-party forwards fail in any way on a cache they do not know
            _log.warning("generation recomputes every step: no static cache (%s: %s)", type(error).__name__, error)
            return False
        scale = max(1.0, float(pairs[0][1].abs().max()))
        tolerance = (1e-4 if pairs[0][0].dtype == torch.float32 else 5e-2) * scale
        works = all(float((a - b).abs().max()) <= tolerance for a, b in pairs)
        if not works:
            _log.warning("generation recomputes every step: a static cache changes this model's logits")
        return works


class _CachedSteps:
    """Prompts padded on the left, keys and values kept in a cache of fixed size."""

    def __init__(self, model: TorchModel, prompts: Sequence[Tokens], max_new_tokens: int) -> None:
        import torch
        from transformers.cache_utils import StaticCache

        self.model, device = model, model.device
        length = max(map(len, prompts))
        self.slots, self.filled = length + max_new_tokens, length
        self.tokens_BL = torch.zeros(len(prompts), length, dtype=torch.long, device=device)
        for row, prompt in enumerate(prompts):
            self.tokens_BL[row, length - len(prompt) :] = torch.tensor(prompt, device=device)
        self.pad_B = torch.tensor([length - len(prompt) for prompt in prompts], device=device)
        module: Any = model.module
        self.cache = StaticCache(config=module.config, max_cache_len=self.slots)
        accepted = inspect.signature(module.forward).parameters
        self.cache_argument = "cache" if "cache" in accepted else "past_key_values"  # renamed in transformers 5.24
        self.dtype = next(module.parameters()).dtype

    def first(self) -> torch.Tensor:
        import torch

        query = torch.arange(self.filled, device=self.model.device)
        return self._step(self.tokens_BL, query)

    def next(self, tokens_B: torch.Tensor) -> torch.Tensor:
        import torch

        query = torch.tensor([self.filled], device=self.model.device)
        self.filled += 1
        return self._step(tokens_B[:, None], query)

    def _step(self, tokens: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        import torch

        slot = torch.arange(self.slots, device=self.model.device)
        real = slot[None, None, :] >= self.pad_B[:, None, None]
        own = slot[None, None, :] == query[None, :, None]  # padding sees itself, so that no row of the mask is empty
        seen = ((slot[None, None, :] <= query[None, :, None]) & real) | own
        mask = torch.zeros(seen.shape, dtype=self.dtype, device=self.model.device)
        mask.masked_fill_(~seen, torch.finfo(self.dtype).min)
        positions = (query[None, :] - self.pad_B[:, None]).clamp(min=0)
        module: Any = self.model.module
        output = module(
            tokens,
            attention_mask=mask[:, None],
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{self.cache_argument: self.cache},
        )
        return output.logits[:, -1]


class _Recomputed:
    """Prompts padded on the right, every step computed anew: right for any causal module."""

    def __init__(self, model: TorchModel, prompts: Sequence[Tokens]) -> None:
        self.model = model
        self.rows = [list(prompt) for prompt in prompts]

    def first(self) -> torch.Tensor:
        import torch

        lengths = [len(row) for row in self.rows]
        tokens = torch.zeros(len(self.rows), max(lengths), dtype=torch.long, device=self.model.device)
        for row, ids in enumerate(self.rows):
            tokens[row, : len(ids)] = torch.tensor(ids, device=self.model.device)
        logits = self.model.logits(tokens)
        last = torch.tensor(lengths, device=self.model.device) - 1
        return logits[torch.arange(len(self.rows), device=self.model.device), last]

    def next(self, tokens_B: torch.Tensor) -> torch.Tensor:
        for row, token in zip(self.rows, tokens_B.tolist(), strict=True):
            row.append(token)
        return self.first()


def cut_at(text: str, stop: Sequence[str]) -> str:
    """Return the text before the first of the stop strings."""
    ends = [text.find(string) for string in stop if string and string in text]
    return text[: min(ends)] if ends else text
