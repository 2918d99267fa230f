"""A PyTorch model as a language model: tree-masked scoring where attention allows it, plain batches everywhere else.

Shape letters: B rows, L row length, P needed positions, D width, V vocabulary.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ragscale.errors import ConfigError
from ragscale.evaluation._decoding import Decoder
from ragscale.evaluation._language_model import LanguageModel, Score, ScoreRequest, Tokens
from ragscale.evaluation._tree import Batch, Row, collate, plain_rows, tree_mask, tree_row

if TYPE_CHECKING:
    import torch

_log = logging.getLogger("ragscale.evaluation")
_LOGITS_AT_ONCE = 2**25  # elements of the float32 logits held at a time: 128 MiB
_PROBES = 4096


class TorchModel(LanguageModel):
    """Evaluate a Hugging Face causal LM, or any module that maps (B, T) token ids to (B, T, V) logits.

    Parameters
    ----------
    module : torch.nn.Module
        Causal: position t may depend on tokens up to t only. It is put into evaluation mode while it is used.
    tokenizer : Hugging Face tokenizer, or any object with ``encode(text)`` and ``decode(ids)``
    max_length : int, optional
        Longest input in tokens; by default the configuration's ``max_position_embeddings``.
    batch_tokens : int, optional
        Tokens in a batch, padding included (1,024 on a CPU, where more than its cache holds is slower; 65,536
        elsewhere). After an out-of-memory error the batch is halved, and stays so.
    add_bos : bool, optional
        Put the tokenizer's BOS token before every prompt; by default what the tokenizer itself does.
    tree : bool, optional
        True or False to force the tree-masked or the plain scorer. By default the tree is used after a check on
        random tokens that it gives this module's own log-probabilities.

    Notes
    -----
    `scoring` says which path runs, and why, if it is not the fast one.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        tokenizer: Any,
        *,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        add_bos: bool | None = None,
        tree: bool | None = None,
    ) -> None:
        self.module = module
        self.tokenizer = tokenizer
        config = getattr(module, "config", None)
        longest = max_length or getattr(config, "max_position_embeddings", None)
        if not isinstance(longest, int) or longest < 2:
            raise ConfigError(f"max_length of {type(module).__name__} is not known ({longest!r}): pass max_length=")
        self.max_length = longest
        self.batch_tokens = batch_tokens or (1024 if self.device.type == "cpu" else 65536)
        if self.batch_tokens < 1:
            raise ConfigError(f"batch_tokens must be at least 1, got {batch_tokens}")
        self.prefix_token = _first_known(tokenizer, ("bos_token_id", "eos_token_id", "pad_token_id"), default=0)
        self.start = _start_tokens(tokenizer, add_bos)
        self._tree_wanted = tree
        self._tree: bool | None = None
        self._decoder: Decoder | None = None
        self._head: Callable[[torch.Tensor], torch.Tensor] | None = None
        self.scoring = "not used yet"

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        import torch

        parameter = next(self.module.parameters(), None)
        return parameter.device if parameter is not None else torch.device("cpu")

    @property
    def n_params(self) -> int:
        """Parameters but the input embedding; a tied output head counts (core + head, the convention of N)."""
        embedding, head = _embedding(self.module), _output_head(self.module)
        if embedding is None:
            return self.n_params_total
        tied = head is not None and head.weight is embedding.weight
        return self.n_params_total - (0 if tied else embedding.weight.numel())

    @property
    def n_params_total(self) -> int:
        """All parameters; shared ones once."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def fingerprint(self) -> str:
        """Return a digest of names, shapes and evenly spaced values of all parameters (the same on every device)."""
        import torch

        digest = hashlib.sha256(type(self.module).__qualname__.encode())
        with torch.no_grad():
            for name, tensor in self.module.state_dict().items():
                flat = tensor.detach().reshape(-1)
                step = max(1, flat.numel() // _PROBES)
                values = flat[::step].to("cpu")
                values = values.double() if values.is_floating_point() else values.long()
                digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
                digest.update(np.ascontiguousarray(values.numpy()).tobytes())
        return digest.hexdigest()

    def tokenizer_fingerprint(self) -> str:
        """Return a digest of the tokenizer's whole definition (its vocabulary, for slow tokenizers)."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is not None:
            text = backend.to_str()
        elif hasattr(self.tokenizer, "get_vocab"):
            text = repr(sorted(self.tokenizer.get_vocab().items()))
        else:
            return super().tokenizer_fingerprint()
        return hashlib.sha256(f"{text}{self.start}".encode()).hexdigest()

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        backend: Any = getattr(self.tokenizer, "backend_tokenizer", None)
        if hasattr(backend, "encode_batch_fast") and backend.truncation is None and backend.padding is None:
            return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        if hasattr(self.tokenizer, "batch_decode"):  # a Hugging Face tokenizer without a fast backend
            encoded = self.tokenizer(list(texts), add_special_tokens=False, verbose=False, return_attention_mask=False)
            return encoded["input_ids"]
        return [list(self.tokenizer.encode(text)) for text in texts]

    def _decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        if hasattr(self.tokenizer, "batch_decode"):
            return self.tokenizer.batch_decode(
                [list(row) for row in tokens], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        return [self.tokenizer.decode(list(row)) for row in tokens]

    def _score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        with _Evaluating(self.module):
            self._prepare()
            short = [request for request in requests if self._fits_tree(request)]
            scores = iter(self._score_tree(short))
            plain = iter(self._score_plain([request for request in requests if not self._fits_tree(request)]))
            return [next(scores) if self._fits_tree(request) else next(plain) for request in requests]

    def _generate(self, prompts: Sequence[Tokens], max_new_tokens: int, stop: Sequence[str]) -> list[str]:
        with _Evaluating(self.module):
            self._prepare()
            if self._decoder is None:
                self._decoder = Decoder(self)
            return self._decoder.generate(prompts, max_new_tokens, stop)

    # ----------------------------------------------------------------------------------------------------- scoring

    def _fits_tree(self, request: ScoreRequest) -> bool:
        window = getattr(getattr(self.module, "config", None), "sliding_window", None)
        if not self._tree:
            return False
        return not isinstance(window, int) or len(request.context) + max(map(len, request.continuations)) <= window

    def _score_tree(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        rows, owner = [], 0
        for request in requests:
            rows.append(tree_row(request, owner))
            owner += len(request.continuations)
        return self._score_rows(requests, rows, owner, tree=True)

    def _score_plain(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        n_owners = sum(len(request.continuations) for request in requests)
        return self._score_rows(requests, plain_rows(requests), n_owners, tree=False)

    def _score_rows(self, requests: Sequence[ScoreRequest], rows: list[Row], n_owners: int, *, tree: bool):
        logprobs, misses = np.zeros(n_owners), np.zeros(n_owners, dtype=np.int64)

        def run(part: Sequence[Row]) -> None:
            batch = collate(part, self.device)
            values, greedy = self._batch_logprobs(batch, tree)
            logprobs[:] += np.bincount(batch.owners, values, n_owners)
            misses[:] += np.bincount(batch.owners, ~greedy, n_owners).astype(np.int64)

        self.in_batches(sorted(rows, key=len, reverse=True), len, run)
        scores, owner = [], 0
        for request in requests:
            mine = slice(owner, owner + len(request.continuations))
            scores.append(Score(tuple(logprobs[mine].tolist()), tuple((misses[mine] == 0).tolist())))
            owner = mine.stop
        return scores

    def in_batches(
        self,
        items: Sequence[Any],
        size: Callable[[Any], int],
        run: Callable[[Sequence[Any]], None],
        *,
        times: int = 1,
    ) -> None:
        """Run items, longest first, in batches of ``times`` the token budget; out of memory halves the budget."""
        start = 0
        while start < len(items):
            longest = max(1, size(items[start]))
            count = max(1, min(times * self.batch_tokens // longest, len(items) - start))
            try:
                run(items[start : start + count])
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                if count == 1:
                    raise ConfigError(
                        f"one row of {longest} tokens does not fit into the memory of {self.device}: lower max_length"
                    ) from error
                self.batch_tokens = max(1, longest * (count // 2) // times)
                _log.warning("out of memory with %d rows of %d tokens: going on with %d", count, longest, count // 2)
                _free(self.device)
                continue
            start += count

    def _batch_logprobs(self, batch: Batch, tree: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return ln p and "is the most likely token" of every target of a batch, from logits at needed places only."""
        import torch

        hidden_PD, head = self._needed(batch, tree)
        lse, best, picked = [], [], torch.empty(len(batch.targets), device=self.device)
        n_vocabulary = 0
        start = 0
        order = torch.argsort(batch.sources, stable=True)
        sources = batch.sources[order]
        while start < len(hidden_PD):
            step = max(1, _LOGITS_AT_ONCE // (n_vocabulary or _LOGITS_AT_ONCE // 64))
            logits_PV = head(hidden_PD[start : start + step]).float()
            n_vocabulary = logits_PV.shape[-1]
            chunk = torch.tensor([start, start + len(logits_PV)], device=self.device)
            low, high = torch.searchsorted(sources, chunk).tolist()
            mine = order[low:high]
            picked[mine] = logits_PV[batch.sources[mine] - start, batch.targets[mine]]
            top = logits_PV.amax(-1)
            lse.append(top + (logits_PV - top[:, None]).exp_().sum(-1).log())
            best.append(top)
            start += len(logits_PV)
        logprobs = picked - torch.cat(lse)[batch.sources]
        greedy = picked >= torch.cat(best)[batch.sources]
        return logprobs.double().cpu().numpy(), greedy.cpu().numpy()

    def _needed(self, batch: Batch, tree: bool) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
        """Return hidden states (or logits) at the needed positions, and what turns them into logits."""
        extra: dict[str, Any] = {}
        if tree:
            mask = tree_mask(batch.segments_BL, next(self.module.parameters()).dtype)
            extra = {"attention_mask": mask, "position_ids": batch.positions_BL}
        if self._head is not None:
            body = cast(Any, self.module).base_model
            hidden_BLD = body(input_ids=batch.tokens_BL, use_cache=False, **extra).last_hidden_state
            return hidden_BLD.flatten(0, 1)[batch.needed_P], self._head
        return self.logits(batch.tokens_BL, **extra).flatten(0, 1)[batch.needed_P], _identity

    def logits(self, tokens_BL: torch.Tensor, **extra: Any) -> torch.Tensor:
        """Return the module's logits (B, L, V), whatever it wraps them in."""
        if _is_hugging_face(self.module):
            extra = {"use_cache": False, **extra}
        output = self.module(tokens_BL, **extra)
        if hasattr(output, "logits"):
            output = output.logits
        elif isinstance(output, tuple | list):
            output = output[0]
        if output.ndim != 3 or output.shape[:2] != tokens_BL.shape:
            raise ConfigError(
                f"{type(self.module).__name__} gave {tuple(output.shape)} for tokens {tuple(tokens_BL.shape)}; "
                "expected (B, T, V) logits"
            )
        return output

    def _prepare(self) -> None:
        """Find out once, on random tokens, which fast paths give this module's own numbers."""
        if self._tree is not None:
            return
        self._tree = False
        self._head = _find_head(self)
        if self._tree_wanted is False:
            self.scoring = "plain: asked for"
        else:
            self.scoring = self._check_tree()
            self._tree = self.scoring == "tree"
            if not self._tree:
                _log.warning("scoring is %s", self.scoring)
                if self._tree_wanted:
                    raise ConfigError(f"tree scoring was asked for, but is not possible: {self.scoring}")

    def _check_tree(self) -> str:
        if not _is_hugging_face(self.module):
            return "plain: not a Hugging Face model, so no 4-D mask can be given"
        rng = np.random.default_rng(0)
        n_vocabulary = _embedding(self.module).weight.shape[0]
        width = max(2, min(12, self.max_length // 4))

        def draw(n: int) -> Tokens:
            return tuple(rng.integers(n_vocabulary, size=n).tolist())

        tree = ScoreRequest(draw(width), (draw(width), draw(width // 2), draw(width)))
        try:
            got = np.asarray(self._score_tree([tree])[0].logprobs)
        except Exception as error:  # noqa: BLE001 - third-party forwards fail in any way on a mask they do not know
            return f"plain: the model does not take a 4-D mask ({type(error).__name__}: {error})"
        expected = np.asarray(self._score_plain([tree])[0].logprobs)
        first, _, last = tree.continuations
        seen = ScoreRequest(tree.context + first, (last,))  # what a leaking mask would score
        effect = abs(self._score_plain([seen])[0].logprobs[0] - expected[2])
        difference = float(np.abs(got - expected).max())
        if not difference <= max(5e-5, 0.05 * effect):
            return f"plain: a 4-D mask changes this model's log-probabilities by {difference:.3g}"
        return "tree"


# ------------------------------------------------------------------------------------------------------------ modules


class _Evaluating:
    """Evaluation mode and no gradients inside, the module's own mode after."""

    def __init__(self, module: torch.nn.Module) -> None:
        import torch

        self.module, self.no_grad = module, torch.inference_mode()

    def __enter__(self) -> None:
        self.was_training = self.module.training
        if self.was_training:
            self.module.eval()
        self.no_grad.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.no_grad.__exit__(*error)
        if self.was_training:
            self.module.train()


def _identity(logits: torch.Tensor) -> torch.Tensor:
    return logits


def _is_hugging_face(module: Any) -> bool:
    return hasattr(module, "config") and hasattr(module, "get_output_embeddings") and hasattr(module, "base_model")


def _embedding(module: Any) -> Any:
    if hasattr(module, "get_input_embeddings"):
        return module.get_input_embeddings()
    import torch

    return next((part for part in module.modules() if isinstance(part, torch.nn.Embedding)), None)


def _output_head(module: Any) -> Any:
    return module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None


def _find_head(model: TorchModel) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return the output head if body + head give the module's logits (no scaling, no soft-capping in between)."""
    import torch

    module: Any = model.module
    head = _output_head(module)
    if not _is_hugging_face(module) or head is None or module.base_model is module:
        return None
    n = min(4, model.max_length)
    tokens = torch.arange(n, device=model.device)[None] % module.get_input_embeddings().weight.shape[0]
    try:
        hidden = module.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        logits, whole = head(hidden), model.logits(tokens)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return None
    same = logits.shape == whole.shape and torch.allclose(logits, whole, rtol=1e-5, atol=1e-5)
    return head if same else None


def _first_known(tokenizer: Any, names: Iterable[str], default: int) -> int:
    for name in names:
        value = getattr(tokenizer, name, None)
        if isinstance(value, int):
            return value
    return default


def _start_tokens(tokenizer: Any, add_bos: bool | None) -> Tokens:
    bos = getattr(tokenizer, "bos_token_id", None)
    if add_bos is None:
        if not isinstance(bos, int) or not hasattr(tokenizer, "batch_decode"):
            return ()
        return (bos,) if tokenizer("a")["input_ids"][:1] == [bos] else ()
    if add_bos and not isinstance(bos, int):
        raise ConfigError("add_bos=True, but the tokenizer has no BOS token")
    return (bos,) if add_bos and isinstance(bos, int) else ()


def _is_out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or "out of memory" in text or "can't allocate memory" in text


def _free(device: torch.device) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
