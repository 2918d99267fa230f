"""lm-eval with retrieval, and ragscale's scorer inside lm-eval. Importing this module imports lm-eval."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from ragscale._extras import require
from ragscale.errors import ConfigError
from ragscale.evaluation._decoding import cut_at
from ragscale.evaluation._fitting_prompts import Cut, Draft, Fitter
from ragscale.evaluation._harness_pairs import score_pairs
from ragscale.evaluation._language_model import LanguageModel, Score, ScoreRequest, Tokens
from ragscale.evaluation._models import load_language_model
from ragscale.evaluation._prepare import rolling_windows
from ragscale.evaluation._prompts import PromptTemplate

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM

    from ragscale.evaluation._models import LoadOptions, ModelLike
    from ragscale.retrieval import Retriever
else:
    LM = require("lm_eval.api.model", "lm-eval").LM

_HARNESS_TOKENS = 256  # what lm-eval generates where a task does not say
_LABEL = re.compile(r"^\s*(question|q)\s*:\s*", re.IGNORECASE)
_CUE = re.compile(r"\s*\b(answer|a)\s*:\s*$", re.IGNORECASE)


def question_in_context(context: str) -> str:
    r"""Return the bare question of an lm-eval prompt: its last block, without "Question:" before and "Answer:" after.

    Examples
    --------
    >>> question_in_context("Q: Who?\nA: He\n\nQuestion: What is dew?\nAnswer:")
    'What is dew?'
    """
    block = context.rstrip().rsplit("\n\n", 1)[-1]
    return _CUE.sub("", _LABEL.sub("", block)).strip() or context.strip()


class HarnessLM(LM):
    """A ragscale language model as an lm-eval model: contexts that several choices share are computed once.

    Parameters
    ----------
    model : LanguageModel, Checkpoint, Hugging Face model, torch module, path or hub name
    **load : optional
        As of `load_language_model`: ``tokenizer``, ``device``, ``batch_tokens``, ``max_length``.
    """

    def __init__(self, model: ModelLike, **load: Unpack[LoadOptions]) -> None:
        super().__init__()
        self.model: LanguageModel = load_language_model(model, **load).model

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""
        return self.model.max_length

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval keys its request cache by."""
        return self.model.tokenizer_fingerprint()

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return (log-likelihood, is greedy) of every (context, continuation), each cut by itself as lm-eval does."""
        return score_pairs(self.model, [_args(request) for request in requests])

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of every text, in windows that do not overlap in what they score."""
        tokens = self.model.encode([_args(request)[0] for request in requests])
        windows = [list(rolling_windows(ids, self.model.prefix_token, self.max_length)) for ids in tokens]
        scores = iter(self.model.score([window for of_text in windows for window in of_text]))
        return [sum(next(scores).logprobs[0] for _ in of_text) for of_text in windows]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return the greedy continuation of every context."""
        groups: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for row, request in enumerate(requests):
            groups.setdefault(_generation(_args(request)[1]), []).append(row)
        texts = [""] * len(requests)
        for (until, length), rows in groups.items():
            contexts = self.model.encode([_args(requests[row])[0] for row in rows])
            room = self.max_length - length
            if room < 1:
                raise ConfigError(f"max_gen_toks is {length} but the model reads {self.max_length} tokens")
            start: Tokens = tuple(getattr(self.model, "start", ()))
            prompts = [(*start, *ids[-(room - len(start)) :]) or (self.model.prefix_token,) for ids in contexts]
            for row, text in zip(rows, self.model.generate(prompts, max_new_tokens=length, stop=until), strict=True):
                texts[row] = cut_at(text, until)
        return texts


class RetrievalLM(LM):
    """Any lm-eval task with retrieval: passages are put before the prompt, and the model behind answers.

    Parameters
    ----------
    lm : lm_eval LM, or anything that `HarnessLM` takes
        The model that answers.
    retriever : Retriever
        Already indexed.
    k : int
        Passages in a prompt.
    store_tokens : int, optional
        Size R of the store; by default all that is indexed.
    template : PromptTemplate, optional
        Separators, order and token budgets of the passages; its question part is the task's own prompt.
    query : callable, optional
        From the task's prompt to the query. By default `question_in_context`. It never sees the choices or the answer.
    max_length : int, optional
        Fit prompts into so many tokens: passages are shortened to one level, never the prompt from the left.

    Attributes
    ----------
    cut : list of Cut
        What was cut from each distinct prompt so far.

    Notes
    -----
    Rolling log-likelihood (bits per byte of a whole text) is refused: a query made of the scored text would leak it.
    Use a ``text`` task with ``prefix_words`` and `evaluate`.
    """

    def __init__(
        self,
        lm: LM | ModelLike,
        retriever: Retriever,
        *,
        k: int = 5,
        store_tokens: int | None = None,
        template: PromptTemplate | None = None,
        query: Callable[[str], str] | None = None,
        max_length: int | None = None,
    ) -> None:
        super().__init__()
        if k < 1:
            raise ConfigError(f"k must be at least 1, got {k}")
        self.lm: LM = lm if isinstance(lm, LM) else HarnessLM(lm)
        self.retriever, self.k, self.store_tokens = retriever, k, store_tokens
        self.query = query or question_in_context
        self._tokens = self.lm.model if isinstance(self.lm, HarnessLM) else _Tokens(self.lm)
        limit = max_length or self._tokens.max_length
        bare = dataclasses.replace(template or PromptTemplate(), question="{question}")
        self._fitter = Fitter(self._tokens, bare, limit)
        self.cut: list[Cut] = []

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""
        return self._tokens.max_length

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval keys its request cache by; the retriever and the store belong to it."""
        return f"{self._tokens.tokenizer_fingerprint()}-{type(self.retriever).__name__}-{self.k}-{self.store_tokens}"

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return (log-likelihood, is greedy) of every (context, continuation), with passages before the context."""
        longest: dict[str, dict[str, None]] = {}
        for request in requests:
            longest.setdefault(_args(request)[0], {})[_args(request)[1]] = None
        contexts = self._augment({context: (tuple(found), 0) for context, found in longest.items()})
        return self.lm.loglikelihood([_with(r, (contexts[_args(r)[0]], _args(r)[1])) for r in requests])

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Refuse: see the class."""
        raise ConfigError(
            "nothing can be retrieved for a rolling log-likelihood: the query would be the scored text itself. Use a "
            "text task with prefix_words and ragscale.evaluate"
        )

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return the greedy continuation of every context, with passages before it."""
        wanted = {_args(request)[0]: (("x",), _generation(_args(request)[1])[1]) for request in requests}
        contexts = self._augment(wanted)
        return self.lm.generate_until([_with(r, (contexts[_args(r)[0]], _args(r)[1])) for r in requests])

    def _augment(self, wanted: dict[str, tuple[tuple[str, ...], int]]) -> dict[str, str]:
        """Return every distinct context with its passages before it."""
        queries = [self.query(context) for context in wanted]
        hits = self.retriever.search(queries, self.k, store_tokens=self.store_tokens)
        if isinstance(hits, dict):
            hits = next(iter(hits.values()))
        drafts = []
        for row, (context, (continuations, reserve)) in enumerate(wanted.items()):
            passages = tuple(passage.text for passage in hits.take(self.retriever.passages, row))
            drafts.append(Draft(context, passages, (), continuations, reserve))
        fitted = self._fitter.fit(drafts)
        self.cut += [one.cut for one in fitted]
        return {draft.question: one.context for draft, one in zip(drafts, fitted, strict=True)}


class _Tokens(LanguageModel):
    """The tokenizer of an lm-eval model, to fit prompts with; it scores nothing."""

    def __init__(self, lm: Any) -> None:
        if not hasattr(lm, "tok_encode") or not hasattr(lm, "tok_decode"):
            raise ConfigError(
                f"{type(lm).__name__} has no tok_encode and tok_decode, so prompts cannot be fitted to it"
            )
        self.lm, self.max_length = lm, int(lm.max_length)
        self.prefix_token = int(getattr(lm, "prefix_token_id", 0) or 0)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(self.lm.tok_encode(text, add_special_tokens=False)) for text in texts]

    def _decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        return [self.lm.tok_decode(list(ids)) for ids in tokens]

    def _score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        raise ConfigError("this model only fits prompts")

    def _generate(self, prompts: Sequence[Tokens], max_new_tokens: int, stop: Sequence[str]) -> list[str]:
        raise ConfigError("this model only fits prompts")


def _args(request: Instance) -> Any:
    return request.args


def _with(request: Instance, arguments: tuple[Any, ...]) -> Instance:
    return dataclasses.replace(request, arguments=arguments)


def _generation(kwargs: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    until = kwargs.get("until") or []
    if kwargs.get("do_sample") or float(kwargs.get("temperature") or 0) > 0:
        raise ConfigError(f"only greedy generation is done, got {kwargs}")
    length = int(kwargs.get("max_gen_toks") or kwargs.get("max_new_tokens") or _HARNESS_TOKENS)
    return tuple([until] if isinstance(until, str) else until), length
