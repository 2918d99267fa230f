"""
Lexical, dense, and both
========================

Words that match exactly and words that mean the same are found by different retrievers. Here the ranks of both are
fused, over stores of several sizes, and measured.
"""

# %%
# A small store in which experts and laymen use different words. Passages are written in the experts' words, and one in
# three uses both. Half of the questions are a layman's about a topic; the other half ask for a name.

import matplotlib.pyplot as plt
import numpy as np

from ragscale import Passage
from ragscale.retrieval import (
    BM25Retriever,
    DenseRetriever,
    HybridRetriever,
    LsaEncoder,
    ndcg,
    reciprocal_rank_fusion,
    tune_weights,
    weighted_sum,
)

rng = np.random.default_rng(0)
topics = [
    ([f"t{i}a{j}" for j in range(6)], [f"t{i}b{j}" for j in range(6)])
    for i in range(60)
]
filler = [f"f{j}" for j in range(300)]

passages, queries, relevant = [], [], []
for place in range(1500):
    expert, lay = topics[place % 60]
    own = [
        *rng.choice(expert, 3),
        *(rng.choice(lay, 3) if (place // 60) % 3 == 0 else []),
    ]
    text = " ".join([*own, f"name{place % 500}", *rng.choice(filler, 8)])
    passages.append(Passage(f"p{place}", text, 12, f"d{place}"))
for i in range(200):
    topic, name = (i // 2) % 60, int(rng.integers(0, 500))
    if i % 4 < 2:
        queries.append(" ".join(rng.choice(topics[topic][1], 3)))
        relevant.append({f"p{place}" for place in range(topic, 1500, 60)})
    else:
        queries.append(f"name{name}")
        relevant.append({f"p{place}" for place in range(name, 1500, 500)})

# %%
# BM25 finds names and misses passages in the experts' words; LSA learned which words go together, and knows no
# names. Asked for one it returns passages at random, and even fusion gives those the same credit. Weights tuned on half
# of the questions mend this; all systems are compared on the other half.

lexical, dense = BM25Retriever(), DenseRetriever(LsaEncoder(n_components=80, min_df=4))
hybrid = HybridRetriever(lexical, dense, fusion=reciprocal_rank_fusion).index(passages)
tuned = tune_weights(
    hybrid, queries[:100], relevant[:100], fusion="reciprocal_rank_fusion"
)
print("weights of BM25 and LSA:", tuned.weights)

systems = {
    "BM25": lexical,
    "LSA": dense,
    "rank fusion": hybrid,
    "even sum": hybrid.with_fusion(weighted_sum((0.5, 0.5))),
    "tuned ranks": hybrid.with_fusion(tuned.fusion),
}
for name, system in systems.items():
    print(
        f"{name:12} nDCG@10 {ndcg(system.search(queries[100:], 10), relevant[100:], passages).mean():.3f}"
    )

# %%
# Every store size from the one index. What is relevant but not yet in the store cannot be found, so the curves rise.

sizes = [hybrid.n_tokens * part // 20 for part in (1, 2, 5, 10, 15, 20)]
figure, ax = plt.subplots(layout="constrained")
for name in ("BM25", "LSA", "tuned ranks"):
    found = systems[name].search(queries[100:], 10, store_tokens=sizes)
    ax.plot(
        sizes,
        [ndcg(found[size], relevant[100:], passages).mean() for size in sizes],
        "o-",
        label=name,
    )
ax.set(xlabel="store (tokens)", ylabel="nDCG@10")
ax.legend(frameon=False)
plt.show()
