"""A seen store: the first R tokens of the permutation, the text that pretraining has read."""

import numpy as np
import pytest

from ragscale.errors import SplitError
from ragscale.passages import Document
from ragscale.splitting import split_corpus, train_tokenizer


@pytest.fixture(scope="module", params=[0, 5])
def split(request, tmp_path_factory):
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 4)) for _ in range(80)]
    texts = [" ".join(rng.choice(words, rng.integers(3, 60))) for _ in range(40)]
    documents = [Document(f"d{i}", text) for i, text in enumerate(texts)]
    folder = tmp_path_factory.mktemp("split")
    return split_corpus(
        documents,
        folder / "s",
        tokenizer=train_tokenizer(texts, 300),
        passage_tokens=16,
        passage_overlap=request.param,
        deduplicate=None,
    )


def test_it_is_the_held_out_store_of_everything_read_from_the_other_end(split):
    held, seen = split.store(split.n_tokens), split.store(split.n_tokens, "seen")
    assert seen.n_tokens == split.n_tokens == sum(p.n_new_tokens for p in seen.passages)
    assert [p.id for p in seen.passages] == [p.id for p in held.passages][::-1]
    assert [p.text for p in seen.passages] == [p.text for p in held.passages][::-1]
    assert seen.passages.n_new_tokens.tolist() == [p.n_new_tokens for p in seen.passages]
    assert (seen.passages.n_new_tokens >= 0).all()


def test_smaller_ones_are_prefixes_and_hold_at_most_R_tokens(split):
    whole = [p.id for p in split.store(split.n_tokens, source="seen").passages]
    for share in (0.0, 0.13, 0.5, 0.98):
        R = int(share * split.n_tokens)
        store = split.store(R, source="seen")
        assert [p.id for p in store.passages] == whole[: len(store)]
        assert store.n_tokens <= R
        if len(store) < len(whole):
            assert store.n_tokens + split.store(split.n_tokens, "seen").passages[len(store)].n_new_tokens > R


def test_its_text_is_what_pretraining_reads_first(split):
    store = split.store(split.n_tokens // 2, "seen")
    read = list(dict.fromkeys(p.document_id for p in store.passages))
    order = [row["id"] for row in split.document_rows()]
    assert read == order[: len(read)]


def test_how_much_of_it_was_trained_on_is_said(split):
    R = split.n_tokens // 2
    assert split.store(R, "seen", D=split.n_tokens).seen_share == 1
    part = split.store(R, "seen", D=R // 4)
    assert part.seen_share == pytest.approx(R // 4 / part.n_tokens)
    assert part.row()["store_source"] == "seen"
    held = split.store(R, D=split.n_tokens - R)
    assert held.seen_share == 0
    assert held.row()["store_source"] == "held-out"
    assert held.digest != split.store(R, "seen").digest


def test_another_source_is_refused(split):
    with pytest.raises(SplitError, match="'held-out' or 'seen'"):
        split.store(10, source="trained")
