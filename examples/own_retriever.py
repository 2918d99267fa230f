"""
Write your own retriever
========================

Two methods make a retriever: one that builds an index, one that searches it. Order, padding, stores of every size,
saving and loading come with the base class, and one call checks that all of it holds.
"""

# %%
# Ten lines
# ---------
# This one scores a passage by the share of the query's letter trigrams that it holds. ``top_k`` selects the best ones
# so that equal scores stand in the order of the store, which is what makes the answer for a small k the beginning of
# the answer for a larger one.

import numpy as np

from ragscale import Passage
from ragscale.retrieval import Retriever, top_k
from ragscale.testing import check_retriever


class TrigramRetriever(Retriever):
    def _index(self, passages):
        self.trigrams = [trigrams(passage.text) for passage in passages]

    def _search(self, queries, k):
        asked = [trigrams(query) for query in queries]
        shared = [
            [len(held & wanted) / max(len(wanted), 1) for held in self.trigrams]
            for wanted in asked
        ]
        return top_k(np.where(np.array(shared) > 0, shared, -np.inf), k)


def trigrams(text):
    text = f" {text.lower()} "
    return {text[i : i + 3] for i in range(len(text) - 2)}


# %%
# Does it keep the contract? The check raises at the first broken promise, and names it.

for check in check_retriever(TrigramRetriever):
    print("kept:", check.replace("_", " "))

# %%
# Stores of every size now work, although nothing was written for them.

store = [
    Passage("tides", "Tides follow the moon: the sea rises twice a day.", 11, "sea"),
    Passage("salt", "Sea water holds about 35 grams of salt per litre.", 10, "sea"),
    Passage("moon", "The moon circles the earth in a little over 27 days.", 11, "sky"),
]
retriever = TrigramRetriever().index(store)
for tokens, hits in retriever.search(
    "moon days", k=1, store_tokens=[5, 11, 21, 32]
).items():
    print(tokens, [passage.id for passage in hits.take(retriever.passages, 0)])

# %%
# An existing engine
# ------------------
# For stores beyond one machine, let an engine hold the vectors and ask it. This one asks Qdrant; in its local mode the
# engine runs inside this process, and ``QdrantClient(url=...)`` in its place asks a cluster.
#
# The engine filters by row, so a smaller store is asked for directly: that is ``_search_nested``. It is exact here
# because each passage's vector depends on its own text alone. Ties are the engine's to break, so a few hits more than
# k are fetched, until the last one scores lower than the k-th.

from qdrant_client import QdrantClient, models
from sklearn.feature_extraction.text import HashingVectorizer


class QdrantRetriever(Retriever):
    def _index(self, passages):
        self.encoder = HashingVectorizer(
            n_features=256, norm="l2", alternate_sign=False
        )
        self.engine = QdrantClient(location=":memory:")
        distance = models.VectorParams(size=256, distance=models.Distance.DOT)
        self.engine.create_collection("store", vectors_config=distance)
        vectors = self._vectors([passage.text for passage in passages])
        self.engine.upload_collection(
            "store",
            vectors=vectors,
            payload=[{"row": i} for i in range(len(vectors))],
            ids=range(len(vectors)),
        )

    def _vectors(self, texts):
        return self.encoder.transform(texts).toarray().astype(np.float32)

    def _search(self, queries, k):
        return self._search_nested(queries, k, [self.n_passages])[0]

    def _search_nested(self, queries, k, n_passages_per_store):
        vectors = self._vectors(queries)
        return [self._ask(vectors, k, n) for n in n_passages_per_store]

    def _ask(self, vectors, k, n):
        rows, scores = (
            np.full((len(vectors), n), -1),
            np.full((len(vectors), n), -np.inf),
        )
        inside = models.Filter(
            must=[models.FieldCondition(key="row", range=models.Range(lt=n))]
        )
        for line, vector in enumerate(vectors):
            limit = k
            while True:
                found = self.engine.query_points(
                    "store", query=vector, query_filter=inside, limit=limit
                ).points
                if (
                    len(found) < limit
                    or limit >= n
                    or found[-1].score < found[k - 1].score
                ):
                    break
                limit *= 2
            for place, point in enumerate(found):
                rows[line, place], scores[line, place] = point.id, point.score
        scores[scores <= 0] = -np.inf
        return top_k(scores, k, rows=rows)


retriever = QdrantRetriever().index(store)
for tokens, hits in retriever.search(
    "the moon and the sea", k=2, store_tokens=[11, 32]
).items():
    print(tokens, [passage.id for passage in hits.take(retriever.passages, 0)])
