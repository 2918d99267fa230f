"""Read the first hits again with a dearer model, and order them by what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragscale._counts import whole_or_zero
from ragscale._extras import from_pretrained, require
from ragscale._scripts import whole_characters
from ragscale.errors import ConfigError
from ragscale.retrieval._base import Retriever
from ragscale.retrieval._hits import in_order
from ragscale.retrieval._wrapper import Wrapper

if TYPE_CHECKING:
    from ragscale.passages import Passage

Scorer = Callable[[str, Sequence["Passage"]], ArrayLike]


class Reranker(Wrapper):
    """Score the first hits of a retriever again and order them by that, for stores of every size.

    Parameters
    ----------
    retriever : Retriever
        Finds the candidates.
    scorer : callable
        Takes a query and passages, returns one score per passage, higher is better: a `CrossEncoder`, or your own.
    depth : int
        Candidates per query, whatever k is; what stands below is not returned.

    Examples
    --------
    >>> from ragscale import Passage
    >>> from ragscale.retrieval import BM25Retriever
    >>> def shortest(query, passages):
    ...     return [-len(passage.text) for passage in passages]
    >>> store = [Passage("a", "A red fish and a fish.", 6, "a"), Passage("b", "A fish.", 2, "b")]
    >>> Reranker(BM25Retriever(), shortest).index(store).search("fish", k=2).ids
    array([[1, 0]])
    """

    def __init__(self, retriever: Retriever, scorer: Scorer, *, depth: int = 100) -> None:
        if not isinstance(retriever, Retriever) or not callable(scorer) or whole_or_zero(depth) < 1:
            raise ConfigError(
                "a reranker takes a retriever, a callable scorer and a depth of at least 1, got "
                f"{type(retriever).__name__}, {type(scorer).__name__} and {depth!r}"
            )
        self.scorer, self.depth = scorer, whole_or_zero(depth)

    @property
    def retriever(self) -> Retriever:
        """What finds the candidates."""
        return self._parts()[0]

    def _search_nested(self, queries: Sequence[str], k: int, n_passages_per_store: Sequence[int]) -> list[Any]:
        found = self._part_hits(self.retriever, queries, self.depth, n_passages_per_store)
        scores = {n: np.full(hits.ids.shape, -np.inf, dtype=np.float32) for n, hits in found.items()}
        for line, query in enumerate(self._track(queries, what="rerank", total=len(queries))):
            candidates = np.unique(np.concatenate([hits.ids[line] for hits in found.values()]))
            candidates = candidates[candidates >= 0]  # a passage is scored once for all stores
            if candidates.size:
                values = self._score(query, [self.passages[row] for row in candidates.tolist()])
                for n, hits in found.items():
                    hit = hits.ids[line] >= 0
                    scores[n][line, hit] = values[np.searchsorted(candidates, hits.ids[line][hit])]
        return [in_order(found[n].ids, scores[n], k) for n in n_passages_per_store]

    def _score(self, query: str, passages: list[Passage]) -> NDArray[np.float32]:
        try:
            values = np.asarray(self.scorer(query, passages), dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the scorer gave no numbers for {len(passages)} passages: {error}") from error
        if values.shape != (len(passages),):
            raise ConfigError(f"the scorer returned shape {values.shape} for {len(passages)} passages")
        if np.isnan(values).any():
            raise ConfigError(f"the scorer returned a score that is not a number for {query[:80]!r}")
        return values


@dataclass(frozen=True)
class CrossEncoder:
    """A Hugging Face model that reads query and passage together and returns one number; a scorer for `Reranker`.

    Parameters
    ----------
    model : str
        Name or folder of a sequence classification model with one label.
    max_tokens : int
        Query and passage together; the passage is cut.
    batch_size : int
        Pairs at once.
    device : str
        A torch device, ``"auto"`` for the GPU where there is one.

    Notes
    -----
    Each pair is scored at its own length in the batch of its equals, so that a score does not depend on which other
    passages stand beside it.
    """

    model: str
    max_tokens: int = 512
    batch_size: int = 32
    device: str = "auto"
    _loaded: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, query: str, passages: Sequence[Passage]) -> NDArray[np.float32]:
        torch = require("torch", "dense")
        tokenizer, model, device = self._load()
        pairs = [
            tokenizer(
                whole_characters(query),
                whole_characters(passage.text),
                truncation="only_second",
                max_length=self.max_tokens,
                split_special_tokens=True,
            )
            for passage in passages
        ]
        by_length: dict[int, list[int]] = {}
        for i, pair in enumerate(pairs):
            by_length.setdefault(len(pair["input_ids"]), []).append(i)
        scores = np.empty(len(pairs), dtype=np.float32)
        with torch.inference_mode():
            for places in by_length.values():
                for start in range(0, len(places), self.batch_size):
                    part = places[start : start + self.batch_size]
                    batch = {name: torch.tensor([pairs[i][name] for i in part], device=device) for name in pairs[0]}
                    scores[part] = model(**batch).logits[:, 0].float().cpu().numpy()
        return scores

    def _load(self) -> tuple[Any, Any, str]:
        if not self._loaded:
            torch, transformers = require("torch", "dense"), require("transformers", "dense")
            device = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
            kind = transformers.AutoModelForSequenceClassification
            model = from_pretrained(kind, self.model).to(device).eval()
            if model.config.num_labels != 1:
                raise ConfigError(f"{self.model} has {model.config.num_labels} labels; a cross-encoder has one")
            tokenizer = from_pretrained(transformers.AutoTokenizer, self.model)
            self._loaded.update(tokenizer=tokenizer, model=model, device=device)
        return self._loaded["tokenizer"], self._loaded["model"], self._loaded["device"]
