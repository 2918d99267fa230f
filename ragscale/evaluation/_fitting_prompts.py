"""From text to tokens: contexts that fit, cut where it hurts least, split from what is scored as lm-eval does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from ragscale.evaluation._language_model import LanguageModel, ScoreRequest, Tokens
from ragscale.evaluation._pieces import Pieces
from ragscale.evaluation._prompts import PromptTemplate

_TAIL = 240  # characters at the end of a long context that are encoded again with each continuation
_CHECKED = 8  # long contexts per call whose shortcut is compared with encoding everything
_CLEARLY = 8  # tokens over the limit from which an estimate of the length is acted on

Pair = tuple[list[int], list[list[int]]]


@dataclass(frozen=True, slots=True)
class Draft:
    """The parts of a prompt before it is made to fit."""

    question: str
    passages: tuple[str, ...]
    shots: tuple[str, ...]
    continuations: tuple[str, ...]
    reserve: int = 0


@dataclass(slots=True)
class Cut:
    """What had to go, in tokens (passages: also how many were touched; shots: how many were dropped)."""

    passage_tokens: int = 0
    passages: int = 0
    shots: int = 0
    question_tokens: int = 0
    answer_tokens: int = 0

    @property
    def any(self) -> bool:
        """Whether anything was cut."""
        return any((self.passage_tokens, self.shots, self.question_tokens, self.answer_tokens))


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt in tokens: the context text it came from, one request, and what was cut."""

    context: str
    request: ScoreRequest
    cut: Cut


@dataclass(slots=True)
class _Plan:
    """A prompt on its way: the passages as they were (``full``, ``lengths``) and as they are now."""

    draft: Draft
    cut: Cut
    full: tuple[str, ...]
    lengths: list[int]
    passages: tuple[str, ...]
    shots: tuple[str, ...]
    text: str = ""
    remaining: int = 0
    room: int = 0

    @property
    def can_shrink(self) -> bool:
        return bool(self.passages or self.shots)


