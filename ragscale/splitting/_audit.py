"""Read a split again, all of it, and prove what its manifest says; measure how alike its two ends are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np
import pandas as pd

from ragscale._files import file_digest
from ragscale._long_texts import encode
from ragscale._renamed import renamed
from ragscale._typing import RngLike
from ragscale.errors import SplitError
from ragscale.passages import cut_windows
from ragscale.results import Result
from ragscale.splitting._likeness import Likeness
from ragscale.splitting._order import document_key

if TYPE_CHECKING:
    from ragscale.splitting._split import Split

_ALL_UP_TO = 200
_ONE_CHARACTER = 8  # tokens that a character may have: then its window is longer than the size, but not empty


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AuditReport(Result):
    """What an audit found.

    Parameters
    ----------
    checks : DataFrame
        One row per promise: ``check``, ``ok`` and what was looked at.
    measures : dict
        How alike the two sides of the boundary are: shares of the store's documents with a near-duplicate, and of its
        n-grams that occur, in the pretraining prefix.
    """

    checks: pd.DataFrame
    measures: dict[str, Any] = field(default_factory=dict)

    _absent: ClassVar[Mapping[str, str]] = {
        "plot": "checks are passed or not; ragscale.plotting.split_layout(split) draws the split itself"
    }

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return bool(self.checks["ok"].all())

    def raise_if_failed(self) -> None:
        """Raise a SplitError that lists every broken promise."""
        failed = self.checks[~self.checks["ok"]]
        if len(failed):
            problems = "; ".join(
                f"{name}: {detail}" for name, detail in zip(failed["check"], failed["detail"], strict=True)
            )
            raise SplitError(f"the split breaks {len(failed)} of its {len(self.checks)} promises: {problems}")

    def to_frame(self) -> pd.DataFrame:
        """Return ``checks``."""
        return self.checks.copy()

    def summary(self) -> str:
        """Say whether every check passed, and how alike the two ends are."""
        failed = self.checks[~self.checks["ok"]]
        head = f"all {len(self.checks)} checks passed"
        if len(failed):
            broken = zip(failed["check"], failed["detail"], strict=True)
            head = f"{len(failed)} of {len(self.checks)} checks failed: " + "; ".join(f"{n}: {d}" for n, d in broken)
        return "\n".join([head, *(f"{name}: {value}" for name, value in self.measures.items())])

    def _repr_html_(self) -> str:
        measures = "".join(f"<li>{name}: {value}</li>" for name, value in self.measures.items())
        verdict = "All checks passed" if self.ok else "Some checks failed"
        return f"<p><b>{verdict}</b></p>{self.checks.to_html()}<ul>{measures}</ul>"


class AuditOptions(TypedDict, total=False):
    """The options of `audit`."""

    D: int | None
    measure: bool
    sample: int
    rng: RngLike


@renamed("seed", "rng")
def audit(
    split: Split, *, D: int | None = None, measure: bool = True, sample: int = 1000, rng: RngLike = 0
) -> AuditReport:
    """Re-read a split and check every promise.

    Parameters
    ----------
    split : Split
        The split.
    D : int, optional
        The boundary across which likeness is measured; half of T by default.
    measure : bool
        Also measure near-duplicates and n-gram overlap across the boundary.
    sample : int
        Documents that are tokenised and cut anew (at most a quarter of a corpus of more than 800, so that an audit
        takes less time than the split did), and store documents that are compared with the whole prefix.
    rng : int, Generator or None
        Of that sample.
    """
    seed = rng if isinstance(rng, int) else int(np.random.default_rng(rng).integers(2**31))
    D = split.n_tokens // 2 if D is None else D
    checks, measures = _Checks(), {}
    checks.run("files are those of the manifest", _check_files, split)
    if checks.ok:
        checks.run("tokens, documents and offsets agree", _check_counts, split)
        checks.run("order is that of the keyed hashes", _check_order, split)
        checks.run("documents end with the end-of-text token", _check_ends, split)
        checks.run("passages cover the pool from its end, once", _check_passages, split)
        checks.run("prefixes and suffixes are nested and disjoint", _check_nesting, split, seed)
        checks.run("texts give these tokens and passages", _check_texts, split, sample, seed)
        likeness = Likeness(split, D, sample, seed, measure=measure and checks.ok)
        checks.run("no text occurs twice", _check_duplicates, split, likeness)
        if measure and checks.ok:
            measures = likeness.measures()
    return AuditReport(checks=pd.DataFrame(checks.rows, columns=["check", "ok", "detail"]), measures=measures)


class _Failure(Exception):
    """A promise is broken; the message says how."""


class _Checks:
    def __init__(self) -> None:
        self.rows: list[tuple[str, bool, str]] = []

    @property
    def ok(self) -> bool:
        return all(ok for _, ok, _ in self.rows)

    def run(self, name: str, check: Any, *arguments: Any) -> None:
        try:
            self.rows.append((name, True, check(*arguments)))
        except _Failure as failure:
            self.rows.append((name, False, str(failure)))


def _expect(condition: Any, message: str) -> None:
    if not condition:
        raise _Failure(message)


def _check_files(split: Split) -> str:
    files = split.manifest["files"]
    bad = []
    for name, entry in files.items():
        path = split.path / name
        if not path.is_file():
            bad.append(f"{name} is missing")
        elif path.stat().st_size != entry["bytes"]:
            bad.append(f"{name} has {path.stat().st_size} bytes, not {entry['bytes']}")
        elif file_digest(path) != entry["sha256"]:
            bad.append(f"{name} has other contents")
    known = {split.path / name for name in files}
    parts = ("tokens", "validation", "passages", "tokenizer")
    bad += [f"{path} does not belong" for part in parts for path in _files(split.path / part) if path not in known]
    _expect(not bad, "; ".join(bad))
    return f"{len(files)} files, {sum(entry['bytes'] for entry in files.values()):,} bytes, SHA-256 of each"


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _offsets(split: Split, part: str) -> np.ndarray:
    return np.fromfile(split.path / part / "offsets.bin", dtype="<u8").astype(np.int64)


def _check_counts(split: Split) -> str:
    itemsize = np.dtype(split.manifest["tokenizer"]["dtype"]).itemsize
    validation = split.manifest["validation"]
    for part, rows, n_documents, n_tokens in (
        ("tokens", "pool", split.n_documents, split.n_tokens),
        ("validation", "validation", validation["n_documents"], validation["n_tokens_on_disk"]),
    ):
        offsets = _offsets(split, part)
        n_bytes = sum(path.stat().st_size for path in (split.path / part).glob("[0-9]*.bin"))
        _expect(n_bytes == n_tokens * itemsize, f"{part} has {n_bytes} bytes for {n_tokens} tokens")
        _expect(offsets[0] == 0 and offsets[-1] == n_tokens, f"{part}: offsets end at {offsets[-1]}, not {n_tokens}")
        _expect(len(offsets) == n_documents + 1, f"{part}: {len(offsets) - 1} offsets for {n_documents} documents")
        lengths = np.array([row["n_tokens"] for row in split.document_rows(rows)], dtype=np.int64)
        _expect(np.array_equal(lengths, np.diff(offsets)), f"{part}: document lengths differ from offsets")
    _expect(len(split.validation) == validation["n_tokens"], "validation has another length")
    corpus = split.manifest["corpus"]
    accounted = sum(corpus["dropped"].values()) + corpus["beyond_max_tokens"]
    accounted += split.n_documents + validation["n_documents"]
    _expect(accounted == corpus["documents"], f"{corpus['documents']} documents read, {accounted} accounted for")
    return f"{split.n_documents:,} documents, {split.n_tokens:,} tokens; every document read is accounted for"


def _check_order(split: Split) -> str:
    last, n = b"", 0
    for part in ("validation", "pool"):
        for row in split.document_rows(part):
            key = document_key(row["id"], split.seed)
            _expect(key > last, f"document {row['id']!r} is out of order, or there twice")
            last, n = key, n + 1
    return f"{n:,} keys rise strictly, validation before pool"


def _check_ends(split: Split) -> str:
    offsets = _offsets(split, "tokens")
    stream = split.pretraining(split.n_tokens)
    found = []
    for start in range(0, len(stream), 1 << 22):
        block = stream[start : start + (1 << 22)]
        found.append(np.flatnonzero(block == split.eos_id) + start + 1)
        _expect(int(block.max()) < split.vocab_size, f"token {block.max()} is not in the vocabulary")
    ends = np.concatenate(found)
    _expect(np.array_equal(ends, offsets[1:]), "end-of-text tokens are not exactly at the ends of documents")
    return f"{len(ends):,} end-of-text tokens, each at the end of a document"


def _check_passages(split: Split) -> str:
    ids = [row["id"] for row in split.document_rows()]
    offsets = _offsets(split, "tokens")
    document, reached, n, tokens = len(ids) - 1, split.n_tokens, 0, 0
    store, settings = split.store(split.n_tokens), split.manifest["passages"]
    passages: Any = store.passages
    counts = zip(passages.n_tokens.tolist(), passages.n_new_tokens.tolist(), strict=True)
    for row, (n_tokens, n_new) in zip(passages.rows(), counts, strict=True):
        while document >= 0 and reached <= offsets[document]:
            document -= 1
        where = f"passage {n} ({row['id']!r})"
        _expect((row["n_tokens"], row["n_new_tokens"]) == (n_tokens, n_new), f"{where}: counts differ from the index")
        _expect(row["document_id"] == ids[document], f"{where} is not of document {ids[document]!r}")
        start = int(offsets[document]) + row["start"]
        _expect(start + n_new == reached, f"{where} adds tokens up to {start + n_new}, the list has reached {reached}")
        longest = max(settings["size"], settings["overlap"] + _ONE_CHARACTER)
        _expect(n_new <= n_tokens <= longest, f"{where} has {n_tokens} tokens")
        _expect(start + n_tokens <= offsets[document + 1], f"{where} reaches over the end of its document")
        reached, n, tokens = start, n + 1, tokens + n_tokens
    _expect(reached == 0, f"the passages stop {reached} tokens before the beginning of the pool")
    found = {"n_passages": n, "n_passage_tokens": tokens}
    stated = {name: split.manifest["passages"][name] for name in found}
    _expect(found == stated, f"found {found}, the manifest says {stated}")
    return f"{n:,} passages; unique tokens add up to {split.n_tokens:,}"


def _check_nesting(split: Split, seed: int) -> str:
    rng = np.random.default_rng(seed)
    T = split.n_tokens
    last_stop = 0
    for D in np.sort(rng.integers(0, T + 1, size=20)).tolist():
        prefix, store = split.pretraining(D), split.store(T - D, D=D)
        _expect(len(prefix) == D, f"pretraining({D}) has {len(prefix)} tokens")
        low = max(0, D - 1000)
        _expect(np.array_equal(prefix[low:], split.pretraining(T)[low:D]), f"pretraining({D}) is no prefix")
        _expect(store.n_tokens <= T - D, f"store({T - D}) holds {store.n_tokens} tokens: it touches pretraining({D})")
        _expect(last_stop == 0 or store.n_passages <= last_stop, f"store({T - D}) is no prefix of a larger store")
        last_stop = store.n_passages
        _expect(store.n_tokens == int(store.passages.n_new_tokens.sum()), f"store({T - D}) miscounts its tokens")
    return "20 random cells with D + R = T"


def _check_texts(split: Split, sample: int, seed: int) -> str:
    backend = split._split_tokenizer.backend()
    if not _is_reversible(backend):
        return "not checked: this tokenizer changes text (normalisation), so tokens do not decode to the text itself"
    offsets = _offsets(split, "tokens")
    n_chosen = min(sample, max(split.n_documents // 4, _ALL_UP_TO))
    chosen = set(np.random.default_rng(seed).permutation(split.n_documents)[:n_chosen].tolist())
    settings = split.manifest["passages"]
    expected: dict[str, list[str]] = {}
    stream = split.pretraining(split.n_tokens)
    for number, row in enumerate(split.document_rows()):
        if number not in chosen:
            continue
        tokens = stream[offsets[number] : offsets[number + 1] - 1].tolist()
        text = backend.decode(tokens, skip_special_tokens=False)
        encoding = encode(backend, text)
        _expect(np.array_equal(encoding.ids, tokens), f"document {row['id']!r}: its text gives other tokens")
        _, expected[row["id"]] = cut_windows(text, encoding, settings["size"], settings["overlap"])
    for passage in split.store(split.n_tokens).passages:
        if passage.document_id in expected:
            text = expected[passage.document_id].pop()
            _expect(passage.text == text, f"passage {passage.id!r} has another text than its tokens")
    left = [id for id, texts in expected.items() if texts]
    _expect(not left, f"documents without all their passages: {left[:5]}")
    return f"{len(chosen):,} documents tokenised and cut anew"


def _is_reversible(backend: Any) -> bool:
    probe = "  A Ünïcode\ttest, 東京:\n\nlower UPPER 1234 🌍 "
    return backend.decode(backend.encode(probe, add_special_tokens=False).ids, skip_special_tokens=False) == probe


def _check_duplicates(split: Split, likeness: Likeness) -> str:
    if split.manifest["settings"]["deduplicate"]["method"] is None:
        return "not checked: the split was made without deduplication"
    if not _is_reversible(split._split_tokenizer.backend()):
        return "not checked: this tokenizer changes text (normalisation), so texts cannot be read back"
    unique = likeness.n_unique
    repeated = likeness.n_documents - unique
    _expect(not repeated, f"{repeated} documents repeat another one's text")
    return f"{unique:,} texts, all different (case and white space aside)"
