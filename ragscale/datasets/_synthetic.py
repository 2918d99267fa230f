"""A small world with known facts: entities with attributes, written about at Zipf frequencies, and asked about.

Everyone can run the whole experiment on it without a corpus. Nothing in it favours memory or retrieval: what a model
remembers depends on how often a fact stands in its prefix of the corpus, what it finds depends on whether the fact
stands in the store, and whether it can use a passage depends on the share of the text that shows how.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from ragscale.errors import ConfigError
from ragscale.passages import Document

_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "dr", "kr", "st", "tr", "pl")
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("", "", "", "n", "r", "l", "s", "k")


@dataclass(frozen=True, slots=True)
class Relation:
    """One kind of fact: how it is written, how it is asked, how many values it can take.

    In a sentence {x} is the entity and {v} the value. Every sentence shares a word with the question, so that a search
    for words can find the one by the other.
    """

    name: str
    sentences: tuple[str, ...]
    question: str
    n_values: int

    def ask(self, who: str) -> str:
        """Return the question with the beginning of its answer, which is the first way to write the fact."""
        statement = self.sentences[0].format(x=who, v="").rstrip(" .")
        return f"{self.question.format(x=who)} {statement[0].upper()}{statement[1:]}"


_RELATIONS = (
    Relation(
        "birthplace",
        ("{x} was born in {v}.", "The town where {x} was born is {v}.", "{v} is where {x} was born."),
        "Where was {x} born?",
        24,
    ),
    Relation(
        "profession",
        ("{x} works as a {v}.", "For a living {x} works as a {v}.", "The work of {x} is that of a {v}."),
        "As what does {x} work?",
        16,
    ),
    Relation(
        "instrument",
        ("{x} plays the {v}.", "In the evening {x} plays the {v}.", "What {x} plays is the {v}."),
        "Which instrument does {x} play?",
        12,
    ),
    Relation(
        "language",
        ("{x} speaks {v}.", "At home {x} speaks {v}.", "The language that {x} speaks is {v}."),
        "Which language does {x} speak?",
        16,
    ),
    Relation(
        "colour",
        ("{x} likes {v}.", "The colour that {x} likes is {v}.", "Of all colours {x} likes {v}."),
        "Which colour does {x} like?",
        8,
    ),
)
_MENTOR = ("The mentor of {x} is {v}.", "As a mentor {x} has {v}.", "{v} is the mentor of {x}.")
_BY_NAME = {relation.name: relation for relation in _RELATIONS}
_FACTS_PER_READER = 3


@dataclass(frozen=True, slots=True)
class SyntheticWorld:
    """Documents, questions and the whole truth about both.

    Attributes
    ----------
    documents : tuple of Document
        The corpus; ``source`` is ``"facts"`` or ``"reading"``.
    questions : tuple of dict
        Records of the JSON Lines question schema: ``id, task, question, answers, choices, answer_index,
        gold_doc_ids, gold_passages, meta``; a gold passage is the whole of a gold document. ``task`` is the name of
        the band for single facts, ``"multi-hop"`` for two.
    bands : tuple of str
        Names of the frequency bands, most frequent first.
    facts : dict
        ``(entity, relation) -> value`` for every entity of the world.
    fact_documents : dict
        ``(entity, relation) -> ids of the documents that state it``, so that the exposures of any fact in any
        prefix or store can be counted.
    """

    documents: tuple[Document, ...]
    questions: tuple[dict[str, Any], ...]
    bands: tuple[str, ...]
    facts: dict[tuple[str, str], str] = field(repr=False)
    fact_documents: dict[tuple[str, str], tuple[str, ...]] = field(repr=False)

    def exposures(self, document_ids: Sequence[str]) -> dict[str, int]:
        """Count, for each question, how often ``document_ids`` state what it asks.

        For a multi-hop question both facts are needed, and the rarer one counts.
        """
        present = set(document_ids)
        return {
            question["id"]: min(
                len(present.intersection(self.fact_documents.get((entity, relation), ())))
                for entity, relation in question["meta"]["facts"]
            )
            for question in self.questions
        }


def synthetic_corpus(
    *,
    n_documents: int = 4000,
    n_entities: int = 400,
    zipf: float = 1.0,
    reading_share: float = 0.5,
    reading_people: int = 1,
    n_strangers: int | None = None,
    asked_share: float = 0.0,
    n_questions: int = 100,
    n_multi_hop: int | None = None,
    n_bands: int = 3,
    facts_per_document: int = 3,
    seed: int = 0,
) -> SyntheticWorld:
    """Write a corpus about invented entities, and the questions that its facts answer.

    A document of the kind ``"facts"`` tells ``facts_per_document`` things about one entity, drawn with probability
    proportional to rank ** -``zipf``, in varied sentences. A document of the kind ``"reading"`` is a passage about
    people who have no other text, followed by questions and their answers: it teaches to answer from a passage and
    nothing about the world. Questions end with the beginning of their answer ("Where was X Y born? X Y was born in"),
    so that a small model needs to have learned the fact or to see it, and not how to talk about it.

    Parameters
    ----------
    n_documents : int
        Documents in all; about 45 tokens each with a tokenizer of 1,024.
    n_entities : int
        Entities of the world; each has five attributes and a mentor.
    zipf : float
        Exponent of the frequencies; 0 writes about everybody equally often.
    reading_share : float
        Share of the documents that teach reading, in [0, 1).
    reading_people : int
        People in a passage that teaches reading. With one, whatever the passage says is the answer, and a model learns
        soon to trust any passage; with several it must also see who is meant.
    n_strangers : int or None
        At least so many people that passages which teach reading are about; None takes twice as many as entities or
        more.
    asked_share : float
        Share of the facts in documents of the kind ``"facts"`` that are written as a question and its answer, in
        [0, 1]. With 0 every question of the corpus is answered by the passage above it, and a model learns never to
        answer one from memory; with some it sees questions that only memory answers, too.
    n_questions : int
        Questions in each band (fewer when the world has fewer facts).
    n_multi_hop : int or None
        Questions that need two facts, which one passage cannot answer; None asks as many as in a band, 0 none.
    n_bands : int
        Equal groups of entities by frequency; each band is a task of its own.
    facts_per_document : int
        From 1 to 6.
    seed : int
        The world is a function of the arguments and this seed.

    Returns
    -------
    SyntheticWorld

    Raises
    ------
    ConfigError
        Listing every argument that is out of range.

    Examples
    --------
    >>> world = synthetic_corpus(n_documents=200, n_entities=30, n_questions=5, seed=1)
    >>> len(world.documents), world.bands
    (200, ('frequent', 'middle', 'rare'))
    >>> sorted({document.source for document in world.documents})
    ['facts', 'reading']
    """
    problems = [
        f"{name} = {value!r} must be {rule}"
        for name, value, rule, good in (
            ("n_documents", n_documents, "at least 1", n_documents >= 1),
            ("n_entities", n_entities, "at least n_bands and at least 8", n_entities >= max(n_bands, 8)),
            ("zipf", zipf, "finite and at least 0", np.isfinite(zipf) and zipf >= 0),
            ("reading_share", reading_share, "in [0, 1)", 0 <= reading_share < 1),
            ("reading_people", reading_people, "from 1 to 8", 1 <= reading_people <= 8),
            ("n_strangers", n_strangers, "None or at least 8", n_strangers is None or n_strangers >= 8),
            ("asked_share", asked_share, "in [0, 1]", 0 <= asked_share <= 1),
            ("n_questions", n_questions, "at least 1", n_questions >= 1),
            ("n_multi_hop", n_multi_hop, "None or at least 0", n_multi_hop is None or n_multi_hop >= 0),
            ("n_bands", n_bands, "from 1 to 10", 1 <= n_bands <= 10),
            ("facts_per_document", facts_per_document, "from 1 to 6", 1 <= facts_per_document <= 6),
        )
        if not good
    ]
    if problems:
        raise ConfigError("synthetic_corpus: " + "; ".join(problems))
    rngs = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)]
    names, strangers = _invent_people(n_entities, n_strangers, rngs[0])
    words = iter(_invent_words(sum(relation.n_values for relation in _RELATIONS), rngs[0]))
    values = {relation.name: list(islice(words, relation.n_values)) for relation in _RELATIONS}
    facts = _draw_facts(names, values, rngs[1])
    probabilities = np.arange(1, n_entities + 1, dtype=float) ** -zipf
    kinds = rngs[2].permutation(np.arange(n_documents) < round(n_documents * reading_share))
    subjects = rngs[2].choice(n_entities, size=n_documents, p=probabilities / probabilities.sum())
    documents: list[Document] = []
    stated: dict[tuple[str, str], list[str]] = {}
    width = len(str(n_documents - 1))
    for index, reading in enumerate(kinds):
        identifier = f"{'reading' if reading else 'facts'}-{index:0{width}d}"
        if reading:
            people = [strangers[row] for row in rngs[3].choice(len(strangers), size=reading_people, replace=False)]
            documents.append(Document(identifier, _reading_text(people, values, rngs[3]), source="reading"))
            continue
        entity = names[subjects[index]]
        relations = [str(name) for name in rngs[2].permutation([*values, "mentor"])[:facts_per_document]]
        text = " ".join(_told(entity, name, facts[entity, name], rngs[2], asked_share) for name in relations)
        documents.append(Document(identifier, text, title=entity, source="facts"))
        for name in relations:
            stated.setdefault((entity, name), []).append(identifier)
    fact_documents = {key: tuple(identifiers) for key, identifiers in stated.items()}
    bands = _band_names(n_bands)
    questions = _ask(
        names=names,
        values=values,
        facts=facts,
        fact_documents=fact_documents,
        bands=bands,
        n_questions=n_questions,
        n_multi_hop=n_questions if n_multi_hop is None else n_multi_hop,
        rng=rngs[1],
    )
    return SyntheticWorld(tuple(documents), tuple(questions), bands, facts, fact_documents)


def _invent_words(n: int, rng: np.random.Generator) -> list[str]:
    words: dict[str, None] = {}
    while len(words) < n:
        syllables = 2 if rng.random() < 0.6 else 3
        word = "".join(
            str(rng.choice(_ONSETS)) + str(rng.choice(_VOWELS)) + str(rng.choice(_CODAS)) for _ in range(syllables)
        )
        words[word.capitalize()] = None
    return list(words)


def _invent_people(n: int, n_strangers: int | None, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Return the names of n entities, and twice as many others or ``n_strangers`` of them, or more.

    A name is a pair of words, each of which many people share: so the words are tokens of a small tokenizer, and only
    the pair tells who is meant.
    """
    side = max(12, math.isqrt(3 * n if n_strangers is None else n + n_strangers) + 1)
    words = _invent_words(2 * side, rng)
    pairs = [f"{first} {family}" for first in words[:side] for family in words[side:]]
    shuffled = [pairs[row] for row in rng.permutation(len(pairs))]
    return shuffled[:n], shuffled[n:]


