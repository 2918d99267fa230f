"""Windows of tokens: nothing lost, nothing too long, no passage without text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragscale import Document
from ragscale.errors import ConfigError
from ragscale.passages import chunk, token_windows


@given(st.integers(2, 400), st.integers(2, 60), st.data())
@example(9, 4, None)
def test_windows_cover_the_document_and_overlap_as_asked(n, size, data):
    overlap = data.draw(st.integers(0, size - 1)) if data else 0
    windows = token_windows(n, size, overlap)
    assert windows[0][0] == 0
    assert windows[-1][1] == n
    assert all(0 < end - start <= size for start, end in windows)
    for (start, end), (following, last) in pairwise(windows):
        assert following == max(0, end - overlap)
        assert following > start or overlap >= size - 1
        assert last > end
    if overlap == 0:
        assert all(end - start > (end == n) for start, end in windows)


@given(st.lists(st.sampled_from(["river", "🌍", "東京", " ", "\n", "naïve", "x" * 30]), min_size=1, max_size=60))
def test_pieces_join_to_the_text(tokenizer, parts):
    text = " ".join(parts)
    passages = chunk(Document("d", text), tokenizer.backend(), size=7)
    assert "".join(p.text for p in passages) == text
    n_tokens = len(tokenizer.backend().encode(text).ids) + 1 if text else 0
    assert sum(p.n_tokens for p in passages) == sum(p.n_new_tokens or 0 for p in passages) == n_tokens
    overlapping = chunk(Document("d", text), tokenizer.backend(), size=7, overlap=3)
    assert sum(p.n_new_tokens or 0 for p in overlapping) == n_tokens
    assert [p.id for p in overlapping] == [f"d#{i}" for i in range(len(overlapping))]


def test_chunks_are_the_passages_of_the_store(documents, tokenizer, tmp_path):
    import ragscale as rs
    from ragscale.splitting._tokenizers import to_hugging_face

    split = rs.split_corpus(documents[:5], tmp_path / "s", tokenizer=tokenizer, passage_tokens=20, passage_overlap=5)
    by_id = {d.id: d for d in documents}
    hugging_face = to_hugging_face(tokenizer)
    cut = {p.id: p for d in split.documents() for p in chunk(by_id[d.id], hugging_face, size=20, overlap=5)}
    stored = {p.id: p for p in split.store(split.n_tokens).passages}
    assert cut.keys() == stored.keys()
    assert all(cut[id].text == stored[id].text and cut[id].n_tokens == stored[id].n_tokens for id in cut)


def test_empty_text_and_impossible_windows(tokenizer):
    assert chunk(Document("d", ""), tokenizer.backend()) == []
    for size, overlap in ((1, 0), (8, 8), (8, -1)):
        with pytest.raises(ConfigError, match="passages cannot be cut"):
            chunk(Document("d", "text"), tokenizer.backend(), size=size, overlap=overlap)


SCRIPTS = ["🌍🦊👨‍👩‍👧", "東京は日本の首都です。", "a🌍b", "กรุงเทพ", "naïve 🦊", "x", "🇩🇪"]


@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize("text", SCRIPTS)
@pytest.mark.parametrize("size", [2, 3, 4, 5, 7])
def test_no_passage_is_without_text(bytes_only, text, size, overlap):
    passages = chunk(Document("d", text), bytes_only, size=size, overlap=overlap)
    assert all(p.text for p in passages)
    n_tokens = len(text.encode()) + 1
    assert sum(p.n_new_tokens or 0 for p in passages) == n_tokens
    longest = max(len(c.encode()) for c in text)
    assert all(p.n_tokens <= max(size, longest + 1 + overlap) for p in passages)
    if not overlap:
        assert "".join(p.text for p in passages) == text


@given(st.text(st.sampled_from("ab 🌍東é"), min_size=1, max_size=30), st.integers(2, 9), st.data())
def test_windows_move_only_where_they_would_be_empty(bytes_only, text, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    passages = chunk(Document("d", text), bytes_only, size=size, overlap=overlap)
    assert all(p.text for p in passages)
    assert sum(p.n_new_tokens or 0 for p in passages) == len(text.encode()) + 1
    if text.isascii():
        assert [p.n_tokens for p in passages] == [b - a for a, b in token_windows(len(text) + 1, size, overlap)]


def test_a_split_into_tiny_windows_has_no_empty_passage(tmp_path, bytes_only):
    import ragscale as rs

    documents = [Document(str(i), text) for i, text in enumerate(SCRIPTS)]
    split = rs.split_corpus(documents, tmp_path / "s", tokenizer=bytes_only, passage_tokens=2)
    store = split.store(split.n_tokens)
    assert all(p.text for p in store.passages)
    assert store.n_tokens == split.n_tokens
    assert split.audit()


def test_a_document_that_spells_a_special_token_holds_those_characters(bytes_only):
    text = "one <|endoftext|> two"
    passages = chunk(Document("d", text), bytes_only, size=100)
    assert passages[0].n_tokens == len(text) + 1
    assert bytes_only.encode(text) != list(range(len(text)))


def test_half_a_character_is_named_with_its_document_and_place(bytes_only):
    import ragscale as rs

    with pytest.raises(ConfigError, match=r"document 'd' holds half a character .* at place 3"):
        chunk(Document("d", "abc\ud83d"), bytes_only)
    for documents, name in (
        ([Document("ok", "fine"), Document("x17", "low \udc00 er")], r"document 'x17' \(the 2nd\).* at place 4"),
        (["fine", "a", "\ud800"], "text 3 holds half a character .* at place 0"),
        (["fine", 5], "text 2 has no text: expected a Document or a string, got int"),
        ([{"text": "a"}], "text 1 has no text"),
        ("one long text", "several documents or texts, got str"),
        (7, "got int"),
    ):
        with pytest.raises(ConfigError, match=name):
            rs.splitting.train_tokenizer(documents, 300)
    for size in (300, 3e2, "300"):
        assert len(rs.splitting.train_tokenizer(["low lower lowest"] * 3, size)) <= 300


@pytest.fixture(scope="module")
def bytes_only():
    import ragscale as rs

    return rs.splitting.train_tokenizer(["a b"], 257)
