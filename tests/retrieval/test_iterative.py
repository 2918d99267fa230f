"""Rounds of retrieval: the second passage is found by the first, every store stands alone, evaluate can ask for it."""

from __future__ import annotations

import numpy as np
import pytest

import ragscale as rs
from ragscale import Passage
from ragscale.errors import ConfigError
from ragscale.retrieval import BM25Retriever, IterativeRetriever, Retriever, query_and_passages
from ragscale.testing import check_retriever

TEXTS = [
    "The novel Red Kites was written by Ada Stone.",
    "Lions sleep by day and hunt at night.",
    "Ada Stone was born in Lund.",
    "The author of many songs, he lives in a town by the sea.",
]
STORE = [Passage(str(i), text, 10, str(i)) for i, text in enumerate(TEXTS)]
QUESTION = "Where did the writer of Red Kites come to the world?"


def bm25() -> BM25Retriever:
    return BM25Retriever(compiled=False)


def test_the_contract_is_kept():
    checks = check_retriever(lambda: IterativeRetriever(bm25(), n_iterations=3, depth=20))
    assert "nested_stores_equal_separate_indexes" in checks


def test_the_second_passage_is_found_by_the_first():
    assert 2 not in bm25().index(STORE).search(QUESTION, k=4).ids
    found = IterativeRetriever(bm25()).index(STORE).search(QUESTION, k=2)
    assert found.ids[0].tolist() == [0, 2]


def test_one_round_is_the_retriever_itself():
    plain, once = bm25().index(STORE), IterativeRetriever(bm25(), n_iterations=1).index(STORE)
    np.testing.assert_array_equal(once.search(QUESTION, k=3).ids, plain.search(QUESTION, k=3).ids)
    np.testing.assert_array_equal(once.search(QUESTION, k=3).scores, plain.search(QUESTION, k=3).scores)


def test_a_store_expands_by_its_own_passages():
    asked: list[str] = []

    def expand(query, passages):
        asked.append(" | ".join([query, *(passage.id for passage in passages)]))
        return query_and_passages(query, passages)

    retriever = IterativeRetriever(bm25(), expand=expand, n_found=1).index(STORE[::-1])
    found = retriever.search(QUESTION, k=2, store_tokens=[30, 40])
    assert asked == [QUESTION, f"{QUESTION} | 0"]  # the smaller store lacks the novel's passage
    assert retriever.passages[int(found[40].ids[0, 0])].id == "0"


def test_an_index_of_rounds_is_saved_and_loaded(tmp_path):
    retriever = IterativeRetriever(bm25(), n_iterations=3, n_found=1).index(STORE)
    retriever.save(tmp_path / "index")
    again = Retriever.load(tmp_path / "index")
    assert isinstance(again, IterativeRetriever)
    assert (again.n_iterations, again.n_found, again.name) == (3, 1, "BM25Retriever x3")
    np.testing.assert_array_equal(again.search(QUESTION, k=4).ids, retriever.search(QUESTION, k=4).ids)


def test_wrong_arguments_are_named():
    with pytest.raises(ConfigError, match=r"retriever is a str.*n_iterations = 0.*n_found = -1"):
        IterativeRetriever("bm25", n_iterations=0, n_found=-1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expand returned a NoneType"):
        IterativeRetriever(bm25(), expand=lambda query, passages: None).index(STORE).search(QUESTION)  # type: ignore[arg-type,return-value]


def test_evaluate_asks_for_rounds_and_says_so():
    torch = pytest.importorskip("torch")
    from transformers import Olmo2Config, Olmo2ForCausalLM

    from ragscale.evaluation import Example, Task, TorchModel

    tokenizer = rs.splitting.train_tokenizer(TEXTS * 4, 300)
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Olmo2Config(vocab_size=len(tokenizer), max_position_embeddings=256, eos_token_id=0, **size)
    config.pad_token_id = None
    model = TorchModel(Olmo2ForCausalLM(config), tokenizer)
    task = Task(name="born", kind="likelihood", examples=(Example(id="1", question=QUESTION, answers=("Lund",)),))
    retriever = bm25().index(STORE)
    once, twice = (
        rs.evaluate(model, task, retriever=retriever, store_tokens=[0, 40], k=2, N=1e3, D=1e3, n_iterations=n)
        for n in (1, 2)
    )
    assert "n_iterations" not in once.results
    assert twice.results.loc[twice.results["R"] > 0, "n_iterations"].unique().tolist() == [2]
    assert twice.results.loc[twice.results["R"] == 0, "n_iterations"].unique().tolist() == [1]
    hits = [found.results.loc[found.results["R"] > 0, "hit_rate"].iloc[0] for found in (once, twice)]
    assert hits == [0.0, 1.0]
    with pytest.raises(ConfigError, match="n_iterations = 2 needs a retriever"):
        rs.evaluate(model, task, n_iterations=2, N=1e3, D=1e3)
