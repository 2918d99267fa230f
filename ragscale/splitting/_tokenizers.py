"""One tokenizer for the whole split: load any Hugging Face fast tokenizer, or train one offline."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ragscale._counts import as_count
from ragscale._extras import from_pretrained, require
from ragscale._files import atomic_write, check_fields, damaged, load_json
from ragscale._scripts import broken_character
from ragscale.errors import CheckpointError, ConfigError, SplitError
from ragscale.passages import Document

if TYPE_CHECKING:
    from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

    from ragscale._typing import Tokenizer

END_OF_TEXT = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|eot_id|>", "[SEP]")


@dataclass(frozen=True, slots=True)
class SplitTokenizer:
    """The tokenizer as the split keeps it: its JSON text, and which token ends a document.

    Truncation, padding and the post-processor (which adds tokens such as BOS around a text) are taken out: a split
    holds the tokens of texts and the end-of-text token, nothing else, and one vocabulary has one digest.
    """

    json: str
    eos_token: str

    @property
    def digest(self) -> str:
        """SHA-256 of the tokenizer's JSON text and its end-of-text token."""
        return hashlib.sha256(f"{self.eos_token}\n{self.json}".encode()).hexdigest()

    def backend(self) -> Any:
        """Return the ``tokenizers.Tokenizer`` that encodes text only: no special tokens added, none recognised.

        A text that happens to contain ``<|endoftext|>`` is encoded as those characters, so that only the split
        itself can end a document.
        """
        backend = require("tokenizers", "split").Tokenizer.from_str(self.json)
        backend.encode_special_tokens = True
        return backend

    def save(self, directory: Path) -> None:
        """Write ``tokenizer.json`` and the configuration with which ``AutoTokenizer.from_pretrained`` loads it."""
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": self.eos_token,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1_000_000_000,
        }
        with atomic_write(directory / "tokenizer.json", "w", encoding="utf-8") as file:
            file.write(self.json)
        with atomic_write(directory / "tokenizer_config.json", "w", encoding="utf-8") as file:
            json.dump(settings, file, indent=2, ensure_ascii=False)

    @classmethod
    def load(cls, directory: Path) -> SplitTokenizer:
        """Read what `save` wrote."""
        settings = load_json(directory / "tokenizer_config.json", error=SplitError)
        check_fields(settings, {"eos_token": str}, name=str(directory / "tokenizer_config.json"), error=SplitError)
        with damaged(directory / "tokenizer.json", SplitError):
            return cls((directory / "tokenizer.json").read_text(encoding="utf-8"), settings["eos_token"])


TokenizerSource: TypeAlias = "str | os.PathLike[str] | Tokenizer | SplitTokenizer"
"""A name on the hub, a path, a Hugging Face or a ``tokenizers`` object."""


def as_split_tokenizer(tokenizer: TokenizerSource, eos_token: str | None = None) -> SplitTokenizer:
    """Take a tokenizer in any form: a name on the hub, a path, a Hugging Face or a ``tokenizers`` object.

    Raises
    ------
    ConfigError
        When it has no fast backend, or the end-of-text token cannot be told.
    """
    backend: Any
    found: Any
    given: Any = tokenizer
    if isinstance(tokenizer, SplitTokenizer):
        if eos_token in (None, tokenizer.eos_token):
            return tokenizer
        backend, found = tokenizer.backend(), None
    elif isinstance(tokenizer, str | os.PathLike):
        backend, found = _from_path_or_name(os.fspath(tokenizer))
    elif hasattr(tokenizer, "backend_tokenizer"):
        backend, found = given.backend_tokenizer, given.eos_token
    elif hasattr(tokenizer, "encode_batch") and hasattr(tokenizer, "to_str"):
        backend, found = tokenizer, None
    else:
        raise ConfigError(
            f"a tokenizer must be a name, a path, a Hugging Face fast tokenizer or a tokenizers.Tokenizer, "
            f"got {type(tokenizer).__name__}"
        )
    content = json.loads(backend.to_str())
    content.update(truncation=None, padding=None, post_processor=None)
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    backend = require("tokenizers", "split").Tokenizer.from_str(text)
    eos = eos_token or found or next((token for token in END_OF_TEXT if backend.token_to_id(token) is not None), None)
    if eos is None or backend.token_to_id(str(eos)) is None:
        raise ConfigError(
            f"the tokenizer has no end-of-text token {eos!r} in its vocabulary: pass eos_token= with one that it has"
        )
    return SplitTokenizer(text, str(eos))