def _draw_facts(names: list[str], values: dict[str, list[str]], rng: np.random.Generator) -> dict[tuple[str, str], str]:
    facts = {(name, relation): str(rng.choice(options)) for name in names for relation, options in values.items()}
    mentors = rng.permutation(len(names))
    for position, place in enumerate(mentors):  # one cycle through everybody: nobody is their own mentor
        facts[names[place], "mentor"] = names[mentors[position - 1]]
    return facts


def _sentence(entity: str, relation: str, value: str, rng: np.random.Generator) -> str:
    templates = _MENTOR if relation == "mentor" else _BY_NAME[relation].sentences
    return templates[rng.integers(len(templates))].format(x=entity, v=value)


def _told(entity: str, relation: str, value: str, rng: np.random.Generator, asked_share: float) -> str:
    """A fact as a sentence, or now and then as a question and its answer (which costs no draw where none is asked)."""
    if asked_share and relation in _BY_NAME and rng.random() < asked_share:
        return f"{_BY_NAME[relation].ask(entity)} {value}."
    return _sentence(entity, relation, value, rng)


def _reading_text(people: list[str], values: dict[str, list[str]], rng: np.random.Generator) -> str:
    """A passage about people of no other text, and the questions that it answers."""
    told = [
        (person, relation, values[relation][rng.integers(len(values[relation]))])
        for person in people
        for relation in [str(name) for name in rng.permutation([*values])[:_FACTS_PER_READER]]
    ]
    passage = " ".join(_sentence(*fact, rng) for fact in told)
    asked = [told[row] for row in rng.permutation(len(told))]
    solved = [f"{_BY_NAME[relation].ask(person)} {value}." for person, relation, value in asked]
    return "\n\n".join([passage, *solved])


