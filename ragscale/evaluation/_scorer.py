"""Scores requests with one `TorchModel`: finds out which fast way gives the model's own numbers, and runs it.

Ways, the fastest first: the context under causal attention, then the branches over its keys and values (`_steps`); one
masked pass over context and branches (`_tree`); one row per continuation, which is right for every causal module.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ragscale.errors import ConfigError
from ragscale.evaluation._cached_body import CachedBody
from ragscale.evaluation._language_model import Score, ScoreRequest, Tokens
from ragscale.evaluation._logprobs import NarrowHead, target_logprobs
from ragscale.evaluation._modules import embedding_of, is_hugging_face, output_head
from ragscale.evaluation._olmo2 import Olmo2Body
from ragscale.evaluation._precision import torch_dtype
from ragscale.evaluation._sharing import forest, hidden_of_trees
from ragscale.evaluation._steps import Body, collate_steps, hidden_in_one_pass, hidden_in_steps
from ragscale.evaluation._tree import Row, collate, plain_rows, tree_length, tree_mask, tree_row, wanted_of

if TYPE_CHECKING:
    import torch

    from ragscale.evaluation._sharing import Node
    from ragscale.evaluation._torch_model import TorchModel

_log = logging.getLogger("ragscale.evaluation")
_LENGTHS = {"cuda": 64}  # contexts are padded to a multiple: few shapes, and what attention kernels like
_SHORT = 128
_Read = Callable[[], tuple[np.ndarray, np.ndarray, np.ndarray]]  # owners, ln p, "is the most likely token"
_COMPILE_FROM = 2e15  # floating-point operations of one call: some ten seconds of work on a GPU, as long as compiling


class Scorer:
    """What `TorchModel.score` does.

    Attributes
    ----------
    scoring : str
        ``"tree"`` where the continuations of a request share its context, else ``"plain: ..."`` with the reason.
    way : {"steps", "masked", "plain"}
        Two steps, one masked pass, or separate rows.
    """

    def __init__(self, model: TorchModel) -> None:
        self.model = model
        self.way, self.scoring = "plain", "plain: asked for"
        self.head = _find_head(model)
        self._bodies: dict[str, Body] = {}
        self._heads: dict[str, Callable[[Any], Any]] = {}
        self._is_compiled, self._weights = False, _stamp(model.module)
        if model.tree is False:
            return
        self.scoring = self._find_way()
        if self.scoring != "tree":
            _log.warning("scoring is %s", self.scoring)
            if model.tree:
                raise ConfigError(f"tree scoring was asked for, but is not possible: {self.scoring}")

    def score(self, requests: Sequence[ScoreRequest], precision: str) -> list[Score]:
        """Return one score per request."""
        self._follow_weights()
        self._compile_if_worth(requests)
        shared = [self._fits_tree(request) for request in requests]
        together = iter(self._score_shared([r for r, fits in zip(requests, shared, strict=True) if fits], precision))
        apart = iter(self._score_plain([r for r, fits in zip(requests, shared, strict=True) if not fits], precision))
        return [next(together) if fits else next(apart) for fits in shared]

    @property
    def shares_prefixes(self) -> bool:
        """Whether rows that begin alike are computed once so far: on a CPU, where batches need not be large."""
        own = self.way == "steps" and isinstance(self._bodies.get("float32"), Olmo2Body)
        return own and self.model.device.type == "cpu" and not self._is_compiled

    @property
    def _width(self) -> int:
        """How many tokens of attention cost as much as one token's products with the weights of a block."""
        config = cast(Any, self.model.module).config
        return 4 * config.hidden_size + 3 * config.intermediate_size

    # ---------------------------------------------------------------------------------------------------------- rows

    def _fits_tree(self, request: ScoreRequest) -> bool:
        if self.way == "plain" or (self.way == "steps" and len(request.continuations) == 1):
            return False
        window = getattr(getattr(self.model.module, "config", None), "sliding_window", None)
        return not isinstance(window, int) or len(request.context) + max(map(len, request.continuations)) <= window

    def _score_shared(self, requests: Sequence[ScoreRequest], precision: str) -> list[Score]:
        owners = np.cumsum([0, *(len(request.continuations) for request in requests)]).tolist()
        waiting = [_Waiting(request, owner) for request, owner in zip(requests, owners[:-1], strict=True)]
        return self._score_rows(requests, waiting, owners[-1], precision, is_tree=True)

    def _score_plain(self, requests: Sequence[ScoreRequest], precision: str) -> list[Score]:
        n_owners = sum(len(request.continuations) for request in requests)
        return self._score_rows(requests, plain_rows(requests), n_owners, precision, is_tree=False)

    def _score_rows(
        self,
        requests: Sequence[ScoreRequest],
        rows: Sequence[Row | _Waiting],
        n_owners: int,
        precision: str,
        *,
        is_tree: bool,
    ) -> list[Score]:
        logprobs, misses = np.zeros(n_owners), np.zeros(n_owners, dtype=np.int64)
        running: list[tuple[Sequence[Row], _Read]] = []

        def read(part: Sequence[Row], results: _Read) -> None:
            owners, found, greedy = results()
            if precision == "fp16" and not np.isfinite(found).all():
                _log.warning("fp16 overflowed for %d rows: they are scored in float32", len(part))
                owners, found, greedy = self._batch(part, "float32", is_tree)()
            logprobs[:] += np.bincount(owners, found, n_owners)
            misses[:] += np.bincount(owners, ~greedy, n_owners).astype(np.int64)

        def run(waiting: Sequence[Row | _Waiting]) -> None:
            part = _made(waiting)
            running.append((part, self._batch(part, precision, is_tree)))
            if len(running) > 1:  # read one batch behind, so that a GPU has work while the next is put together
                read(*running.pop(0))

        def run_trees(part: Sequence[Node]) -> None:
            mine, hidden_PD = hidden_of_trees(self._body(precision), part, self.model.device, self.model.in_batches)
            read(mine, self._read_off(mine, hidden_PD, precision))

        alone, trees = rows, []
        if self.shares_prefixes:
            alone, trees = forest(_made(rows), self._width)
        self.model.in_batches(sorted(alone, key=len, reverse=True), len, run)
        self.model.in_batches(sorted(trees, key=len, reverse=True), len, run_trees)
        for one in running:
            read(*one)
        scores, owner = [], 0
        for request in requests:
            mine = slice(owner, owner + len(request.continuations))
            scores.append(Score(tuple(logprobs[mine].tolist()), tuple((misses[mine] == 0).tolist())))
            owner = mine.stop
        return scores

    def _batch(self, rows: Sequence[Row], precision: str, is_tree: bool) -> _Read:
        """Return what gives owner, ln p and "is the most likely token" of every target of a batch, once computed."""
        with self._autocast(precision), _kernels(self.model.device), self._compiling():
            hidden_PD = self._needed(rows, precision, is_tree)
        return self._read_off(rows, hidden_PD, precision)

    def _read_off(self, rows: Sequence[Row], hidden_PD: torch.Tensor, precision: str) -> _Read:
        wanted = wanted_of(rows)
        head = self._head(precision)
        values, greedy = target_logprobs(
            hidden_PD,
            head,
            wanted.targets,
            wanted.sources,
            at_once=self.model.logits_at_once,
        )
        arrive = _coming(values.double(), greedy)

        def read() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            found, is_first = arrive()
            return wanted.owners, found, is_first

        return read

    def _needed(self, rows: Sequence[Row], precision: str, is_tree: bool) -> torch.Tensor:
        """Return hidden states (or logits, where the head is unknown) at the needed positions."""
        model = self.model
        if self.way == "steps" and self._in_one_pass(rows):
            return hidden_in_one_pass(self._body(precision), rows, model.device)
        if self.way == "steps":
            multiple = _LENGTHS.get(model.device.type, 1)
            body = self._body(precision)
            # on a CPU, where batches are small, every token counts
            room = isinstance(body, Olmo2Body) and model.device.type == "cuda"
            steps = collate_steps(rows, model.device, multiple=multiple, longest=model.max_length, room=room)
            return hidden_in_steps(body, steps)
        batch = collate(rows, model.device)
        extra: dict[str, Any] = {}
        if is_tree:
            mask = tree_mask(batch.segments_BL, next(model.module.parameters()).dtype)
            extra = {"attention_mask": mask, "position_ids": batch.positions_BL}
        if self.head is not None:
            body = cast(Any, model.module).base_model
            hidden_BLD = body(input_ids=batch.tokens_BL, use_cache=False, **extra).last_hidden_state
            return hidden_BLD.flatten(0, 1)[batch.needed_P]
        return model.logits(batch.tokens_BL, **extra).flatten(0, 1)[batch.needed_P]

    def _in_one_pass(self, rows: Sequence[Row]) -> bool:
        """Whether rows are so short that, on a CPU, one masked pass is sooner done than two steps."""
        own = isinstance(self._bodies["float32"], Olmo2Body)
        return own and self.model.device.type == "cpu" and len(rows[0]) <= _SHORT

    # ------------------------------------------------------------------------------------------- models in a precision

    def _body(self, precision: str) -> Body:
        if precision not in self._bodies:
            if isinstance(self._bodies.get("float32"), Olmo2Body):
                body: Body = Olmo2Body(self.model.module, torch_dtype(precision))
                if self._is_compiled:
                    body.compile()
            else:
                body = self._bodies["float32"]
            self._bodies[precision] = body
        return self._bodies[precision]

    def _follow_weights(self) -> None:
        """Drop narrow copies of weights that have changed since, as in a model that is still trained."""
        stamp = _stamp(self.model.module)
        if stamp != self._weights:
            self._weights, self._heads = stamp, {}
            self._bodies = {name: body for name, body in self._bodies.items() if name == "float32"}

    def _head(self, precision: str) -> Callable[[Any], Any]:
        import torch

        if self.head is None:
            return _identity
        if precision == "float32":
            return self.head
        if type(self.head) is not torch.nn.Linear:
            head = self.head
            return lambda hidden_PD: head(hidden_PD.to(next(self.model.module.parameters()).dtype))
        if precision not in self._heads:
            self._heads[precision] = NarrowHead(self.head, torch_dtype(precision))
        return self._heads[precision]

    def _autocast(self, precision: str) -> Any:
        """Return the context in which the module's own forward runs in this precision."""
        import torch

        if precision == "float32" or (self.way == "steps" and isinstance(self._bodies["float32"], Olmo2Body)):
            return contextlib.nullcontext()
        return torch.autocast(self.model.device.type, torch_dtype(precision))

    def _compiling(self) -> Any:
        """Return the context in which compiled blocks run: without warnings, and for many shapes of models."""
        if not self._is_compiled:
            return contextlib.nullcontext()
        from ragscale.training._compile import compiling

        return compiling()

    def would_compile(self, requests: Sequence[ScoreRequest]) -> bool:
        """Whether a call with these requests runs compiled blocks."""
        if self.way != "steps" or not isinstance(self._bodies["float32"], Olmo2Body):
            return False
        if self._is_compiled or self.model.compile is not None:
            return self._is_compiled or bool(self.model.compile)
        n_tokens = sum(len(request.context) for request in requests)
        return self.model.device.type == "cuda" and worth_compiling(n_tokens, self.model.n_params_total)

    @property
    def path(self) -> dict[str, Any]:
        """What runs, in words, for the settings of an evaluation."""
        body = type(self._bodies["float32"]).__name__ if self.way == "steps" else None
        return {
            "way": self.way,
            "body": body,
            "compiled": self._is_compiled,
            "shares_prefixes": self.shares_prefixes,
        }

    def _compile_if_worth(self, requests: Sequence[ScoreRequest]) -> None:
        if self._is_compiled or not self.would_compile(requests):
            return
        self._is_compiled = True
        for body in self._bodies.values():
            cast(Olmo2Body, body).compile()

    # -------------------------------------------------------------------------------------------------- finding a way

    def _find_way(self) -> str:
        """Take the first way that gives the log-probabilities of separate rows; return what `scoring` says."""
        module, on_gpu = self.model.module, self.model.device.type == "cuda"
        if not is_hugging_face(module):
            return "plain: not a Hugging Face model, so no 4-D mask can be given"
        bodies: list[Body] = []
        if self.head is not None and Olmo2Body.fits(module):
            import torch

            bodies.append(Olmo2Body(module, torch.float32))
        elif self.head is not None and on_gpu:
            bodies.append(CachedBody(module))
        for body in bodies:
            self._bodies = {"float32": body}
            problem = self._check("steps")
            if problem is None:
                return "tree"
            _log.warning("%s does not give this model's numbers: %s", type(body).__name__, problem)
            self._bodies = {}
        problem = self._check("masked")
        return "tree" if problem is None else f"plain: {problem}"

    def _check(self, way: str) -> str | None:
        """Try a way on random tokens; return what is wrong with it, and go back to plain rows if something is."""
        rng = np.random.default_rng(0)
        n_vocabulary = embedding_of(self.model.module).weight.shape[0]
        width = max(2, min(12, self.model.max_length // 4))

        def draw(n: int) -> Tokens:
            return tuple(rng.integers(n_vocabulary, size=n).tolist())

        self.way = "plain"
        trees = [ScoreRequest(draw(width - i), (draw(width), draw(width // 2), draw(width))) for i in (0, 1)]
        expected = _values(self._score_plain(trees, "float32"))
        first, _, last = trees[0].continuations
        seen = ScoreRequest(trees[0].context + first, (last,))  # what a leaking mask would score
        effect = abs(self._score_plain([seen], "float32")[0].logprobs[0] - expected[2])
        self.way = way
        try:
            got = _values(self._score_shared(trees, "float32"))
        except Exception as error:  # noqa: BLE001 - third-party forwards fail in any way on a mask they do not know
            self.way = "plain"
            return f"the model does not take a 4-D mask ({type(error).__name__}: {error})"
        difference = float(np.abs(got - expected).max())
        if not difference <= max(5e-5, 0.05 * effect):
            self.way = "plain"
            return f"a 4-D mask changes this model's log-probabilities by {difference:.3g}"
        return None


@dataclass(slots=True)
class _Waiting:
    """A request whose row is made when its batch runs, while a GPU computes the one before."""

    request: ScoreRequest
    owner: int

    def __len__(self) -> int:
        return tree_length(self.request)

    def row(self) -> Row:
        return tree_row(self.request, self.owner)


def _made(rows: Sequence[Row | _Waiting]) -> list[Row]:
    """Make the rows that are not made yet."""
    return [row.row() if isinstance(row, _Waiting) else row for row in rows]


def _coming(*tensors: torch.Tensor) -> Callable[[], list[np.ndarray]]:
    """Start to copy tensors to the CPU; return what waits for that and for nothing that is computed later."""
    import torch

    if not tensors[0].is_cuda:
        return lambda: [tensor.numpy() for tensor in tensors]
    arrived = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
    for there, tensor in zip(arrived, tensors, strict=True):
        there.copy_(tensor, non_blocking=True)
    done = torch.cuda.Event()
    done.record()

    def wait() -> list[np.ndarray]:
        done.synchronize()
        return [tensor.numpy() for tensor in arrived]

    return wait


def _kernels(device: torch.device) -> Any:
    """Return a context for attention on a GPU: kernels for all shapes, since cuDNN plans each new one for long."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


def worth_compiling(n_tokens: int, n_params: int) -> bool:
    """Return whether a call on a GPU has so much to compute that compiling the blocks first is sooner done.

    Examples
    --------
    >>> worth_compiling(1_000_000, 38_000_000), worth_compiling(2_000_000, 728_000_000)
    (False, True)
    """
    return 2 * n_tokens * n_params > _COMPILE_FROM


def _stamp(module: Any) -> list[tuple[int, int]]:
    """Return what changes when a weight is replaced or written to."""
    return [(parameter.data_ptr(), parameter._version) for parameter in module.parameters()]


def _values(scores: Sequence[Score]) -> np.ndarray:
    return np.concatenate([score.logprobs for score in scores])


def _identity(logits: torch.Tensor) -> torch.Tensor:
    return logits


def _find_head(model: TorchModel) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Return the output head if body + head give the module's logits (no scaling, no soft-capping in between)."""
    import torch

    module: Any = model.module
    head = output_head(module)
    if not is_hugging_face(module) or head is None or module.base_model is module:
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