def _from_path_or_name(name: str) -> tuple[Any, str | None]:
    path = Path(name)
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.is_file():
        backend = require("tokenizers", "split").Tokenizer.from_file(str(file))
        settings = file.with_name("tokenizer_config.json")
        eos = json.loads(settings.read_text(encoding="utf-8")).get("eos_token") if settings.is_file() else None
        return backend, eos["content"] if isinstance(eos, dict) else eos
    try:
        tokenizer = from_pretrained(require("transformers", "split").AutoTokenizer, name)
    except CheckpointError as error:
        raise ConfigError(
            f"no tokenizer at {name!r}: neither a folder with tokenizer.json, nor such a file, nor a hub name that "
            f"can be loaded here ({str(error).splitlines()[0]})"
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(f"the tokenizer {name!r} has no fast version, which the split needs for text offsets")
    return tokenizer.backend_tokenizer, tokenizer.eos_token


def to_hugging_face(tokenizer: SplitTokenizer) -> PreTrainedTokenizerFast:
    """Return the Hugging Face fast tokenizer (imports transformers, which takes seconds)."""
    return require("transformers", "split").PreTrainedTokenizerFast(
        tokenizer_object=require("tokenizers", "split").Tokenizer.from_str(tokenizer.json),
        eos_token=tokenizer.eos_token,
        clean_up_tokenization_spaces=False,
    )


def train_tokenizer(
    documents: Iterable[Document | str], vocab_size: int, *, eos_token: str = "<|endoftext|>", min_frequency: int = 2
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on documents or texts, without network.

    Parameters
    ----------
    documents : iterable of Document or str
        What to learn the merges from; read once.
    vocab_size : int
        Size of the vocabulary, at least 257: the 256 bytes and the end-of-text token. A small corpus may give less.
    eos_token : str
        The token that ends a document.
    min_frequency : int
        Pairs seen less often are not merged.

    Returns
    -------
    transformers.PreTrainedTokenizerFast
        Any text decodes to itself: nothing is normalised, every byte is in the vocabulary.

    Raises
    ------
    ConfigError
        When a document is no text or holds half a character: the message names it and the place.

    Examples
    --------
    >>> tokenizer = train_tokenizer(["low lower lowest"] * 3, vocab_size=270)
    >>> tokenizer.decode(tokenizer.encode("the lowest: µ"))
    'the lowest: µ'
    """
    return to_hugging_face(trained_tokenizer(documents, vocab_size, eos_token=eos_token, min_frequency=min_frequency))


def trained_tokenizer(
    documents: Iterable[Document | str], vocab_size: int, *, eos_token: str = "<|endoftext|>", min_frequency: int = 2
) -> SplitTokenizer:
    """Train as `train_tokenizer` does, without importing transformers, which takes seconds."""
    vocab_size = as_count("vocab_size", vocab_size)
    min_frequency = as_count("min_frequency", min_frequency)
    if isinstance(documents, str | bytes) or not isinstance(documents, Iterable):
        raise ConfigError(
            f"documents must be several documents or texts, got {type(documents).__name__}: give a list, or read_jsonl "
            "of a file"
        )
    if vocab_size < 257:
        raise ConfigError(f"vocab_size must be at least 257 (256 bytes and {eos_token!r}), got {vocab_size}")
    return _train(documents, vocab_size, eos_token, min_frequency)


def _train(documents: Iterable[Document | str], vocab_size: int, eos_token: str, min_frequency: int) -> SplitTokenizer:
    tokenizers = require("tokenizers", "split")
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[eos_token],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_texts(documents), trainer=trainer)
    return as_split_tokenizer(backend, eos_token)


def _texts(documents: Iterable[Document | str]) -> Iterator[str]:
    for number, document in enumerate(documents, 1):
        text = document if isinstance(document, str) else getattr(document, "text", None)
        identity = getattr(document, "id", None)
        name = f"text {number}" if identity is None else f"document {identity!r} (the {_nth(number)})"
        if not isinstance(text, str):
            raise ConfigError(f"{name} has no text: expected a Document or a string, got {type(document).__name__}")
        if (place := broken_character(text)) >= 0:
            raise ConfigError(
                f"{name} holds half a character ({text[place]!r}, a lone surrogate) at place {place}, which no "
                "tokenizer takes: leave it out (split_corpus does), or replace it"
            )
        yield text


def _nth(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"
