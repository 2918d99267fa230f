"""No text on both sides: exact and near-duplicates, evaluation questions, and the audit that proves it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ragscale as rs
from ragscale import Document
from ragscale.errors import ConfigError, SplitError
from ragscale.splitting import Decontamination, _duplicates
from ragscale.splitting._decontamination import NgramIndex, words
from ragscale.splitting._minhash import N_PERMUTATIONS, clusters, signature
from ragscale.splitting._order import document_key


def ids_of(split):
    return {row["id"] for row in split.document_rows()}


@settings(max_examples=10)
@given(texts=st.lists(st.integers(0, 6), min_size=2, max_size=40), per_range=st.sampled_from([1 << 20, 4]))
def test_of_equal_texts_the_smallest_key_stays(texts, per_range, tokenizer, tmp_path_factory):
    documents = [Document(f"d{i}", f"some words number {t}" + " \n" * (i % 3)) for i, t in enumerate(texts)]
    expected = {}
    for document, text in sorted(zip(documents, texts, strict=True), key=lambda pair: document_key(pair[0].id, 0)):
        expected.setdefault(text, document.id)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_duplicates, "DOCUMENTS_PER_RANGE", per_range)
        split = rs.split_corpus(documents, tmp_path_factory.mktemp("d") / "s", tokenizer=tokenizer)
    assert ids_of(split) == set(expected.values())
    assert split.manifest["corpus"]["dropped"].get("exact duplicate", 0) == len(texts) - len(expected)


def test_case_and_white_space_do_not_hide_a_duplicate_and_none_keeps_all(tokenizer, tmp_path):
    documents = [Document("a", "One  text\nhere."), Document("b", "one text HERE."), Document("c", "one text, here.")]
    assert rs.split_corpus(documents, tmp_path / "e", tokenizer=tokenizer).n_documents == 2
    kept = rs.split_corpus(documents, tmp_path / "n", tokenizer=tokenizer, deduplicate=None)
    assert kept.n_documents == 3
    assert "without deduplication" in kept.audit(measure=False).checks["detail"].iloc[-1]


def test_a_repeated_id_keeps_one_document_and_its_text_stays_in_the_corpus(tokenizer, tmp_path):
    documents = [Document("a", "first text"), Document("a", "second text"), Document("b", "second text")]
    for name, order in (("x", documents), ("y", documents[::-1])):
        rs.split_corpus(order, tmp_path / name, tokenizer=tokenizer)
    x, y = (rs.Split.load(tmp_path / name) for name in "xy")
    assert x.digest == y.digest
    kept = {d.text for d in x.documents()}
    assert kept in ({"first text", "second text"}, {"second text"})
    dropped = x.manifest["corpus"]["dropped"]
    assert dropped["duplicate id"] == 1
    assert x.n_documents + sum(dropped.values()) == 3
    rejects = [json.loads(line) for line in (tmp_path / "x" / "rejects.jsonl").read_text().splitlines()]
    assert [(r["file"], r["reason"], r["detail"]) for r in rejects] == [("<documents>", "duplicate id", "a")]


def near_copies(documents, n):
    """Change one word in each of the first n documents; far from the threshold on either side."""
    copies = []
    for document in documents[:n]:
        changed = document.text.split(" ")
        changed[len(changed) // 2] = "replacement"
        copies.append(Document(document.id + "-copy", " ".join(changed)))
    return copies


def test_near_duplicates_keep_one_of_each_cluster(corpus, tokenizer, tmp_path):
    documents = corpus(40, mean_words=300)
    copies = near_copies(documents, 10)
    both = rs.split_corpus(documents + copies, tmp_path / "e", tokenizer=tokenizer)
    assert both.n_documents == 50
    split = rs.split_corpus(documents + copies, tmp_path / "m", tokenizer=tokenizer, deduplicate="minhash")
    assert split.manifest["corpus"]["dropped"] == {"near duplicate": 10}
    kept = ids_of(split)
    for document, copy in zip(documents, copies, strict=False):
        first = min((document.id, copy.id), key=lambda id: document_key(id, 0))
        assert {document.id, copy.id} & kept == {first}
    report = both.audit(D=both.n_tokens // 2)
    assert report.ok
    assert report.measures["near_duplicate_share"] > 0.1
    assert report.measures["ngram_overlap_share"] > 0.1
    clean = split.audit(D=split.n_tokens // 2).measures
    assert clean["near_duplicate_share"] == 0
    assert clean["ngram_overlap_share"] < 0.02


def test_clusters_are_those_of_the_librarys_own_index(corpus):
    datasketch = pytest.importorskip("datasketch")
    documents = corpus(60, mean_words=120)
    documents += near_copies(documents, 25)
    signatures = [signature(d.text) for d in documents]

    class InMemory:
        table = np.array([s.hashvalues for s in signatures], dtype=np.uint64)

        def __len__(self):
            return len(self.table)

        def band(self, start, stop):
            return np.array([hash(row.tobytes()) & (2**63 - 1) for row in self.table[:, start:stop]], dtype=np.uint64)

        def rows(self, numbers):
            return self.table[numbers]

    found = clusters(InMemory(), 0.8)
    lsh = datasketch.MinHashLSH(threshold=0.8, num_perm=N_PERMUTATIONS)
    for i, s in enumerate(signatures):
        lsh.insert(i, s)
    pairs = {(i, j) for i, s in enumerate(signatures) for j in lsh.query(s) if s.jaccard(signatures[j]) >= 0.8}
    assert sum(i < j for i, j in pairs) >= 15
    for i, j in pairs:
        assert found[i] == found[j]
    assert {(i, int(found[i])) for i in range(len(documents)) if found[i] != i} <= pairs


def test_signatures_estimate_the_jaccard_similarity_of_shingles():
    rng = np.random.default_rng(0)
    vocabulary = [f"w{i}" for i in range(5000)]
    base = list(rng.choice(vocabulary, size=2000))
    for changed in (0, 40, 200):
        other = base.copy()
        for at in rng.choice(2000, size=changed, replace=False):
            other[at] = "x" + other[at]
        sets = [{tuple(text[i : i + 5]) for i in range(1996)} for text in (base, other)]
        exact = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        estimate = signature(" ".join(base)).jaccard(signature(" ".join(other)))
        assert abs(estimate - exact) < 4 * np.sqrt(exact * (1 - exact) / N_PERMUTATIONS) + 1e-9


QUESTION = "In which year did the old harbour of the northern city burn down to the ground completely?"


def test_contaminated_documents_are_dropped_and_reported(corpus, tokenizer, tmp_path):
    documents = corpus(30)
    hit = Document("leak", "Quiz night. in which YEAR did the old harbour of the northern city, burn down to 1890.")
    near_miss = Document("miss", "In which year did the old harbour of the northern town burn down to the ground?")
    tasks = {"trivia": [QUESTION, "Too short to check?"], "other": ["word " * 13]}
    arguments = {"tokenizer": tokenizer, "decontaminate": tasks}
    split = rs.split_corpus([*documents, hit, near_miss], tmp_path / "s", **arguments)
    assert "leak" not in ids_of(split)
    assert "miss" in ids_of(split)
    assert split.manifest["corpus"]["dropped"] == {"contaminated": 1}
    assert split.manifest["contamination"] == {
        "trivia": {"questions": 2, "questions_too_short": 1, "questions_with_hits": 1, "documents_with_hits": 1},
        "other": {"questions": 1, "questions_too_short": 0, "questions_with_hits": 0, "documents_with_hits": 0},
    }
    report = split.contamination()
    assert report.loc["trivia", "share"] == 0.5
    assert split.contaminated_documents()["id"].tolist() == ["leak"]
    flagged = rs.split_corpus(
        [*documents, hit], tmp_path / "f", tokenizer=tokenizer, decontaminate=Decontamination(tasks, action="flag")
    )
    assert flagged.n_documents == 31
    assert [row["id"] for row in flagged.document_rows() if row.get("contaminated")] == ["leak"]


def test_questions_come_from_files_and_from_tasks(tmp_path):
    path = tmp_path / "qa.jsonl"
    path.write_text(json.dumps({"task": "squad", "question": QUESTION}) + "\n")

    class TaskLike:
        name = "own"
        examples = (type("Example", (), {"question": QUESTION})(),)

    assert Decontamination([path, TaskLike()]).questions() == {"squad": [QUESTION], "own": [QUESTION]}
    with pytest.raises(ConfigError, match="decontaminate takes"):
        Decontamination([5]).questions()
    with pytest.raises(ConfigError, match=r"n must be at least 1.*action"):
        Decontamination({}, n=0, action="hide")  # type: ignore[arg-type]
    path.write_text('{"text": "no question"}\n')
    with pytest.raises(ConfigError, match="line 1"):
        Decontamination(path).questions()


@settings(max_examples=50)
@given(st.data())
def test_ngram_search_equals_the_plain_definition(data):
    letters = st.lists(st.sampled_from(list("abcdE")), max_size=25).map(" ".join)
    questions = data.draw(st.lists(letters, min_size=1, max_size=4))
    text = data.draw(letters)
    n = data.draw(st.integers(1, 5))
    index = NgramIndex({"t": questions}, n, "drop")

    def grams(value):
        found = words(value)
        return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]

    expected = {}
    for number, question in enumerate(questions):
        if count := sum(gram in grams(question) for gram in grams(text)):
            expected[number] = count
    assert index.hits(text) == ({"t": expected} if expected else {})
    assert index.too_short["t"] == sum(len(words(q)) < n for q in questions)


@pytest.mark.parametrize(
    ("file", "check"),
    [
        ("tokens/00000.bin", "files are"),
        ("passages/rows.bin", "files are"),
        ("validation/documents.jsonl.zst", "files are"),
    ],
)
def test_the_audit_finds_a_changed_file(documents, tokenizer, tmp_path, file, check):
    split = rs.split_corpus(documents[:20], tmp_path / "s", tokenizer=tokenizer, validation_tokens=50)
    path = tmp_path / "s" / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    report = split.audit()
    assert not report.ok
    with pytest.raises(SplitError, match=check):
        report.raise_if_failed()


def test_the_audit_finds_a_split_that_is_consistent_but_wrong(documents, tokenizer, tmp_path):
    """Change contents and put the new digests into the manifest: only the promises themselves can tell."""
    from ragscale._files import file_digest, value_digest

    def forge(name, change):
        split = rs.split_corpus(documents[:40], tmp_path / name, tokenizer=tokenizer, passage_tokens=16)
        change(split)
        manifest = json.loads((split.path / "manifest.json").read_text())
        for file, entry in manifest["files"].items():
            entry |= {"bytes": (split.path / file).stat().st_size, "sha256": file_digest(split.path / file)}
        content = {k: v for k, v in manifest.items() if k not in ("schema", "schema_version", "digest")}
        (split.path / "manifest.json").write_text(json.dumps({**manifest, "digest": value_digest(content)}))
        checks = rs.Split.load(split.path).audit(measure=False).checks
        return set(checks.loc[~checks["ok"], "check"])

    def swap_tokens(split):
        tokens = np.memmap(split.path / "tokens" / "00000.bin", dtype="<u2", mode="r+")
        offset = int(split.pretraining(split.n_tokens).document_boundaries[3])
        tokens[offset], tokens[offset + 1] = int(tokens[offset + 1]), int(tokens[offset])
        tokens.flush()

    def end_early(split):
        tokens = np.memmap(split.path / "tokens" / "00000.bin", dtype="<u2", mode="r+")
        tokens[5] = split.eos_id
        tokens.flush()

    def miscount(split):
        rows = np.memmap(split.path / "passages" / "rows.bin", dtype="<u4", mode="r+")
        rows[1] += 1
        rows.flush()

    def reorder(split):
        import zstandard

        path = split.path / "documents.jsonl.zst"
        lines = [json.dumps(row) + "\n" for row in split.document_rows()]
        path.write_bytes(zstandard.compress("".join(lines[::-1]).encode()))

    assert forge("none", lambda split: None) == set()
    assert "texts give these tokens and passages" in forge("swap", swap_tokens)
    assert "documents end with the end-of-text token" in forge("eos", end_early)
    assert "passages cover the pool from its end, once" in forge("count", miscount)
    assert "order is that of the keyed hashes" in forge("order", reorder)
