"""Near-duplicates across a boundary are those that comparing every pair finds."""

from __future__ import annotations

import numpy as np

import ragscale as rs
from ragscale import Document
from ragscale.splitting._likeness import ALIKE, Likeness
from ragscale.splitting._minhash import SHINGLE_WORDS, ngram_hashes


def test_near_duplicates_are_those_of_all_pairs(corpus, tokenizer, tmp_path):
    rng = np.random.default_rng(5)
    documents = corpus(60, seed=5, mean_words=80)
    for i, document in enumerate(documents[:40]):  # copies with 0 to 8 other words, around the limit of likeness
        words = document.text.split(" ")
        for place in rng.integers(0, len(words), size=i % 9):
            words[place] = f"other{place}"
        documents.append(Document(f"copy-{i}", " ".join(words) + f" {i}"))
    split = rs.split_corpus(documents, tmp_path / "s", tokenizer=tokenizer, deduplicate=None)
    D = split.n_tokens // 2
    likeness = Likeness(split, D, 1000, 0, measure=True)
    sets = [set(ngram_hashes(document.text, SHINGLE_WORDS).tolist()) for document in split.documents()]
    n = likeness.n_before
    alike = {
        j
        for j in range(n, len(sets))
        if any(len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= ALIKE for i in range(n))
    }
    assert 3 < len(alike) < len(sets) - n
    assert likeness.near == alike
    assert likeness.measures()["near_duplicate_share"] == len(alike) / (len(sets) - n)
    fewer = Likeness(split, D, 10, 0, measure=True)
    assert fewer.near == alike & set(fewer.sample)
    assert len(fewer.sample) == 10