class Fitter:
    """Fits drafts into a model's context; remembers the tokens of every passage it has seen."""

    def __init__(self, model: LanguageModel, template: PromptTemplate, max_length: int) -> None:
        self.model, self.template, self.max_length = model, template, max_length
        self.start: Tokens = tuple(getattr(model, "start", ()))
        self._pieces = Pieces(model.encode)
        self._tokens: dict[str, list[int]] = {}
        self._shortened: dict[tuple[str, int], str] = {}
        self._done: dict[Draft, Fitted] = {}

    def fit(self, drafts: Sequence[Draft]) -> list[Fitted]:
        """Return every draft in tokens, cut where it is too long.

        All passages of a prompt are shortened to one level; worked examples are dropped only after the passages, and
        the question is cut last, from the left. Drafts that were seen before are not done again.
        """
        new = [draft for draft in dict.fromkeys(drafts) if draft not in self._done]
        if new:
            self._done.update(zip(new, self._fit(new), strict=True))
        return [self._done[draft] for draft in drafts]

    def _fit(self, drafts: Sequence[Draft]) -> list[Fitted]:
        passages = {passage for draft in drafts for passage in draft.passages}
        self._remember(passages)
        if (limit := self.template.passage_tokens) is not None:
            self._remember(set(self._shorten(sorted(passages), limit)))
        alone = self._lengths({text for draft in drafts for text in draft.continuations})
        plans = [self._plan(draft, max((alone[text] for text in draft.continuations), default=0)) for draft in drafts]
        self._shorten_by_estimate(plans)
        pairs: dict[int, Pair] = {}
        waiting = list(range(len(plans)))
        while waiting:
            mine = [plans[row] for row in waiting]
            encoded = self._encode_pairs([plan.text for plan in mine], [plan.draft.continuations for plan in mine])
            pairs.update(zip(waiting, encoded, strict=True))
            waiting = [row for row in waiting if self._excess(pairs[row], drafts[row]) > 0 and plans[row].can_shrink]
            for row in waiting:
                self._shrink(plans[row], self._excess(pairs[row], drafts[row]))
        self._remember({passage for plan in plans for passage in plan.passages})
        return [self._fitted(plan, pairs[row]) for row, plan in enumerate(plans)]

    # ------------------------------------------------------------------------------------------------- making it fit

    def _plan(self, draft: Draft, n_answer: int) -> _Plan:
        cut = Cut()
        passages = tuple(self._cut_passage(passage, self.template.passage_tokens, cut) for passage in draft.passages)
        plan = _Plan(draft, cut, passages, [len(self._of(passage)) for passage in passages], passages, draft.shots)
        plan.remaining = sum(plan.lengths)
        plan.room = self.max_length - len(self.start) - max(draft.reserve, n_answer - 1)
        return self._rebuild(plan)

    def _rebuild(self, plan: _Plan) -> _Plan:
        plan.text = self.template.build(plan.draft.question, plan.passages, plan.shots)
        return plan

    def _shorten_by_estimate(self, plans: Sequence[_Plan]) -> None:
        """Shorten what is clearly too long before it is encoded: a prompt is about as long as its parts."""
        bare = [self.template.build(plan.draft.question, (), plan.shots) for plan in plans]
        lengths = self._lengths(set(bare))
        for plan, text in zip(plans, bare, strict=True):
            excess = lengths[text] + plan.remaining + 2 * len(plan.passages) - plan.room
            if excess > _CLEARLY and plan.can_shrink:
                self._shrink(plan, excess)

    def _shrink(self, plan: _Plan, excess: int) -> None:
        if plan.passages:
            plan.remaining -= excess + 1  # what is cut anew may join differently
            level = _water_level(plan.lengths, plan.remaining)
            shorter = (self._truncate(passage, level) for passage in plan.full) if level > 0 else ()
            plan.passages = tuple(passage for passage in shorter if passage.strip())
        else:
            plan.shots = plan.shots[1:]
        self._rebuild(plan)

    def _fitted(self, plan: _Plan, pair: Pair) -> Fitted:
        left = [len(self._of(passage)) for passage in plan.passages]
        lost = [before - after for before, after in zip_longest(plan.lengths, left, fillvalue=0)]
        plan.cut.shots = len(plan.draft.shots) - len(plan.shots)
        plan.cut.passage_tokens += sum(lost)
        plan.cut.passages = max(plan.cut.passages, sum(tokens > 0 for tokens in lost))
        return Fitted(plan.text, self._request(pair, plan.draft, plan.cut), plan.cut)

    def _excess(self, pair: Pair, draft: Draft) -> int:
        context, continuations = pair
        room = self.max_length - max(draft.reserve, max(map(len, continuations), default=1) - 1)
        return len(self.start) + max(1, len(context)) - max(1, room)

    def _request(self, pair: Pair, draft: Draft, cut: Cut) -> ScoreRequest:
        context, continuations = pair
        whole = max(map(len, continuations), default=0)
        if whole > self.max_length:
            cut.answer_tokens += whole - self.max_length
            continuations = [continuation[: self.max_length] for continuation in continuations]
        excess = self._excess((context, continuations), draft)
        if excess > 0:
            cut.question_tokens += excess
            context = context[excess:]
        ids = (*self.start, *context) or (self.model.prefix_token,)
        return ScoreRequest(ids, tuple(map(tuple, continuations)))

    # --------------------------------------------------------------------------------------------------- tokenisation

    def _encode_pairs(self, contexts: Sequence[str], continuations: Sequence[Sequence[str]]) -> list[Pair]:
        """Return tokens of contexts and continuations: encoded together, split where the context's own tokens end.

        Spaces that end a context belong to the continuation, since that is how tokenizers see them.
        """
        bare = [context.rstrip() for context in contexts]
        moved = [context[len(text) :] for context, text in zip(contexts, bare, strict=True)]
        unique = {text: row for row, text in enumerate(dict.fromkeys(bare))}
        encoded = self._pieces.encode(list(unique))
        tails = [self._tail(text) for text in unique]
        tail_tokens = self._pieces.encode([text[cut:] for text, cut in zip(unique, tails, strict=True)])
        heads: list[list[int]] = []
        for row, (tokens, tail) in enumerate(zip(encoded, tail_tokens, strict=True)):
            same = len(tail) <= len(tokens) and tokens[len(tokens) - len(tail) :] == tail
            if not same:
                tails[row] = 0
            heads.append(tokens[: len(tokens) - len(tail)] if tails[row] else [])
        pieces = [
            (unique[text], text[tails[unique[text]] :] + spaces + continuation)
            for text, spaces, wanted in zip(bare, moved, continuations, strict=True)
            for continuation in wanted
        ]
        whole = self._pieces.encode([piece for _, piece in pieces])
        joined = [heads[row] + tokens for (row, _), tokens in zip(pieces, whole, strict=True)]
        self._check_shortcut(list(unique), tails, pieces, joined)
        pairs, place = [], 0
        for text, wanted in zip(bare, continuations, strict=True):
            context = encoded[unique[text]]
            split, shared = [], len(context)
            mine = joined[place : place + len(wanted)]
            place += len(wanted)
            shared = min([shared, *(len(tokens) - 1 for tokens in mine)])
            split = [tokens[shared:] for tokens in mine]
            pairs.append((context[:shared], split))
        return pairs

    def _tail(self, text: str) -> int:
        """Return where the end of a long text starts that can be encoded alone: a space between two words."""
        place = len(text) - _TAIL
        while place > _TAIL:
            if text[place] == " " and text[place - 1].isalnum() and text[place + 1].isalnum():
                return place
            place -= 1
        return 0

    def _check_shortcut(
        self, texts: list[str], tails: list[int], pieces: list[tuple[int, str]], joined: list[list[int]]
    ) -> None:
        """Encode some long prompts whole; if one differs, encode all of them whole."""
        long = [place for place, (row, _) in enumerate(pieces) if tails[row]]
        if not long:
            return
        step = max(1, len(long) // _CHECKED)
        wholes = {place: texts[pieces[place][0]][: tails[pieces[place][0]]] + pieces[place][1] for place in long}
        sample = long[::step][:_CHECKED]
        if self.model.encode([wholes[place] for place in sample]) != [joined[place] for place in sample]:
            for place, tokens in zip(long, self.model.encode([wholes[place] for place in long]), strict=True):
                joined[place] = tokens

    def _lengths(self, texts: set[str]) -> dict[str, int]:
        ordered = sorted(texts)
        return dict(zip(ordered, map(len, self._pieces.encode(ordered)), strict=True))

    def _remember(self, passages: set[str]) -> None:
        new = sorted(passages - self._tokens.keys())
        self._tokens.update(zip(new, self._pieces.encode(new), strict=True))

    def _of(self, passage: str) -> list[int]:
        if passage not in self._tokens:
            self._remember({passage})
        return self._tokens[passage]

    def _cut_passage(self, passage: str, limit: int | None, cut: Cut) -> str:
        excess = len(self._of(passage)) - (limit or len(self._of(passage)))
        if excess <= 0:
            return passage
        cut.passage_tokens += excess
        cut.passages += 1
        return self._truncate(passage, limit or 0)

    def _truncate(self, passage: str, n: int) -> str:
        """Return the longest beginning of a passage that has at most n tokens."""
        return self._shorten([passage], n)[0]

    def _shorten(self, passages: Sequence[str], n: int) -> list[str]:
        """Return the beginnings of passages, all cut at once where that was not done before."""
        long = [passage for passage in passages if len(self._of(passage)) > n and (passage, n) not in self._shortened]
        texts = self.model.decode([self._of(passage)[:n] for passage in long])
        for passage, text in zip(long, texts, strict=True):
            self._shortened[passage, n] = self._beginning(passage, text.rstrip("\N{REPLACEMENT CHARACTER}"), n)
        return [self._shortened.get((passage, n), passage) for passage in passages]

    def _beginning(self, passage: str, text: str, n: int) -> str:
        """Return the decoded text if the passage begins with it, else the longest beginning of n tokens."""
        if passage.startswith(text):
            return text
        low, high = 0, len(passage)  # the tokenizer normalises: search the place instead
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if len(self.model.encode([passage[:middle]])[0]) <= n else (low, middle - 1)
        return passage[:low]


def _water_level(lengths: Sequence[int], total: int) -> int:
    """Return the largest level at which sum(min(length, level)) is at most total (0 if total is not positive)."""
    level, left = 0, total
    for rank, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - rank)
        if length > share:
            return max(0, share)
        level = length
        left -= length
    return max(0, level) if total > 0 else 0
