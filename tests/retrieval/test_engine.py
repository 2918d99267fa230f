"""An existing engine behind the same contract: Qdrant in its local mode, the subclass of the guide."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from ragscale.retrieval import BM25Retriever, HybridRetriever
from ragscale.testing import check_retriever

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_retriever.py"

pytest.importorskip("qdrant_client")
pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def qdrant_retriever():
    spec = importlib.util.spec_from_file_location("own_retriever_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.QdrantRetriever


def test_a_retriever_over_qdrant_keeps_the_contract(qdrant_retriever):
    checks = check_retriever(qdrant_retriever)
    assert "nested_stores_equal_separate_indexes" in checks


def test_it_is_an_arm_like_any_other(qdrant_retriever, passages, queries):
    hybrid = HybridRetriever(BM25Retriever(), qdrant_retriever()).index(passages[:100])
    half = hybrid.n_tokens // 2
    found = hybrid.search(queries, 5, store_tokens=[half])[half]
    assert found.ids.max() < hybrid.n_passages_in_store(half)
    assert (found.ids[0] >= 0).all()
