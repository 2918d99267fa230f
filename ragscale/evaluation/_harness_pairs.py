"""(context, continuation) pairs in tokens, cut as lm-eval cuts them: each by itself, whatever stands beside it."""

from __future__ import annotations

from collections.abc import Sequence

from ragscale.errors import ConfigError
from ragscale.evaluation._language_model import LanguageModel, ScoreRequest, Tokens

Pair = tuple[str, str]


def score_pairs(model: LanguageModel, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
    """Return (log-likelihood, is greedy) of each pair; contexts that are equal after cutting are computed once.

    Raises
    ------
    ConfigError
        When a continuation is empty or alone longer than the model reads: all are listed.
    """
    unique = list(dict.fromkeys(pairs))
    cut = dict(zip(unique, _cut(model, unique), strict=True))
    together: dict[Tokens, dict[Tokens, None]] = {}
    for context, continuation in cut.values():
        together.setdefault(context, {})[continuation] = None
    requests = [ScoreRequest(context, tuple(continuations)) for context, continuations in together.items()]
    found = {
        (request.context, continuation): (logprob, greedy)
        for request, score in zip(requests, model.score(requests), strict=True)
        for continuation, logprob, greedy in zip(request.continuations, score.logprobs, score.greedy, strict=True)
    }
    return [found[cut[pair]] for pair in pairs]


def _cut(model: LanguageModel, pairs: Sequence[Pair]) -> list[tuple[Tokens, Tokens]]:
    """Return context and continuation in tokens: what is too long goes from the left, the BOS token with it."""
    moved = [_with_its_spaces(pair) for pair in pairs]
    texts = list(dict.fromkeys([context for context, _ in moved] + [a + b for a, b in moved]))
    tokens = dict(zip(texts, map(tuple, model.encode(texts)), strict=True))
    start: Tokens = tuple(getattr(model, "start", ()))
    problems, cut = [], []
    for (context, continuation), pair in zip(moved, pairs, strict=True):
        split = _split(tokens[context], tokens[context + continuation])
        before, after = (*start, *split[0]), split[1]
        if not pair[0] and after[:1] == (model.prefix_token,) and len(after) > 1:
            before, after = after[:1], after[1:]  # the text brings the token that stands for "nothing before"
        before = before or (model.prefix_token,)
        if not pair[1] or not after:
            problems.append(f"the continuation {pair[1]!r} after {pair[0][-40:]!r} has no token")
        elif len(after) > model.max_length:
            problems.append(f"the continuation {pair[1][:40]!r}... has {len(after)} tokens")
        room = max(1, model.max_length + 1 - len(after))
        cut.append((before[-room:], after))
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise ConfigError(f"cannot score within {model.max_length} tokens: " + "; ".join(problems[:10]) + more)
    return cut


def _with_its_spaces(pair: Pair) -> Pair:
    """Move spaces that end a context to the continuation, since that is how tokenizers see them."""
    bare = pair[0].rstrip()
    return bare, pair[0][len(bare) :] + pair[1]


def _split(context: Tokens, whole: Tokens) -> tuple[Tokens, Tokens]:
    """Split where the context's own tokens end; a continuation that joined the last of them takes that with it."""
    shared = min(len(context), max(0, len(whole) - 1))
    return context[:shared], whole[shared:]