def _band_names(n_bands: int) -> tuple[str, ...]:
    known = {1: ("all",), 2: ("frequent", "rare"), 3: ("frequent", "middle", "rare")}
    return known.get(n_bands) or tuple(f"band-{index}" for index in range(1, n_bands + 1))


def _ask(
    *,
    names: list[str],
    values: dict[str, list[str]],
    facts: dict[tuple[str, str], str],
    fact_documents: dict[tuple[str, str], tuple[str, ...]],
    bands: tuple[str, ...],
    n_questions: int,
    n_multi_hop: int,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Ask about facts that some document states, the same number in every band."""
    groups = np.array_split(np.arange(len(names)), len(bands))
    questions: list[dict[str, Any]] = []
    for band, group in zip(bands, groups, strict=True):
        known = [(names[i], r) for i in group for r in values if (names[i], r) in fact_documents]
        for number in rng.permutation(len(known))[:n_questions]:
            entity, relation = known[number]
            questions.append(
                _question(
                    identifier=f"{band}-{len(questions)}",
                    task=band,
                    text=_BY_NAME[relation].ask(entity),
                    answer=facts[entity, relation],
                    options=values[relation],
                    needed=[(entity, relation)],
                    fact_documents=fact_documents,
                    rng=rng,
                )
            )
    chains = [
        (name, facts[name, "mentor"], relation)
        for name in names
        for relation in values
        if (name, "mentor") in fact_documents and (facts[name, "mentor"], relation) in fact_documents
    ]
    for number in rng.permutation(len(chains))[:n_multi_hop]:
        entity, mentor, relation = chains[number]
        questions.append(
            _question(
                identifier=f"multi-hop-{len(questions)}",
                task="multi-hop",
                text=_BY_NAME[relation].ask(f"the mentor of {entity}"),
                answer=facts[mentor, relation],
                options=values[relation],
                needed=[(entity, "mentor"), (mentor, relation)],
                fact_documents=fact_documents,
                rng=rng,
            )
        )
    return questions


def _question(
    *,
    identifier: str,
    task: str,
    text: str,
    answer: str,
    options: list[str],
    needed: list[tuple[str, str]],
    fact_documents: dict[tuple[str, str], tuple[str, ...]],
    rng: np.random.Generator,
) -> dict[str, Any]:
    others = [option for option in options if option != answer]
    choices = [str(option) for option in rng.permutation([*rng.permutation(others)[:3], answer])]
    gold = [fact_documents[fact][0] for fact in needed]
    return {
        "id": identifier,
        "task": task,
        "split": "test",
        "question": text,
        "choices": choices,
        "answer_index": choices.index(answer),
        "answers": [answer],
        "gold_doc_ids": gold,
        "gold_passages": gold,
        "meta": {
            "facts": needed,
            "n_documents": min(len(fact_documents[fact]) for fact in needed),
            "hops": len(needed),
        },
    }
