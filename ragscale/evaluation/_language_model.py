"""What an evaluation needs of a model: tokens of a text, log-probabilities of continuations, greedy answers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ragscale._scripts import broken_character
from ragscale.errors import ConfigError

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """One context with the continuations to score after it.

    Parameters
    ----------
    context : tuple of int
        Token ids; at least one.
    continuations : tuple of tuple of int
        Token ids of each continuation; each at least one.
    """

    context: Tokens
    continuations: tuple[Tokens, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """Log-likelihoods of the continuations of one request.

    Parameters
    ----------
    logprobs : tuple of float
        Sum over the continuation's tokens of ln p(token | context and tokens before it), in nats.
    greedy : tuple of bool
        Whether greedy decoding would write exactly this continuation.
    """

    logprobs: tuple[float, ...]
    greedy: tuple[bool, ...]


class LanguageModel(ABC):
    """A model that can be evaluated. Subclass it and write ``_encode``, ``_decode``, ``_score`` and ``_generate``.

    Parameters
    ----------
    max_length : int
        The longest input in tokens.
    prefix_token : int
        The token that stands for "nothing before": the context of an empty prompt.

    Notes
    -----
    `ragscale.testing.check_language_model` runs the promises of this class on a model of yours.

    Examples
    --------
    >>> from ragscale.evaluation import LanguageModel, Score
    >>> class Even(LanguageModel):
    ...     max_length, prefix_token = 4096, 0
    ...     def _encode(self, texts):
    ...         return [list(text.encode()) for text in texts]
    ...     def _decode(self, tokens):
    ...         return [bytes(line).decode() for line in tokens]
    ...     def _score(self, requests):
    ...         lengths = [[len(tokens) for tokens in request.continuations] for request in requests]
    ...         return [Score(tuple(-5.5 * n for n in line), (False,) * len(line)) for line in lengths]
    ...     def _generate(self, prompts, max_new_tokens, stop):
    ...         return [""] * len(prompts)
    >>> Even().encode(["sea"])
    [[115, 101, 97]]
    """

    max_length: int
    prefix_token: int

    @abstractmethod
    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without special tokens."""

    @abstractmethod
    def _decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each sequence of token ids."""

    @abstractmethod
    def _score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Return one `Score` per request; contexts and continuations fit into ``max_length``."""

    @abstractmethod
    def _generate(self, prompts: Sequence[Tokens], max_new_tokens: int, stop: Sequence[str]) -> list[str]:
        """Return the greedy continuation of each prompt, ended before the first stop string."""

    def fingerprint(self) -> str:
        """Return a digest that changes when the answers may change; evaluations are resumed by it.

        The default names the class only: override it where several models share a class.
        """
        return type(self).__qualname__

    def tokenizer_fingerprint(self) -> str:
        """Return a digest of the tokenizer; prepared prompts are shared between models with the same one."""
        probe = "The quick brown fox: 3.14 isn't äöü?\n\n  Dog."
        return f"{type(self).__qualname__}:{self.encode([probe])[0]}"

    @final
    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without special tokens.

        Raises
        ------
        ConfigError
            When ``texts`` is one text instead of several, or a text is no string or holds half a character.
        """
        if isinstance(texts, str):
            raise ConfigError(f"texts must be several texts, got one: give [{texts[:40]!r}]")
        texts = list(texts)
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise ConfigError(f"text {row} is a {type(text).__name__}, not a string")
            if (place := broken_character(text)) >= 0:
                raise ConfigError(f"text {row} holds half a character ({text[place]!r}, a lone surrogate) at {place}")
        encoded = self._encode(texts) if texts else []
        if len(encoded) != len(texts):
            raise ConfigError(f"{type(self).__name__}._encode gave {len(encoded)} results for {len(texts)} texts")
        return encoded

    @final
    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each sequence of token ids."""
        return self._decode(tokens) if len(tokens) else []

    @final
    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Return the log-likelihood of every continuation.

        Raises
        ------
        ConfigError
            When a context or continuation is empty, or one does not fit into ``max_length``: all are listed.
        """
        problems = []
        for row, request in enumerate(requests):
            longest = max(map(len, request.continuations), default=0)
            if not request.context or not request.continuations or not all(request.continuations):
                problems.append(f"request {row} has an empty context, continuation, or no continuation")
            elif len(request.context) + longest - 1 > self.max_length:
                problems.append(
                    f"request {row} has {len(request.context)} + {longest} tokens, the model reads {self.max_length}"
                )
        if problems:
            raise ConfigError("cannot score: " + "; ".join(problems[:20]))
        scores = self._score(requests) if len(requests) else []
        name = f"{type(self).__name__}._score"
        if len(scores) != len(requests):
            raise ConfigError(f"{name} gave {len(scores)} scores for {len(requests)} requests")
        for row, (request, score) in enumerate(zip(requests, scores, strict=True)):
            n = len(request.continuations)
            if len(score.logprobs) != n or len(score.greedy) != n:
                problems.append(
                    f"request {row} has {n} continuations, got {len(score.logprobs)} logprobs and "
                    f"{len(score.greedy)} greedy"
                )
            elif any(math.isnan(value) or value == math.inf for value in score.logprobs):
                problems.append(
                    f"request {row} got logprobs {score.logprobs}: a log-probability is a number of at most 0"
                )
        if problems:
            raise ConfigError(f"{name} broke its contract: " + "; ".join(problems[:20]))
        return scores

    @final
    def generate(self, prompts: Sequence[Tokens], *, max_new_tokens: int = 32, stop: Sequence[str] = ()) -> list[str]:
        """Return the greedy continuation of each prompt, ended before the first stop string.

        Raises
        ------
        ConfigError
            When a prompt is empty, or leaves no room for ``max_new_tokens`` within ``max_length``.
        """
        room = self.max_length - max_new_tokens
        if isinstance(prompts, str):
            raise ConfigError("prompts must be token ids, several of them, got a text: encode([text]) first")
        stop = (stop,) if isinstance(stop, str) else stop
        bad = [row for row, prompt in enumerate(prompts) if not 1 <= len(prompt) <= room]
        if bad:
            raise ConfigError(
                f"cannot generate {max_new_tokens} tokens: {len(bad)} prompts are empty or longer than {room} tokens "
                f"(the first is prompt {bad[0]} with {len(prompts[bad[0]])})"
            )
        texts = self._generate(prompts, max_new_tokens, stop) if len(prompts) else []
        if len(texts) != len(prompts):
            raise ConfigError(f"{type(self).__name__}._generate gave {len(texts)} texts for {len(prompts)} prompts")
        return texts
