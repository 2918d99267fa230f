"""The two units of text: a document of the corpus, a passage of the retrieval store."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a corpus.

    Parameters
    ----------
    id : str
        Unique within the corpus; with the seed it decides the document's place in the permutation.
    text : str
        The text, without the title.
    title, source : str
        Optional: the title, and where the document comes from (a stratum, a data set, a file).
    """

    id: str
    text: str
    title: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage of a retrieval store: a window of tokens of one document.

    Parameters
    ----------
    id : str
        Unique within the store.
    text : str
        The text of the window.
    n_tokens : int
        Tokens of the window, counted by the split's tokenizer.
    document_id : str
        The document that the window was cut from.
    n_new_tokens : int or None
        The unique tokens that this passage adds to the store: ``n_tokens`` less the overlap with the window
        before it. None (the default) means that nothing overlaps.

    Examples
    --------
    >>> Passage("a#0", "The first window.", 4, "a").n_new_tokens
    4
    """

    id: str
    text: str
    n_tokens: int
    document_id: str
    n_new_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.n_new_tokens is None:
            object.__setattr__(self, "n_new_tokens", self.n_tokens)
