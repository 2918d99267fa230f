"""Check that a language model keeps the promises that `ragscale.evaluate` relies on."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ragscale._typing import RngLike
from ragscale.evaluation import LanguageModel, ScoreRequest

_TEXTS = ("The river runs to the sea.", "Question: What is dew?\nAnswer:", "naïve café – 3.14", " a")


def check_language_model(
    model: LanguageModel | Callable[[], LanguageModel], *, tolerance: float = 1e-3, rng: RngLike = 0
) -> list[str]:
    """Run the promises of `LanguageModel` on a model.

    Parameters
    ----------
    model : LanguageModel, or a function that makes one
    tolerance : float
        How far log-likelihoods may lie apart that should be equal, in nats (raise it for half precision).
    rng : int, Generator or None
        For the tokens that are scored.

    Returns
    -------
    list of str
        The names of the checks that ran.

    Raises
    ------
    AssertionError
        Naming the broken promise, with the numbers.

    Examples
    --------
    >>> from ragscale.evaluation import LanguageModel, Score
    >>> class Uniform(LanguageModel):  # every byte is as likely as any other
    ...     max_length, prefix_token = 64, 0
    ...
    ...     def _encode(self, texts):
    ...         return [list(text.encode()) for text in texts]
    ...
    ...     def _decode(self, tokens):
    ...         return [bytes(row).decode(errors="replace") for row in tokens]
    ...
    ...     def _score(self, requests):
    ...         scores = []
    ...         for request in requests:
    ...             bits = tuple(-5.545 * len(tokens) for tokens in request.continuations)
    ...             scores.append(Score(bits, tuple(set(tokens) == {97} for tokens in request.continuations)))
    ...         return scores
    ...
    ...     def _generate(self, prompts, max_new_tokens, stop):
    ...         text = "a" * max_new_tokens
    ...         return ["" if "a" in stop else text for _ in prompts]
    >>> check_language_model(Uniform())[:2]
    ['encode_decode', 'probabilities']
    """
    lm = model if isinstance(model, LanguageModel) else model()
    if not isinstance(lm, LanguageModel):
        raise AssertionError(f"expected a LanguageModel, got {type(lm).__name__}")
    return _Checks(lm, tolerance, np.random.default_rng(rng)).run()


class _Checks:
    def __init__(self, lm: LanguageModel, tolerance: float, rng: np.random.Generator) -> None:
        self.lm, self.tolerance, self.rng = lm, tolerance, rng
        self.pool = sorted({token for text in _TEXTS for token in lm.encode([text])[0]})

    def run(self) -> list[str]:
        checks = (
            "encode_decode",
            "probabilities",
            "chain_rule",
            "batch_independence",
            "order",
            "shared_context",
            "limits",
            "greedy_is_generated",
            "stop_strings",
            "fingerprints",
        )
        for name in checks:
            getattr(self, name)()
        return list(checks)

    def draw(self, n: int) -> tuple[int, ...]:
        return tuple(int(self.pool[i]) for i in self.rng.integers(len(self.pool), size=n))

    def requests(self, n: int) -> list[ScoreRequest]:
        most = max(2, min(20, self.lm.max_length // 3))
        return [
            ScoreRequest(
                self.draw(int(self.rng.integers(1, most))),
                tuple(self.draw(int(self.rng.integers(1, 5))) for _ in range(int(self.rng.integers(1, 5)))),
            )
            for _ in range(n)
        ]

    def close(self, promise: str, a: float, b: float) -> None:
        if not abs(a - b) <= self.tolerance:
            raise AssertionError(f"{promise}: {a!r} and {b!r} differ by more than {self.tolerance}")

    def that(self, holds: bool, promise: str) -> None:
        if not holds:
            raise AssertionError(promise)

    def encode_decode(self) -> None:
        one = [self.lm.encode([text])[0] for text in _TEXTS]
        self.that(one == self.lm.encode(list(_TEXTS)), "encode depends on the other texts it is given")
        self.that(all(isinstance(token, int) for row in one for token in row), "encode must give ints")
        for text, back in zip(_TEXTS[:2], self.lm.decode(one[:2]), strict=True):
            self.that(back.strip() == text.strip(), f"decode(encode({text!r})) is {back!r}")

    def probabilities(self) -> None:
        score = self.lm.score([ScoreRequest(self.draw(4), tuple((token,) for token in self.pool))])[0]
        self.that(len(score.logprobs) == len(self.pool), "score must give one log-likelihood per continuation")
        total = math.fsum(math.exp(value) for value in score.logprobs)
        self.that(all(value <= self.tolerance for value in score.logprobs), "a log-likelihood is above 0")
        self.that(total <= 1 + self.tolerance, f"probabilities of different next tokens add up to {total}")
        self.that(sum(score.greedy) <= 1, "more than one next token is called greedy")

    def chain_rule(self) -> None:
        context, first, second = self.draw(5), self.draw(2), self.draw(3)
        whole, head = self.lm.score([ScoreRequest(context, (first + second, first))])[0].logprobs
        tail = self.lm.score([ScoreRequest(context + first, (second,))])[0].logprobs[0]
        self.close("ln p(ab | c) must be ln p(a | c) + ln p(b | ca)", whole, head + tail)

    def batch_independence(self) -> None:
        requests = self.requests(7)
        together = self.lm.score(requests)
        for request, score in zip(requests, together, strict=True):
            alone = self.lm.score([request])[0]
            for a, b in zip(score.logprobs, alone.logprobs, strict=True):
                self.close("a score depends on what is scored beside it", a, b)

    def order(self) -> None:
        requests = self.requests(5)
        forward, backward = self.lm.score(requests), self.lm.score(requests[::-1])[::-1]
        for a, b in zip(forward, backward, strict=True):
            self.close("scores must come in the order of the requests", a.logprobs[0], b.logprobs[0])

    def shared_context(self) -> None:
        context, continuations = self.draw(6), tuple(self.draw(n) for n in (1, 3, 2))
        together = self.lm.score([ScoreRequest(context, continuations)])[0].logprobs
        for continuation, value in zip(continuations, together, strict=True):
            alone = self.lm.score([ScoreRequest(context, (continuation,))])[0].logprobs[0]
            self.close("a continuation's score depends on the other continuations", value, alone)

    def limits(self) -> None:
        context = self.draw(self.lm.max_length - 1)
        value = self.lm.score([ScoreRequest(context, (self.draw(2),))])[0].logprobs[0]
        self.that(math.isfinite(value), f"a request of exactly max_length={self.lm.max_length} inputs gave {value}")
        value = self.lm.score([ScoreRequest((self.lm.prefix_token,), (self.draw(1),))])[0].logprobs[0]
        self.that(math.isfinite(value), f"the prefix token alone as context gave {value}")

    def greedy_is_generated(self) -> None:
        prompts = [self.draw(n) for n in (3, 6, 4)]
        together = self.lm.generate(prompts, max_new_tokens=4)
        for prompt, text in zip(prompts, together, strict=True):
            alone = self.lm.generate([prompt], max_new_tokens=4)[0]
            self.that(alone == text, f"a generated text depends on the batch: {alone!r} and {text!r}")
            best = self.lm.score([ScoreRequest(prompt, tuple((token,) for token in self.pool))])[0]
            if any(best.greedy):
                first = self.lm.decode([[self.pool[best.greedy.index(True)]]])[0]
                ok = text.startswith(first) or not first.isprintable() or not text
                self.that(ok, f"the greedy token is {first!r} but the generated text is {text!r}")

    def stop_strings(self) -> None:
        prompt = self.draw(4)
        text = self.lm.generate([prompt], max_new_tokens=4)[0]
        if text:
            stop = text[len(text) // 2]
            cut = self.lm.generate([prompt], max_new_tokens=4, stop=(stop,))[0]
            self.that(cut == text[: text.index(stop)], f"with stop {stop!r} {text!r} became {cut!r}")

    def fingerprints(self) -> None:
        self.that(self.lm.fingerprint() == self.lm.fingerprint(), "fingerprint() changes without a change of the model")
        same = self.lm.tokenizer_fingerprint() == self.lm.tokenizer_fingerprint()
        self.that(same, "tokenizer_fingerprint() changes without a change of the tokenizer")
