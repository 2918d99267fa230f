"""Which tokens a step reads: a pure function of the step, so that any run, resumed or branched, reads the same.

Step s reads the blocks at places [s B, (s + 1) B), of seq_len tokens each, in the order of the stream, the split's
permutation, but for a shuffle within small windows (`ragscale.training._windows`). Each row predicts the token after
each of its tokens; nothing at or beyond D is read, not even as a target.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from ragscale.errors import ConfigError
from ragscale.training._windows import shuffled_block

IGNORED = -100
_IDS_AT_ONCE = 1 << 24

Batch = TypeVar("Batch")


@runtime_checkable
class SplitLike(Protocol):
    """What training needs of a `ragscale.splitting.Split`."""

    @property
    def n_tokens(self) -> int: ...

    def pretraining(self, D: int) -> Any: ...


TokenData: TypeAlias = "SplitLike | ArrayLike"
"""A split, or a one-dimensional array of token ids."""


@dataclass(frozen=True, slots=True)
class Source:
    """A token stream and what is known about it."""

    tokens: Any
    n_tokens: int
    digest: str
    tokenizer_digest: str | None
    tokenizer: Any
    vocab_size: int | None
    eos_id: int | None
    validation: Any


def open_source(data: TokenData, longest: int, *, validation: ArrayLike | None = None, repeat: bool = False) -> Source:
    """Return the stream of a split, or of a plain one-dimensional array of token ids, long enough for ``longest``.

    Raises
    ------
    ConfigError
        When the stream is not one-dimensional integers, or shorter than ``longest`` without ``repeat``.
    """
    if isinstance(data, SplitLike):
        available = int(data.n_tokens)
        stream = data.pretraining(min(longest, available))
        digest = str(getattr(data, "digest", "")) or _stream_digest(stream)
        validation = getattr(data, "validation", None) if validation is None else validation
    else:
        stream = _as_stream(data, "the token stream")
        available = len(stream)
        digest = _stream_digest(stream)
    if longest > available and not repeat:
        raise ConfigError(
            f"D={longest} asks for more than the {available} tokens there are: lower D, add text, "
            "or set repeat=True to read them more than once"
        )
    if available < 2:
        raise ConfigError(f"a token stream needs at least 2 tokens, got {available}")
    tokenizer = getattr(data, "tokenizer", None)
    return Source(
        tokens=stream,
        n_tokens=available,
        digest=digest,
        tokenizer_digest=tokenizer_digest(tokenizer),
        tokenizer=tokenizer,
        vocab_size=getattr(data, "vocab_size", None),
        eos_id=getattr(data, "eos_id", None),
        validation=_validation_stream(validation),
    )


def tokenizer_digest(tokenizer: Any) -> str | None:
    """Return the SHA-256 of a fast tokenizer's definition; None where there is none to digest."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "to_str"):
        return None
    return hashlib.sha256(backend.to_str().encode()).hexdigest()


def _validation_stream(validation: Any) -> Any:
    if validation is None:
        return None
    stream = _as_stream(validation, "the validation stream")
    return stream if len(stream) >= 2 else None


def _as_stream(data: Any, what: str) -> Any:
    if hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, (list, tuple, np.ndarray)):
        sample = np.asarray(data[:1])
    else:
        data = np.asarray(data)
        sample = data[:1]
    if sample.ndim != 1 or sample.dtype.kind not in "iu":
        raise ConfigError(
            f"{what} must be one-dimensional integers (token ids), got {type(data).__name__} "
            f"whose elements are {sample.dtype} with shape {sample.shape[1:]}"
        )
    return data


def check_ids(stream: Any, limit: int, vocab_size: int, what: str) -> None:
    """Read the first ``limit`` tokens of a stream and refuse an id that is none of the model's.

    Raises
    ------
    ConfigError
        With the id, its place, and the size to give.
    """
    for start in range(0, min(limit, len(stream)), _IDS_AT_ONCE):
        ids = np.asarray(stream[start : min(start + _IDS_AT_ONCE, limit)])
        least, most = int(ids.min()), int(ids.max())
        if least < 0 or most >= vocab_size:
            wrong = least if least < 0 else most
            place = start + int(np.flatnonzero(ids == wrong)[0])
            raise ConfigError(_outside(f"{what} at place {place:,}", wrong, vocab_size))


