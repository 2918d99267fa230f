"""
Split a corpus
==============

One seeded permutation of a corpus, read from both ends: pretraining takes a prefix, the retrieval store a suffix.
Here on a small made-up corpus; the same calls work on files of any size.
"""

# %%
# A corpus is any iterable of documents, or files. These are short texts about invented places, one of them twice.
import tempfile
from pathlib import Path

import numpy as np

import ragscale as rs

rng = np.random.default_rng(0)
nouns = [
    "river",
    "harbour",
    "bridge",
    "library",
    "market",
    "tower",
    "garden",
    "mill",
    "school",
    "theatre",
]
verbs = [
    "opened",
    "burned",
    "flooded",
    "closed",
    "moved",
    "grew",
    "sank",
    "returned",
    "changed",
    "froze",
]


def sentence() -> str:
    noun, place, verb = rng.choice(nouns), rng.integers(200), rng.choice(verbs)
    return f"The {noun} of Place {place} {verb} in {rng.integers(1700, 2000)}."


documents = [
    rs.Document(
        f"place-{i}",
        " ".join(sentence() for _ in range(rng.integers(5, 60))),
        title=f"Place {i}",
    )
    for i in range(200)
]
documents.append(rs.Document("a-copy", documents[17].text))

# %%
# Train a tokenizer on it, and split. A question that the evaluation will ask must not be answered by a verbatim copy,
# so documents that share 13 words in a row with one are left out (here the limit is 6, as the sentences are short).
out = Path(tempfile.mkdtemp()) / "split"
tokenizer = rs.splitting.train_tokenizer(documents, vocab_size=600)
questions = {"made-up": [documents[3].text.split(".")[0] + "?"]}
split = rs.split_corpus(
    documents,
    out,
    tokenizer=tokenizer,
    validation_tokens=1000,
    passage_tokens=64,
    passage_overlap=16,
    decontaminate=rs.splitting.Decontamination(questions, n=6),
)
split

# %%
# What was dropped is counted, and the evaluation questions that had a hit are named.
split.contamination()

# %%
# Every D is nested in every larger D, and every store in every larger store. The fixed-budget cells are D + R = T:
split.frontier([0.0, 0.1, 0.25, 0.5])

# %%
# A prefix is an array of exactly D tokens, a store a list of passages. Overlapping windows repeat tokens; R counts
# unique ones, and the overlap factor says how many were repeated.
T = split.n_tokens
stream = split.pretraining(T - 5000)
store = split.store(5000, D=len(stream))
print(stream, stream[:8])
print(
    f"{store.n_passages} passages, {store.n_tokens} unique tokens, overlap factor {store.overlap_factor:.2f}"
)
print(store.passages[0].text)

# %%
# The two ends never touch. Asking for more than is left is an error, not a leak:
try:
    split.store(6000, D=len(stream))
except rs.errors.SplitError as error:
    print(error)

# %%
# The audit reads everything again and proves order, nesting, disjointness and digests, and measures how much of the
# store's text also occurs in the prefix.
report = split.audit()
print(report.measures)
report

# %%
# The picture: documents in their order, and what four cells of the frontier read.
rs.plotting.split_layout(split)
