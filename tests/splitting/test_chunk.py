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

    split = rs.split_corpus(documents[:5], tmp_path / "s", tokenizer=tokenizer, passage_size=20, passage_overlap=5)
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