def _outside(where: str, wrong: int, vocab_size: int) -> str:
    if wrong < 0:
        return (
            f"{where} holds token id {wrong}: ids are 0 to {vocab_size - 1} (vocab_size={vocab_size}); a negative one "
            "is padding or damage, take it out of the stream"
        )
    return (
        f"{where} holds token id {wrong}, but the model's vocab_size is {vocab_size}: "
        f"give ModelConfig a vocab_size of at least {wrong + 1}"
    )


def _stream_digest(stream: Any) -> str:
    """Digest the beginning of a stream: enough to tell runs apart, and unchanged when text is added at the end."""
    beginning = np.asarray(stream[: min(len(stream), 65_536)]).astype("<i8")
    return hashlib.sha256(beginning.tobytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Order:
    """The rows of every step.

    Parameters
    ----------
    source : Source
    seq_len, batch_rows : int
        Tokens per row, rows per step over all processes.
    seed : int
        Of the order within windows and of repeated epochs.
    vocab_size : int
        The model's; a larger id is an error.
    rank, world : int
        This process takes the ``rank``-th of ``world`` equal runs of rows.
    share : float
        Of the windows within which blocks are shuffled; 0 keeps the order of the stream.
    """

    source: Source
    seq_len: int
    batch_rows: int
    seed: int
    vocab_size: int
    rank: int = 0
    world: int = 1
    share: float = 0.0

    def n_targets(self, step: int, limit: int | None) -> int:
        """Return the targets of a step over all processes, when reading ends before token ``limit``."""
        start, full = step * self.batch_rows * self.seq_len, self.batch_rows * self.seq_len
        return full if limit is None else max(0, min(full, limit - 1 - start))

    def load(self, step: int, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs and targets, int64 (rows of this process, seq_len); rows beyond ``limit`` are padding."""
        own = self.batch_rows // self.world
        first = step * self.batch_rows + self.rank * own
        inputs = np.zeros((own, self.seq_len), np.int64)
        targets = np.full((own, self.seq_len), IGNORED, np.int64)
        for row in range(own):
            consumed = (first + row) * self.seq_len
            start = self._position(first + row, limit)
            n_inputs = self.seq_len if limit is None else min(self.seq_len, limit - consumed)
            if n_inputs <= 0:
                break
            n_targets = self.seq_len if limit is None else min(self.seq_len, limit - 1 - consumed)
            tokens = np.asarray(self.source.tokens[start : start + max(n_inputs, n_targets + 1)])
            inputs[row, :n_inputs] = tokens[:n_inputs]
            targets[row, :n_targets] = tokens[1 : n_targets + 1]
        read = targets[targets != IGNORED]
        least, most = int(min(inputs.min(), read.min(initial=0))), int(max(inputs.max(), read.max(initial=0)))
        if least < 0 or most >= self.vocab_size:
            raise ConfigError(_outside(f"step {step}", least if least < 0 else most, self.vocab_size))
        return inputs, targets

    def _position(self, block: int, limit: int | None) -> int:
        """Return where a block starts in the stream: near its place at first, anywhere in repeated epochs."""
        n_blocks = max(1, (self.source.n_tokens - 1) // self.seq_len)
        if block < n_blocks or (limit is not None and limit <= self.source.n_tokens):
            whole = n_blocks if limit is None else min(n_blocks, (limit - 1) // self.seq_len)
            return shuffled_block(block, end=whole, seed=self.seed, share=self.share) * self.seq_len
        epoch, within = divmod(block, n_blocks)
        return int(_epoch_order(self.seed, epoch, n_blocks)[within]) * self.seq_len


_orders: dict[tuple[int, int, int], np.ndarray] = {}


def _epoch_order(seed: int, epoch: int, n_blocks: int) -> np.ndarray:
    key = (seed, epoch, n_blocks)
    if key not in _orders:
        if len(_orders) >= 2:
            _orders.clear()
        _orders[key] = np.random.default_rng([seed, epoch]).permutation(n_blocks)
    return _orders[key]


def prefetch(load: Callable[[int], Batch], steps: range, *, ahead: int = 2) -> Generator[Batch]:
    """Yield ``load(step)`` for every step, reading up to ``ahead`` of them in a thread; errors surface in order."""
    with ThreadPoolExecutor(1, thread_name_prefix="ragscale-batches") as pool:
        waiting = [pool.submit(load, step) for step in steps[:ahead]]
        for step in steps:
            batch = waiting.pop(0).result()
            if step + ahead < steps.stop:
                waiting.append(pool.submit(load, step + ahead))
            yield batch
