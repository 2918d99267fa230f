"""The synthetic world: what its questions ask is what its documents state, at the frequencies asked for."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragscale.datasets._synthetic import synthetic_corpus
from ragscale.errors import ConfigError


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), n_entities=st.integers(8, 40), zipf=st.floats(0, 2), share=st.floats(0, 0.9))
def test_every_gold_document_states_the_answer_about_the_entity(seed, n_entities, zipf, share):
    world = synthetic_corpus(
        n_documents=120, n_entities=n_entities, zipf=zipf, reading_share=share, n_questions=10, seed=seed
    )
    texts = {document.id: document.text for document in world.documents}
    assert len(texts) == 120
    for question in world.questions:
        assert question["choices"][question["answer_index"]] == question["answers"][0]
        assert len(set(question["choices"])) == len(question["choices"]) == 4
        for (entity, relation), gold in zip(question["meta"]["facts"], question["gold_doc_ids"], strict=True):
            assert entity in texts[gold]
            assert world.facts[entity, relation] in texts[gold]
        last = tuple(question["meta"]["facts"][-1])
        assert world.facts[last] == question["answers"][0]


def test_the_same_seed_gives_the_same_world_and_another_seed_another():
    options = {"n_documents": 80, "n_entities": 20, "n_questions": 4}
    assert synthetic_corpus(**options, seed=3) == synthetic_corpus(**options, seed=3)
    assert synthetic_corpus(**options, seed=3) != synthetic_corpus(**options, seed=4)


def test_zipf_makes_the_first_band_frequent_and_zero_makes_all_alike():
    def share_of_first_band(zipf):
        world = synthetic_corpus(n_documents=2000, n_entities=30, zipf=zipf, reading_share=0, seed=0)
        order = list(dict.fromkeys(entity for entity, _ in world.facts))
        counts = Counter(document.title for document in world.documents)
        return sum(counts[name] for name in order[:10]) / 2000

    assert share_of_first_band(0) == pytest.approx(1 / 3, abs=0.04)
    expected = sum(1 / k for k in range(1, 11)) / sum(1 / k for k in range(1, 31))
    assert share_of_first_band(1) == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("people", [1, 3])
def test_reading_documents_ask_only_about_people_of_no_other_text(people):
    world = synthetic_corpus(n_documents=300, n_entities=20, reading_share=0.5, reading_people=people, seed=2)
    entities = {entity for entity, _ in world.facts}
    reading = [document.text for document in world.documents if document.source == "reading"]
    assert len(reading) == 150
    for text in reading:
        passage, *solved = text.split("\n\n")
        assert len(solved) == passage.count(".") == 3 * people
        for line in solved:
            assert line.split()[-1].rstrip(".") in passage.replace(".", " ").split()
        assert not any(entity in text for entity in entities)


def test_a_question_ends_as_some_sentence_of_the_corpus_begins():
    world = synthetic_corpus(n_documents=2000, n_entities=10, n_questions=20, reading_share=0.1, zipf=0, seed=1)
    corpus = " ".join(document.text for document in world.documents)
    single = [question for question in world.questions if question["task"] != "multi-hop"]
    stated = [f"{q['question'].split('? ')[1]} {q['answers'][0]}" in corpus for q in single]
    assert len(single) == 50
    assert sum(stated) >= 45


def test_many_entities_still_leave_strangers_to_read_about():
    world = synthetic_corpus(n_documents=50, n_entities=3000, n_questions=2, seed=0)
    assert len({entity for entity, _ in world.facts}) == 3000


def test_exposures_count_documents_that_state_the_fact():
    world = synthetic_corpus(n_documents=200, n_entities=12, n_questions=6, seed=5)
    everything = world.exposures([document.id for document in world.documents])
    assert everything == {question["id"]: question["meta"]["n_documents"] for question in world.questions}
    assert set(world.exposures([]).values()) == {0}


def test_questions_are_json():
    world = synthetic_corpus(n_documents=60, n_entities=10, n_questions=3)
    assert len(json.loads(json.dumps(world.questions))) == len(world.questions)


def test_every_bad_argument_is_named_at_once():
    with pytest.raises(ConfigError, match=r"n_documents = 0.*zipf = -1.*reading_share = 1"):
        synthetic_corpus(n_documents=0, zipf=-1, reading_share=1)


def test_facts_may_be_told_as_questions_that_only_memory_answers():
    options = {"n_documents": 400, "n_entities": 20, "n_questions": 4, "seed": 3}
    plain, asked = synthetic_corpus(**options), synthetic_corpus(**options, asked_share=0.5)
    assert plain == synthetic_corpus(**options, asked_share=0)
    assert not any("?" in document.text for document in plain.documents if document.source == "facts")
    told = [document for document in asked.documents if document.source == "facts"]
    sentences = sum(document.text.count(".") for document in told)
    # a mentor is never asked for: five of six facts can be
    assert sum(document.text.count("?") for document in told) / sentences == pytest.approx(0.5 * 5 / 6, abs=0.06)
    assert asked.facts == plain.facts
    for document in told[:50]:
        for line in document.text.split("?")[1:]:
            answer = line.split(".")[0].split()[-1]
            assert answer in {value for (entity, _), value in asked.facts.items() if entity == document.title}


@pytest.mark.parametrize(("given", "expected"), [(None, 6), (0, 0), (2, 2)])
def test_questions_of_two_hops_may_be_left_out(given, expected):
    world = synthetic_corpus(n_documents=400, n_entities=20, n_questions=6, n_multi_hop=given, seed=1)
    tasks = Counter(question["task"] for question in world.questions)
    assert tasks.pop("multi-hop", 0) == expected
    assert set(tasks.values()) == {6}


@pytest.mark.parametrize("options", [{"asked_share": 1.5}, {"n_multi_hop": -1}])
def test_shares_and_counts_out_of_range_are_named(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        synthetic_corpus(**options)
