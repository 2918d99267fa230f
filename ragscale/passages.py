"""The two units of text, a document of the corpus and a passage of the store, and how one is cut from the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from ragscale._counts import whole_or_same
from ragscale._extras import text_backend
from ragscale._long_texts import encode
from ragscale._scripts import broken_character
from ragscale.errors import ConfigError

if TYPE_CHECKING:
    from ragscale._typing import Tokenizer


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

    Examples
    --------
    >>> from ragscale import Document
    >>> Document("d1", "The sea rises twice a day.", title="Tides").title
    'Tides'
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
        Tokens of the window, counted by the split's tokenizer. The last window of a document counts the
        end-of-text token that the document ends with, though its text does not show it.
    document_id : str
        The document that the window was cut from.
    n_new_tokens : int or None
        The unique tokens that this passage adds to the store: ``n_tokens`` less the overlap with the windows
        listed before it. None (the default) means that nothing overlaps.

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


def check_windows(size: int, overlap: int) -> None:
    """Raise a ConfigError unless windows of ``size`` tokens can overlap by ``overlap`` and still move forward."""
    problems = []
    wrong = [
        f"{name} must be a whole number, got {value!r}"
        for name, value in (("size", size), ("overlap", overlap))
        if not isinstance(value, int) or isinstance(value, bool)
    ]
    if wrong:
        raise ConfigError("passages cannot be cut: " + "; ".join(wrong))
    if size < 2:
        problems.append(f"size must be at least 2 tokens, got {size}")
    if overlap < 0 or overlap >= max(size, 1):
        problems.append(f"overlap must be at least 0 and smaller than size ({size}), got {overlap}")
    if problems:
        raise ConfigError("passages cannot be cut: " + "; ".join(problems))


def token_windows(n_tokens: int, size: int, overlap: int = 0) -> list[tuple[int, int]]:
    """Return the (start, end) token positions of the windows of one document.

    Every window holds at most ``size`` tokens, neighbours share exactly ``overlap``, together they cover the
    document. The last position of a document is its end-of-text token; a last window that would add nothing but
    that token takes one token more from its neighbour, so that no passage is without text.

    Examples
    --------
    >>> token_windows(10, size=4)
    [(0, 4), (4, 8), (8, 10)]
    >>> token_windows(9, size=4)
    [(0, 4), (4, 7), (7, 9)]
    >>> token_windows(10, size=4, overlap=1)
    [(0, 4), (3, 7), (6, 10)]
    """
    cuts = [0, *range(size, n_tokens, size - overlap), n_tokens]
    if len(cuts) > 2 and cuts[-1] - cuts[-2] == 1 and cuts[-2] - cuts[-3] > 1:
        cuts[-2] -= 1
    return [(max(start - overlap, 0), end) for start, end in pairwise(cuts)]


class Encoding(Protocol):
    """What `cut_windows` reads of a ``tokenizers.Encoding``."""

    def __len__(self) -> int: ...
    def token_to_chars(self, token: int, /) -> Any: ...


def cut_windows(text: str, encoding: Encoding, size: int, overlap: int = 0) -> tuple[list[tuple[int, int]], list[str]]:
    """Return the token windows of an encoded document and the text of each, exactly as the document has it.

    The texts of windows without overlap join to the text again, character by character, and none is empty: where
    one character has so many tokens that a window would end inside it with nothing to show (an emoji in windows of
    two), the window goes on to the character's end, though it then has more than ``size`` tokens.

    Parameters
    ----------
    text : str
    encoding : tokenizers.Encoding
        Of ``text``, without the end-of-text token, which is counted here.
    size, overlap : int
    """
    n = len(encoding)

    def character(token: int) -> int:
        if token <= 0:
            return 0
        return encoding.token_to_chars(token)[0] if token < n else len(text)

    windows = token_windows(n + 1, size, overlap)
    texts = [text[character(start) : character(end)] for start, end in windows]
    if not all(texts):
        cuts = _cuts_between_characters(character, n + 1, size, overlap)
        windows = [(max(start - overlap, 0), end) for start, end in pairwise(cuts)]
        texts = [text[character(start) : character(end)] for start, end in windows]
    return windows, texts


def _cuts_between_characters(character: Callable[[int], int], n_tokens: int, size: int, overlap: int) -> list[int]:
    """Return where windows end so that each has text: `token_windows`' places, moved on where nothing would show."""
    cuts = [0]
    while cuts[-1] < n_tokens:
        start = cuts[-1]
        cut = min(start + (size - overlap if start else size), n_tokens)
        shown = character(start - overlap)
        while cut < n_tokens and character(cut) <= shown:
            cut += 1
        if cut == n_tokens - 1 and not overlap:  # what is left is the end-of-text token alone
            cut = cut - 1 if cut - 1 > start and character(cut - 1) > shown else n_tokens
        cuts.append(cut)
    return cuts


def chunk(document: Document, tokenizer: Tokenizer, *, size: int = 256, overlap: int = 0) -> list[Passage]:
    """Cut a document into passages of ``size`` tokens, in reading order.

    Parameters
    ----------
    document : Document
        The document; an empty text gives no passages.
    tokenizer : tokenizers.Tokenizer or Hugging Face fast tokenizer
        Counts the tokens; no special tokens are added, except that the last window counts one end-of-text token, and
        none is recognised: a document that spells ``<|endoftext|>`` holds those characters.
    size : int
        Tokens of a passage, at most, but for a character that alone has more: no passage is without text.
    overlap : int
        Tokens that a passage shares with the one before it.

    Returns
    -------
    list of Passage
        With ids ``"<document id>#<number>"``. Each text is a piece of the document as it stands, not decoded tokens.

    Raises
    ------
    ConfigError
        When size or overlap cannot work, or the text holds half a character.

    Examples
    --------
    >>> import ragscale as rs
    >>> tokenizer = rs.splitting.train_tokenizer(["the sea rises twice a day"] * 3, 300)
    >>> passages = rs.passages.chunk(rs.Document("d", "the sea rises twice a day"), tokenizer, size=4)
    >>> [(passage.id, passage.text) for passage in passages]
    [('d#0', 'the sea rises twice'), ('d#1', ' a day')]
    """
    size, overlap = whole_or_same(size), whole_or_same(overlap)
    check_windows(size, overlap)
    if (place := broken_character(document.text)) >= 0:
        raise ConfigError(
            f"document {document.id!r} holds half a character ({document.text[place]!r}, a lone surrogate) at place "
            f"{place}, which no tokenizer takes: leave it out, or replace it"
        )
    backend = text_backend(tokenizer) or getattr(tokenizer, "backend_tokenizer", tokenizer)
    encoding = encode(backend, document.text)
    if not len(encoding):
        return []
    windows, texts = cut_windows(document.text, encoding, size, overlap)
    passages = []
    reached = 0
    for number, ((start, end), text) in enumerate(zip(windows, texts, strict=True)):
        passages.append(Passage(f"{document.id}#{number}", text, end - start, document.id, end - max(start, reached)))
        reached = end
    return passages
