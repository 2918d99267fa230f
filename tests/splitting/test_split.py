"""The promises of the one permutation: order, nesting, disjointness, exact D, nothing lost."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ragscale as rs
from ragscale import Document
from ragscale.errors import ConfigError, SplitError
from ragscale.splitting._order import document_key


@pytest.fixture(scope="module")
def split(documents, tokenizer, tmp_path_factory):
    out = tmp_path_factory.mktemp("split") / "split"
    return rs.split_corpus(documents, out, tokenizer=tokenizer, passage_tokens=32)


@pytest.fixture(scope="module")
def overlapping(documents, tokenizer, tmp_path_factory):
    out = tmp_path_factory.mktemp("split") / "overlapping"
    return rs.split_corpus(
        documents, out, tokenizer=tokenizer, passage_tokens=24, passage_overlap=7, validation_tokens=500
    )


def test_the_order_is_that_of_the_keyed_hashes(split, documents):
    expected = sorted((document_key(d.id, 0), d.id) for d in documents)
    assert [row["id"] for row in split.document_rows()] == [id for _, id in expected]


def test_another_seed_gives_another_order_of_the_same_text(documents, tokenizer, tmp_path, split):
    other = rs.split_corpus(documents, tmp_path / "s", tokenizer=tokenizer, passage_tokens=32, seed=1)
    assert other.n_tokens == split.n_tokens
    ids, other_ids = ([row["id"] for row in s.document_rows()] for s in (split, other))
    assert ids != other_ids
    assert sorted(ids) == sorted(other_ids)
    assert other.digest != split.digest


def test_every_document_is_there_with_its_text(split, documents):
    given_texts = {d.id: d for d in documents}
    read = list(split.documents())
    assert len(read) == len(documents)
    assert all(given_texts[d.id] == d for d in read)


def test_tokens_are_those_of_the_tokenizer_and_every_document_ends_with_the_end_token(split, documents, tokenizer):
    backend = tokenizer.backend()
    by_id = {d.id: d.text for d in documents}
    expected = [
        token
        for row in split.document_rows()
        for token in [*backend.encode(by_id[row["id"]], add_special_tokens=False).ids, split.eos_id]
    ]
    assert split.pretraining(split.n_tokens)[:].tolist() == expected
    assert split.n_tokens == len(expected)


@settings(max_examples=60)
@given(st.data())
def test_pretraining_has_exactly_d_tokens_and_is_nested(split, data):
    D = data.draw(st.integers(0, split.n_tokens))
    smaller = data.draw(st.integers(0, D))
    stream = split.pretraining(D)
    assert len(stream) == len(stream[:]) == D
    np.testing.assert_array_equal(split.pretraining(smaller)[:], stream[:smaller])
    bounds = stream.document_boundaries
    assert bounds[0] == 0
    assert bounds[-1] == D
    assert np.all(np.diff(bounds) > 0)
    ends = stream[:][bounds[1:-1] - 1]
    assert np.all(ends == split.eos_id)
    assert (stream[:] == split.eos_id).sum() in (len(bounds) - 2, len(bounds) - 1)


@settings(max_examples=60)
@given(st.data())
@pytest.mark.parametrize("which", ["split", "overlapping"])
def test_stores_are_prefixes_of_one_list_and_never_touch_pretraining(which, request, data):
    split = request.getfixturevalue(which)
    R = data.draw(st.integers(0, split.n_tokens))
    D = split.n_tokens - R
    store = split.store(R, D=D)
    everything = split.store(split.n_tokens)
    assert everything.n_tokens == split.n_tokens
    assert store.n_tokens <= R
    assert store.passages.n_new_tokens.sum() == store.n_tokens
    if store.n_passages < everything.n_passages:
        assert store.n_tokens + everything.passages[store.n_passages].n_new_tokens > R
    assert list(store.passages) == list(everything.passages[: store.n_passages])
    starts, lengths = token_positions(split)
    assert np.all(starts[: store.n_passages] >= D)
    covered = np.zeros(split.n_tokens, dtype=bool)
    for start, length in zip(starts[: store.n_passages], lengths, strict=False):
        covered[start : start + length] = True
    assert covered.sum() == store.n_tokens
    assert covered[split.n_tokens - store.n_tokens :].all()


def token_positions(split):
    ids = [row["id"] for row in split.document_rows()]
    start_of = dict(zip(ids, split.pretraining(split.n_tokens).document_boundaries[:-1].tolist(), strict=True))
    rows = list(split.store(split.n_tokens).passages.rows())
    return np.array([start_of[r["document_id"]] + r["start"] for r in rows]), np.array([r["n_tokens"] for r in rows])


def test_passages_without_overlap_join_to_the_documents(split, documents):
    texts: dict[str, str] = {}
    for passage in split.store(split.n_tokens).passages:
        texts[passage.document_id] = passage.text + texts.get(passage.document_id, "")
        assert 0 < passage.n_tokens <= 32
        assert passage.text
    assert texts == {d.id: d.text for d in documents}


def test_the_overlap_factor_is_what_the_windows_say(overlapping, split):
    store = overlapping.store(overlapping.n_tokens)
    passages = list(store.passages)
    assert store.n_tokens == overlapping.n_tokens
    assert store.overlap_factor == sum(p.n_tokens for p in passages) / overlapping.n_tokens
    assert 1.2 < store.overlap_factor < 24 / 17
    assert split.store(1000).overlap_factor == 1
    row = {"R": store.n_tokens, "overlap_factor": store.overlap_factor, "overlap_tokens": 0}
    assert store.row() == {**row, "store_source": "held-out", "seen_share": 0.0}


def test_more_than_what_is_left_raises_unless_allowed_and_then_says_so(split):
    T = split.n_tokens
    with pytest.raises(SplitError, match="allow_overlap=True"):
        split.store(T - 1000 + 1, D=1000)
    store = split.store(T - 500, D=1000, allow_overlap=True)
    assert store.overlap_tokens == 1000 + store.n_tokens - T
    assert 400 < store.overlap_tokens <= 500
    assert store.row()["overlap_tokens"] == store.overlap_tokens
    with pytest.raises(SplitError):
        split.cells([T], [1])
    assert split.cells([0, 1000], [T], allow_overlap=True)["overlap_tokens"].tolist() == [0, 1000]


@pytest.mark.parametrize("value", [-1, 10**9, 0.5])
def test_impossible_sizes_are_named(split, value):
    with pytest.raises(SplitError, match="whole number from 0"):
        split.pretraining(value)
    with pytest.raises(SplitError, match="whole number from 0"):
        split.store(value)


def test_the_frontier_holds_the_budget(split):
    table = split.frontier([0, 0.25, 1])
    assert (table["D"] + table["R"] == split.n_tokens).all()
    assert table["R"].tolist() == [0, round(0.25 * split.n_tokens), split.n_tokens]
    with pytest.raises(SplitError, match=r"1\.5"):
        split.frontier([1.5])


def test_validation_is_exact_and_its_documents_are_nowhere_else(overlapping, documents, tokenizer):
    assert len(overlapping.validation) == len(overlapping.validation[:]) == 500
    inside = [row["id"] for row in overlapping.document_rows("validation")]
    pool = [row["id"] for row in overlapping.document_rows()]
    assert inside + pool == [id for _, id in sorted((document_key(d.id, 0), d.id) for d in documents)]
    assert {p.document_id for p in overlapping.store(overlapping.n_tokens).passages} == set(pool)
    first = next(d.text for d in documents if d.id == inside[0])
    start = tokenizer.backend().encode(first, add_special_tokens=False).ids
    assert overlapping.validation[: len(start)].tolist() == start[:500]


@pytest.mark.parametrize("max_tokens", [1, 900, 5000, 10**7])
def test_max_tokens_keeps_whole_documents_from_the_front(documents, tokenizer, tmp_path, split, max_tokens):
    arguments = {"tokenizer": tokenizer, "passage_tokens": 32, "max_tokens": max_tokens}
    if max_tokens == 1:
        with pytest.raises(SplitError, match="no tokens left"):
            rs.split_corpus(documents, tmp_path / "s", **arguments)
        return
    part = rs.split_corpus(documents, tmp_path / "s", **arguments)
    bounds = split.pretraining(split.n_tokens).document_boundaries
    assert part.n_tokens == bounds[bounds <= max_tokens].max()
    np.testing.assert_array_equal(part.pretraining(part.n_tokens)[:], split.pretraining(part.n_tokens)[:])
    assert part.store(part.n_tokens).n_tokens == part.n_tokens
    counts = part.manifest["corpus"]
    assert part.n_documents + counts["beyond_max_tokens"] == len(documents)


def test_a_token_stream_behaves_like_its_array(split):
    array = split.pretraining(split.n_tokens)[:]
    stream = pickle.loads(pickle.dumps(split.pretraining(split.n_tokens)))
    assert stream.dtype == array.dtype == np.dtype("<u2")
    assert stream[-1] == array[-1]
    assert stream[5] == int(array[5])
    np.testing.assert_array_equal(stream[10:100:7], array[10:100:7])
    np.testing.assert_array_equal(stream[::-1], array[::-1])
    np.testing.assert_array_equal(stream[[3, -2, 7]], array[[3, -2, 7]])
    np.testing.assert_array_equal(stream[array > 100], array[array > 100])
    np.testing.assert_array_equal(np.asarray(stream), array)
    assert list(stream) == array.tolist()
    for bad in (len(array), -len(array) - 1, [len(array)]):
        with pytest.raises(IndexError):
            stream[bad]


def test_a_stream_over_several_shards_reads_like_one(split):
    array = split.pretraining(split.n_tokens)[:]
    cuts = [0, 100, 101, 2000, len(array)]
    shards = [(array[a:b], b - a) for a, b in pairwise(cuts)]
    stream = rs.splitting.TokenStream(shards, len(array) - 5, digest="x")
    for start, stop in [(0, 100), (99, 102), (50, 3000), (100, 101), (7, 7)]:
        np.testing.assert_array_equal(stream[start:stop], array[start:stop])
    np.testing.assert_array_equal(stream[:], array[:-5])
    np.testing.assert_array_equal(stream[[1999, 2000, 0]], array[[1999, 2000, 0]])


def test_a_stream_from_an_array_knows_its_documents():
    stream = rs.splitting.TokenStream.from_array(np.array([4, 5, 0, 6, 0, 9]), eos_id=0)
    assert stream.document_boundaries.tolist() == [0, 3, 5, 6]
    same = rs.splitting.TokenStream.from_array([4, 5, 0, 6, 0, 9], offsets=[0, 3, 6])
    assert same.digest == stream.digest
    assert same.document_boundaries.tolist() == [0, 3, 6]
    with pytest.raises(SplitError, match="offsets"):
        rs.splitting.TokenStream.from_array([1, 2], offsets=[0, 3])
    with pytest.raises(SplitError, match="flat array of integers"):
        rs.splitting.TokenStream.from_array([[1.0]])


def test_text_that_looks_like_the_end_token_is_text(tokenizer, tmp_path):
    documents = [Document("a", "before <|endoftext|> after"), Document("b", "plain words here")]
    split = rs.split_corpus(documents, tmp_path / "s", tokenizer=tokenizer)
    assert (split.pretraining(split.n_tokens)[:] == split.eos_id).sum() == 2
    assert {d.id: d.text for d in split.documents()} == {d.id: d.text for d in documents}


def test_settings_that_cannot_work_are_listed_together(documents, tokenizer, tmp_path):
    with pytest.raises(ConfigError) as caught:
        rs.split_corpus(
            documents,
            tmp_path / "s",
            tokenizer=tokenizer,
            max_tokens=0,
            validation_tokens=-1,
            passage_tokens=8,
            passage_overlap=8,
            deduplicate="fuzzy",  # type: ignore[arg-type]
        )
    for name in ("max_tokens", "validation_tokens", "overlap", "fuzzy"):
        assert name in str(caught.value)
    assert not (tmp_path / "s").exists()


def test_a_changed_manifest_or_a_missing_split_is_refused(documents, tokenizer, tmp_path):
    split = rs.split_corpus(documents[:20], tmp_path / "s", tokenizer=tokenizer)
    manifest = tmp_path / "s" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"n_tokens": {split.n_tokens}', '"n_tokens": 1'))
    with pytest.raises(SplitError, match="digest"):
        rs.Split.load(tmp_path / "s")
    with pytest.raises(SplitError, match="no finished split"):
        rs.Split.load(tmp_path)


def test_the_description_counts_documents_and_tokens(overlapping):
    table = overlapping.describe()
    assert table.loc["pool (T)", "tokens"] == overlapping.n_tokens
    assert table.loc["validation", "tokens"] == 500
    assert f"{overlapping.n_tokens:,}" in repr(overlapping)
    assert overlapping.digest[:12] in overlapping._repr_html_()
