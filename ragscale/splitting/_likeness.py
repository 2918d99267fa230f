"""How alike the two ends of a split are: near-duplicates and n-grams across a boundary, in one pass over the texts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragscale.splitting._minhash import SHINGLE_WORDS, ngrams, word_numbers
from ragscale.splitting._order import text_digest

if TYPE_CHECKING:
    from ragscale.splitting._split import Split

NGRAM_WORDS = 13
SAMPLED_NGRAMS = 32
ALIKE = 0.8
Hashes = NDArray[np.uint64]


class Likeness:
    """Reads every text of a split once: are there equal ones, and does what stands behind D occur before it?

    Near-duplicates are exact: two sets of shingles whose Jaccard similarity is at least t share one of the smallest
    ``m - ceil(t m) + 1`` of the m of each, so only such pairs are compared.

    Parameters
    ----------
    split : Split
    D : int
        The boundary in tokens; the document that it cuts counts as before.
    sample, seed : int
        Documents behind D that are compared, and how they are drawn.
    measure : bool
        Without it only equal texts are counted.
    """

    def __init__(self, split: Split, D: int, sample: int, seed: int, *, measure: bool) -> None:
        self.split, self.D = split, D
        self.backend = split._split_tokenizer.backend()
        bounds = split.pretraining(split.n_tokens).document_boundaries
        self.n_before = int(np.searchsorted(bounds[:-1], D))
        behind = split.n_documents - self.n_before
        drawn = np.random.default_rng(seed).permutation(behind)[:sample] + self.n_before if measure else ()
        self.sample = {int(number): np.empty(0, np.uint64) for number in drawn}
        digests: list[bytes] = []
        self.near: set[int] = set()
        self._before: list[Hashes] = [np.empty(0, np.uint64)]
        self._behind: list[Hashes] = [np.empty(0, np.uint64)]
        for number, text in self._texts("pool", self.n_before, split.n_documents):
            digests.append(text_digest(text))
            if measure:
                self._add(number, text, self._behind)
        self._make_index()
        for number, text in self._texts("pool", 0, self.n_before):
            digests.append(text_digest(text))
            if measure:
                self._add(number, text, self._before)
        validation = split.manifest["validation"]["n_documents"]
        digests += [text_digest(text) for _, text in self._texts("validation", 0, validation)]
        self.n_documents, self.n_unique = len(digests), len(set(digests))

    def measures(self) -> dict[str, Any]:
        """Return the shares of documents behind D with a near-duplicate before it, and of n-grams found there."""
        store_ngrams = np.concatenate(self._behind)
        shared = np.isin(store_ngrams, np.unique(np.concatenate(self._before)))
        return {
            "D": self.D,
            "documents_before": self.n_before,
            "documents_after": self.split.n_documents - self.n_before,
            "near_duplicate_share": len(self.near) / len(self.sample) if self.sample else 0.0,
            "near_duplicate_sample": len(self.sample),
            "ngram_overlap_share": float(shared.mean()) if len(shared) else 0.0,
            "ngram_sample": len(shared),
            "ngram_words": NGRAM_WORDS,
        }

    def _texts(self, part: str, first: int, last: int) -> Iterator[tuple[int, str]]:
        stream = self.split.part(part)
        bounds = stream.document_boundaries
        for number in range(first, last):
            tokens = stream[bounds[number] : bounds[number + 1] - 1].tolist()
            yield number, self.backend.decode(tokens, skip_special_tokens=False)

    def _add(self, number: int, text: str, side: list[Hashes]) -> None:
        numbers = word_numbers(text)
        hashes = ngrams(numbers, NGRAM_WORDS)
        side.append(np.unique(hashes[hashes % np.uint64(SAMPLED_NGRAMS) == 0]))
        if number >= self.n_before:
            if number in self.sample:
                self.sample[number] = np.unique(ngrams(numbers, SHINGLE_WORDS))
            return
        if not len(self._index_hashes):
            return
        shingles = np.unique(ngrams(numbers, SHINGLE_WORDS))
        smallest = _smallest(shingles)
        at = np.searchsorted(self._index_hashes, smallest)
        until = np.searchsorted(self._index_hashes, smallest, side="right")
        for low, high in zip(at[at < until], until[at < until], strict=True):
            for other in set(self._index_numbers[low:high].tolist()) - self.near:
                if _jaccard(shingles, self.sample[other]) >= ALIKE:
                    self.near.add(other)

    def _make_index(self) -> None:
        smallest = {number: _smallest(shingles) for number, shingles in self.sample.items()}
        hashes = np.concatenate([np.empty(0, np.uint64), *smallest.values()])
        numbers = np.repeat(np.array(list(smallest), dtype=np.int64), [len(part) for part in smallest.values()])
        order = np.argsort(hashes, kind="stable")
        self._index_hashes, self._index_numbers = hashes[order], numbers[order]


def _smallest(shingles: Hashes) -> Hashes:
    """Return those of a sorted set of which an alike set surely has one among its own."""
    return shingles[: len(shingles) - math.ceil(ALIKE * len(shingles)) + 1]


def _jaccard(one: Hashes, other: Hashes) -> float:
    if min(len(one), len(other)) < ALIKE * max(len(one), len(other)):
        return 0.0
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / max(len(one) + len(other) - shared, 1)
