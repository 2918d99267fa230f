"""Search again with what was found: for questions whose second passage is known by the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ragscale._counts import whole_or_zero
from ragscale.errors import ConfigError
from ragscale.retrieval._base import Retriever
from ragscale.retrieval._checked import checked_hits
from ragscale.retrieval._fusion import Fusion, reciprocal_rank_fusion
from ragscale.retrieval._hits import Hits, in_order
from ragscale.retrieval._wrapper import Wrapper

if TYPE_CHECKING:
    from ragscale.passages import Passage

Expand = Callable[[str, Sequence["Passage"]], str]
_REPEATS = 5


def query_and_passages(query: str, passages: Sequence[Passage]) -> str:
    """Return the query, repeated so that its words keep their weight, followed by the passages.

    References
    ----------
    Repeating a short query before a long expansion, for retrievers that count words: Wang et al. 2023, arXiv
    2303.07678.
    """
    return " ".join([query] * _REPEATS + [passage.text for passage in passages]) if passages else query


_ROUNDS_AS_ONE = partial(reciprocal_rank_fusion, constant=5.0)


class IterativeRetriever(Wrapper):
    """Search, expand the query by the best passages found, search again; fuse the rounds. For stores of every size.

    The town of birth of the author of a book stands in a passage about the author, which shares no word with a question
    about the book; the passage about the book names the author.

    Parameters
    ----------
    retriever : Retriever
        What is searched in every round.
    n_iterations : int
        Rounds; 1 is the retriever itself.
    n_found : int
        How many of the best passages so far expand the next query.
    expand : callable
        Takes the query and these passages, returns the next query: `query_and_passages`, or your own, which may ask a
        language model what to look for. It must depend on its arguments alone.
    fusion : callable
        Of the rounds, see `HybridRetriever`; by default reciprocal ranks with the constant 5, so that the first ranks
        of a round count.
    depth : int
        How many hits of each round are fused, whatever k is.

    Notes
    -----
    Each store expands by its own passages, so its answer is that of an index over this store alone; searching S stores
    takes up to 1 + (n_iterations - 1) S searches.

    References
    ----------
    Rounds of retrieval as a way to spend compute at inference: Yue et al. 2024, arXiv 2410.04343.

    Examples
    --------
    >>> from ragscale import Passage
    >>> from ragscale.retrieval import BM25Retriever
    >>> texts = ["The novel Red Kites was written by Ada Stone.", "Ada Stone was born in Lund.", "Lions sleep by day."]
    >>> store = [Passage(str(i), text, 9, str(i)) for i, text in enumerate(texts)]
    >>> question = "In which town came the author of the novel Red Kites to the world?"
    >>> BM25Retriever().index(store).search(question, k=2).ids
    array([[ 0, -1]])
    >>> IterativeRetriever(BM25Retriever()).index(store).search(question, k=2).ids
    array([[0, 1]])
    """

    def __init__(
        self,
        retriever: Retriever,
        *,
        n_iterations: int = 2,
        n_found: int = 2,
        expand: Expand = query_and_passages,
        fusion: Fusion = _ROUNDS_AS_ONE,
        depth: int = 100,
    ) -> None:
        problems = [] if isinstance(retriever, Retriever) else [f"retriever is a {type(retriever).__name__}"]
        problems += [
            f"{name} = {f!r} is not callable" for name, f in (("expand", expand), ("fusion", fusion)) if not callable(f)
        ]
        counts = {"n_iterations": n_iterations, "n_found": n_found, "depth": depth}
        problems += [
            f"{name} = {value!r} must be at least 1" for name, value in counts.items() if whole_or_zero(value) < 1
        ]
        if problems:
            raise ConfigError("IterativeRetriever: " + "; ".join(problems))
        self.n_iterations, self.n_found, self.depth = (whole_or_zero(value) for value in counts.values())
        self.expand, self.fusion = expand, fusion

    @property
    def name(self) -> str:
        """What the column ``retriever`` of results says."""
        part = self._parts()[0]
        return f"{getattr(part, 'name', type(part).__name__)} x{self.n_iterations}"

    @property
    def retriever(self) -> Retriever:
        """What is searched in every round."""
        return self._parts()[0]

    def _search_nested(self, queries: Sequence[str], k: int, n_passages_per_store: Sequence[int]) -> list[Any]:
        first = self._part_hits(self.retriever, queries, self.depth, n_passages_per_store)
        return [self._rounds(queries, k, n, first[n]) for n in n_passages_per_store]

    def _rounds(self, queries: Sequence[str], k: int, n: int, first: Hits) -> Any:
        """Return rows and scores of one store after all rounds."""
        rounds, best = [first], first
        for _ in range(self.n_iterations - 1):
            asked = [self._next(query, best, line) for line, query in enumerate(queries)]
            rounds.append(self._part_hits(self.retriever, asked, self.depth, [n])[n])
            best = Hits(*in_order(*self.fusion(rounds), self.depth))
        if len(rounds) == 1:
            return first.ids, first.scores
        name = f"the fusion {getattr(self.fusion, '__name__', 'of the rounds')}"
        return checked_hits((best.ids, best.scores), name=name, n_queries=len(queries), k=k, n_passages=n)

    def _next(self, query: str, best: Hits, line: int) -> str:
        text = self.expand(query, best.top(self.n_found).take(self.passages, line))
        if not isinstance(text, str):
            raise ConfigError(
                f"IterativeRetriever: expand returned a {type(text).__name__} for {query[:80]!r}, not a text"
            )
        return text
