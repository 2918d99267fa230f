"""A PyTorch model as a language model.

Shape letters: B rows, L row length, V vocabulary.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale._extras import text_backend
from ragscale.errors import ConfigError
from ragscale.evaluation._decoding import Decoder
from ragscale.evaluation._language_model import LanguageModel, Score, ScoreRequest, Tokens
from ragscale.evaluation._modules import (
    Evaluating,
    embedding_of,
    free_memory,
    is_hugging_face,
    is_out_of_memory,
    output_head,
)
from ragscale.evaluation._precision import CANDIDATES, Precision, check_precision, choose
from ragscale.evaluation._scorer import Scorer

if TYPE_CHECKING:
    import torch

    from ragscale._typing import Tokenizer

_log = logging.getLogger("ragscale.evaluation")
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
    precision : {"auto", "float32", "bf16", "fp16"}
        Of the model's matrix products; the log-softmax is float32 in all. ``"auto"`` is float32 on a CPU. On a GPU it
        takes bf16, else fp16, where on a sample of the prompts log-probabilities differ from float32 by at most 0.002
        nats per token in the mean, at least 99.5 % of the questions keep the order of their choices, and it is not
        slower, else float32; ``precision_chosen`` holds what was measured.
    compile : bool, optional
        Compile the blocks of an OLMo-2 model; by default on a GPU, when there is enough to score.

    Notes
    -----
    `scoring` says which path runs, and why, if it is not the fast one.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        tokenizer: Tokenizer,
        *,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        add_bos: bool | None = None,
        tree: bool | None = None,
        precision: str = "auto",
        compile: bool | None = None,
    ) -> None:
        self.module = module
        self.tokenizer: Any = tokenizer
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
        self.tree, self.compile = tree, compile
        self.precision = check_precision(precision)
        self.precision_chosen: Precision | None = None
        self.logits_at_once: int | None = None
        self._scorer: Scorer | None = None
        self._decoder: Decoder | None = None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        import torch

        parameter = next(self.module.parameters(), None)
        return parameter.device if parameter is not None else torch.device("cpu")

    @property
    def n_params(self) -> int:
        """Parameters but the input embedding; a tied output head counts (core + head, the convention of N)."""
        embedding, head = embedding_of(self.module), output_head(self.module)
        if embedding is None:
            return self.n_params_total
        tied = head is not None and head.weight is embedding.weight
        return self.n_params_total - (0 if tied else embedding.weight.numel())

    @property
    def n_params_total(self) -> int:
        """All parameters; shared ones once."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def fingerprint(self) -> str:
        """Return a digest of names, shapes and evenly spaced values of all parameters, and of a narrower precision."""
        import torch

        digest = hashlib.sha256(type(self.module).__qualname__.encode())
        if self.precision != "float32" and (self.precision != "auto" or self.device.type == "cuda"):
            digest.update(self.precision.encode())
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
        backend = text_backend(self.tokenizer)
        if backend is not None:
            return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        if hasattr(self.tokenizer, "batch_decode"):  # a Hugging Face tokenizer without a fast backend
            options = {"add_special_tokens": False, "verbose": False, "return_attention_mask": False}
            return self.tokenizer(list(texts), split_special_tokens=True, **options)["input_ids"]
        return [list(self.tokenizer.encode(text)) for text in texts]

    def _decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        if _decodes_by_backend(self.tokenizer):
            rows = [[int(token) for token in row] for row in tokens]
            return self.tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=True)
        if hasattr(self.tokenizer, "batch_decode"):
            return self.tokenizer.batch_decode(
                [list(row) for row in tokens], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        return [self.tokenizer.decode(list(row)) for row in tokens]

    @property
    def scoring(self) -> str:
        """Which path scores: ``"tree"``, or ``"plain: ..."`` and why."""
        return "not used yet" if self._scorer is None else self._scorer.scoring

    @property
    def path(self) -> dict[str, Any] | None:
        """How rows are computed: by which way and body, compiled or not; None before anything was."""
        return None if self._scorer is None else self._scorer.path

    @property
    def shares_prefixes(self) -> bool:
        """Whether prompts of one call that begin alike are computed once so far: OLMo-2 models on a CPU."""
        with Evaluating(self.module):
            return self._prepared().shares_prefixes

    def use_precision(self, precision: str) -> None:
        """Score in another precision from now on."""
        self.precision, self.precision_chosen = check_precision(precision), None

    def choose_precision(self, requests: Sequence[ScoreRequest]) -> Precision:
        """Return the precision that scores are computed in, measured on these requests under ``"auto"`` on a GPU.

        The choice is made once; `score` makes it on its first requests.
        """
        if self.precision_chosen is None:
            if self.precision != "auto":
                self.precision_chosen = Precision(self.precision, self.precision)
            else:
                with Evaluating(self.module):
                    scorer = self._prepared()
                    candidates = CANDIDATES if self.device.type == "cuda" else ()
                    # eager kernels are not timed where compiled ones will run
                    clock = None if scorer.would_compile(requests) else time.perf_counter
                    self.precision_chosen = choose(requests, scorer.score, candidates, clock=clock)
        return self.precision_chosen

    def keep_precision(self, name: str) -> None:
        """Go on in the precision that earlier scores of the same evaluation were computed in, under ``"auto"``."""
        if self.precision == "auto" and self.precision_chosen is None:
            self.precision_chosen = Precision("auto", check_precision(name))

    def _score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        precision = self.choose_precision(requests)
        with Evaluating(self.module):
            return self._prepared().score(requests, precision.used)

    def _generate(self, prompts: Sequence[Tokens], max_new_tokens: int, stop: Sequence[str]) -> list[str]:
        with Evaluating(self.module):
            self._prepared()
            if self._decoder is None:
                self._decoder = Decoder(self)
            return self._decoder.generate(prompts, max_new_tokens, stop)

    def _prepared(self) -> Scorer:
        """Find out once, on random tokens, which fast paths give this module's own numbers."""
        if self._scorer is None:
            self._scorer = Scorer(self)
        return self._scorer

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
                if not is_out_of_memory(error):
                    raise
                if count == 1:
                    raise ConfigError(
                        f"one row of {longest} tokens does not fit into the memory of {self.device}: lower max_length"
                    ) from error
                self.batch_tokens = max(1, longest * (count // 2) // times)
                _log.warning("out of memory with %d rows of %d tokens: going on with %d", count, longest, count // 2)
                free_memory(self.device)
                continue
            start += count

    def logits(self, tokens_BL: torch.Tensor, **extra: object) -> torch.Tensor:
        """Return the module's logits (B, L, V), whatever it wraps them in."""
        if is_hugging_face(self.module):
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


def _first_known(tokenizer: Any, names: Iterable[str], default: int) -> int:
    for name in names:
        value = getattr(tokenizer, name, None)
        if isinstance(value, int):
            return value
    return default


def _decodes_by_backend(tokenizer: Any) -> bool:
    """Whether a Hugging Face tokenizer decodes by its backend and nothing else, which it does six times as slowly."""
    own = getattr(type(tokenizer), "_decode", None)
    return (
        getattr(own, "__module__", None) == "transformers.tokenization_utils_tokenizers"
        and getattr(type(tokenizer).batch_decode, "__module__", None) == "transformers.tokenization_utils_base"
        and hasattr(getattr(tokenizer, "backend_tokenizer", None), "decode_batch")
    )


def _start_tokens(tokenizer: Any, add_bos: bool | None) -> Tokens:
    bos = getattr(tokenizer, "bos_token_id", None)
    if add_bos is None:
        if not isinstance(bos, int) or not hasattr(tokenizer, "batch_decode"):
            return ()
        return (bos,) if tokenizer("a")["input_ids"][:1] == [bos] else ()
    if add_bos and not isinstance(bos, int):
        raise ConfigError("add_bos=True, but the tokenizer has no BOS token")
    return (bos,) if add_bos and isinstance(bos, int) else ()
