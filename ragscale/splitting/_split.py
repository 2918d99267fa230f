"""A finished split: one permutation on disk, read from both ends."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import pandas as pd

from ragscale._counts import as_counts, whole_or_same
from ragscale._files import check_digest, check_size, read_json, value_digest
from ragscale.errors import SplitError
from ragscale.passages import Document
from ragscale.splitting._assemble import SCHEMA, VERSION, read_documents
from ragscale.splitting._store import Passages, SeenPassages, Store
from ragscale.splitting._stream import TokenStream
from ragscale.splitting._tokenizers import SplitTokenizer, to_hugging_face

if TYPE_CHECKING:
    from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

    from ragscale.splitting._audit import AuditOptions, AuditReport
    from ragscale.splitting._tokenizers import TokenizerSource


_FIELDS = {
    "digest": str,
    "seed": int,
    "n_tokens": int,
    "n_documents": int,
    "validation": dict,
    "passages": dict,
    "tokenizer": dict,
    "corpus": dict,
    "settings": dict,
    "contamination": dict,
    "files": dict,
}


class Split:
    """A corpus of T tokens in one order: pretraining reads a prefix, the retrieval store is a suffix.

    Made by `split_corpus`, opened by `Split.load`. With D + R <= T the two never share a token; every D is nested
    in every larger D, every R in every larger R; D + R = T is the fixed-budget frontier.

    Parameters
    ----------
    path : path
        The folder that holds ``manifest.json``.
    manifest : dict
        What it says.
    """

    def __init__(self, path: str | os.PathLike[str], manifest: dict[str, Any]) -> None:
        self.path = Path(path)
        self.manifest = manifest

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Split:
        """Open a split; every file has its length checked now, and its digest when it is first read.

        Raises
        ------
        SplitError
            When there is none, it is unfinished, its manifest was changed, or files are missing or cut short; the
            message lists all of them.
        """
        path = Path(path)
        if not (path / "manifest.json").is_file():
            unfinished = (path / ".work").is_dir()
            raise SplitError(
                f"{path} holds no finished split: "
                + (
                    "a run was stopped here; run split_corpus again with the same arguments"
                    if unfinished
                    else "no manifest.json"
                )
            )
        name = path / "manifest.json"
        manifest = read_json(name, schema=SCHEMA, version=VERSION, error=SplitError, fields=_FIELDS)
        content = {k: v for k, v in manifest.items() if k not in ("schema", "schema_version", "digest")}
        if value_digest(content) != manifest["digest"]:
            raise SplitError(f"{name} does not match its own digest: it was changed or damaged")
        _check_files(path, manifest["files"])
        tokenizer = SplitTokenizer.load(path / "tokenizer")
        if tokenizer.digest != manifest["tokenizer"]["digest"]:
            raise SplitError(f"the tokenizer in {path / 'tokenizer'} is not the one that made this split")
        return cls(path, manifest)

    @property
    def n_tokens(self) -> int:
        """T: tokens of the pool, end-of-text tokens counted, validation apart."""
        return self.manifest["n_tokens"]

    @property
    def n_documents(self) -> int:
        return self.manifest["n_documents"]

    @property
    def digest(self) -> str:
        """Identifies the split: equal digests mean equal tokens, passages and settings."""
        return self.manifest["digest"]

    @property
    def seed(self) -> int:
        return self.manifest["seed"]

    @property
    def eos_id(self) -> int:
        """The token that ends every document."""
        return self.manifest["tokenizer"]["eos_id"]

    @property
    def vocab_size(self) -> int:
        return self.manifest["tokenizer"]["vocab_size"]

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The Hugging Face fast tokenizer of the split (imports transformers when first asked for)."""
        return to_hugging_face(self._split_tokenizer)

    @cached_property
    def _split_tokenizer(self) -> SplitTokenizer:
        return SplitTokenizer.load(self.path / "tokenizer")

    @property
    def tokenizer_digest(self) -> str:
        """Identifies the tokenizer, whatever form it comes in; see `check_tokenizer`."""
        return self.manifest["tokenizer"]["digest"]

    def check_tokenizer(self, tokenizer: TokenizerSource) -> None:
        """Raise a SplitError unless ``tokenizer`` is the one that made this split."""
        from ragscale.splitting._tokenizers import as_split_tokenizer

        found = as_split_tokenizer(tokenizer, self._split_tokenizer.eos_token).digest
        if found != self.manifest["tokenizer"]["digest"]:
            raise SplitError(
                f"this is another tokenizer (digest {found[:12]}) than the split's "
                f"({self.manifest['tokenizer']['digest'][:12]}): token counts and ids would not mean the same"
            )

    def pretraining(self, D: int) -> TokenStream:
        """Return the prefix of the permutation: exactly D tokens, memory-mapped.

        Raises
        ------
        SplitError
            When D is not between 0 and T.
        """
        return self._stream("tokens", self._check("D", D), self.n_tokens)

    @property
    def validation(self) -> TokenStream:
        """Return the tokens set aside, exactly ``validation_tokens``: no document of them is in the pool."""
        validation = self.manifest["validation"]
        return self._stream("validation", validation["n_tokens"], validation["n_tokens_on_disk"])

    def _stream(self, part: str, length: int, total: int) -> TokenStream:
        dtype = self.manifest["tokenizer"]["dtype"]
        per_shard = self.manifest["tokenizer"]["shard_bytes"] // np.dtype(dtype).itemsize
        sizes = [min(per_shard, total - start) for start in range(0, total, per_shard)]
        directory = self.path / part
        return TokenStream(
            [(directory / f"{number:05d}.bin", size) for number, size in enumerate(sizes)],
            digests=self._digests(part),
            length=length,
            dtype=dtype,
            offsets=directory / "offsets.bin",
            digest=value_digest([self.digest, part, length]),
            eos_id=self.eos_id,
            vocab_size=self.vocab_size,
        )

    def _digests(self, part: str) -> dict[str, str]:
        """Return {path: SHA-256} of the files of one part."""
        files = self.manifest["files"].items()
        return {str(self.path / name): entry["sha256"] for name, entry in files if name.startswith(f"{part}/")}

    def _rows_of(self, name: str) -> Iterator[dict[str, Any]]:
        check_digest(self.path / name, self.manifest["files"][name]["sha256"], error=SplitError)
        return read_documents(self.path / name)

    def store(
        self,
        R: int,
        source: Literal["held-out", "seen"] = "held-out",
        *,
        D: int = 0,
        allow_overlap: bool = False,
    ) -> Store:
        """Return one end of the permutation as passages: the longest list with at most R unique tokens.

        A held-out store is the suffix, which no pretraining with D + R <= T has read. A *seen* store is the prefix, the
        very tokens that every D >= R has been trained on, in the same order; it is nested in R too.

        Parameters
        ----------
        R : int
            Unique tokens, at most T - D (T for a seen store).
        source : "held-out" or "seen"
            The last R tokens of the permutation, or its first.
        D : int
            The pretraining tokens that a held-out store must not touch; of a seen store they give ``seen_share``.
        allow_overlap : bool
            Give a held-out store even if it reaches into the first D tokens; ``Store.overlap_tokens`` says how far.

        Raises
        ------
        SplitError
            When R is not between 0 and T, or the store would reach into the pretraining tokens.
        """
        if source not in ("held-out", "seen"):
            raise SplitError(f"source = {source!r} must be 'held-out' or 'seen'")
        R, D = self._check("R", R), self._check("D", D)
        if source == "seen":
            seen = SeenPassages(Passages(self.path / "passages", digests=self._digests("passages")))
            n, unique, tokens = seen.prefix(R)
            return Store(
                R=R,
                passages=seen.first(n),
                n_tokens=unique,
                n_passage_tokens=tokens,
                overlap_tokens=min(D, unique),
                source=source,
                digest=value_digest([self.digest, "seen store", n]),
            )
        shared = D + R - self.n_tokens
        if shared > 0 and not allow_overlap:
            raise SplitError(
                f"R={R:,} and D={D:,} together are {shared:,} more than the {self.n_tokens:,} tokens of "
                f"the split, so the store would hold text that was trained on: ask for at most "
                f"R={self.n_tokens - D:,}, or pass allow_overlap=True"
            )
        passages = Passages(self.path / "passages", digests=self._digests("passages"))
        n, unique, tokens = passages.prefix(R)
        return Store(
            R=R,
            passages=passages.first(n),
            n_tokens=unique,
            n_passage_tokens=tokens,
            overlap_tokens=max(0, D + unique - self.n_tokens),
            digest=value_digest([self.digest, "store", n]),
        )

    def _check(self, name: str, value: Any) -> int:
        count = whole_or_same(value)
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= self.n_tokens:
            raise SplitError(
                f"{name} must be a whole number from 0 to {self.n_tokens:,} (T of this split), got {value!r}"
            )
        return count

    def frontier(self, shares: Sequence[float] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)) -> pd.DataFrame:
        """Return the cells with D + R = T, one per share R / T."""
        problems = [f"{share!r}" for share in shares if not 0 <= share <= 1]
        if problems:
            raise SplitError(f"a share is R / T, between 0 and 1; got {', '.join(problems)}")
        R = np.array([round(share * self.n_tokens) for share in shares], dtype=np.int64)
        return pd.DataFrame({"share": list(shares), "D": self.n_tokens - R, "R": R, "budget": self.n_tokens})

    def cells(self, D: Sequence[int], R: Sequence[int], *, allow_overlap: bool = False) -> pd.DataFrame:
        """Return every pair of D and R with the tokens that the two would share; overlap raises unless allowed."""
        D, R = as_counts("D", D, error=SplitError), as_counts("R", R, error=SplitError)
        rows = [
            {"D": d, "R": r, "overlap_tokens": self.store(r, D=d, allow_overlap=allow_overlap).overlap_tokens}
            for d in D
            for r in R
        ]
        return pd.DataFrame(rows, columns=["D", "R", "overlap_tokens"])

    def documents(self, part: str = "pool") -> Iterator[Document]:
        """Yield the documents of the ``"pool"`` or ``"validation"``, in order, their texts decoded from the tokens.

        The texts are those that were given, unless the tokenizer itself changes text (lower case, normal forms).
        """
        backend, stream = self._split_tokenizer.backend(), self.part(part)
        bounds = stream.document_boundaries
        for row, (start, end) in zip(self.document_rows(part), pairwise(bounds.tolist()), strict=True):
            text = backend.decode(stream[start : end - 1].tolist(), skip_special_tokens=False)
            yield Document(row["id"], text, row.get("title", ""), row.get("source", ""))

    def part(self, part: str) -> TokenStream:
        """Return all tokens of the ``"pool"`` or ``"validation"`` (the last document of which may be longer there)."""
        if part == "pool":
            return self.pretraining(self.n_tokens)
        n_tokens = self.manifest["validation"]["n_tokens_on_disk"]
        return self._stream("validation", n_tokens, n_tokens)

    def document_rows(self, part: str = "pool") -> Iterator[dict[str, Any]]:
        """Yield id, title, source and n_tokens of the documents of the ``"pool"`` or ``"validation"``, in order."""
        return self._rows_of({"pool": "", "validation": "validation/"}[part] + "documents.jsonl.zst")

    def contamination(self) -> pd.DataFrame:
        """Return one row per evaluation task: its questions, how many were too short to check, how many had hits."""
        columns = ["questions", "questions_too_short", "questions_with_hits", "documents_with_hits"]
        table = pd.DataFrame.from_dict(self.manifest["contamination"], orient="index", columns=columns)
        return table.assign(share=table["questions_with_hits"] / table["questions"]).rename_axis("task")

    def contaminated_documents(self) -> pd.DataFrame:
        """Return one row per document and task with a hit: which questions, and how many of their n-grams."""
        rows = self._rows_of("contaminated.jsonl.zst")
        return pd.DataFrame(list(rows), columns=["id", "task", "questions"])

    def audit(self, **options: Unpack[AuditOptions]) -> AuditReport:
        """Read everything again and prove what the manifest says; see `ragscale.splitting.audit`."""
        from ragscale.splitting._audit import audit

        return audit(self, **options)

    def describe(self) -> pd.DataFrame:
        """Return what the split holds and what was left out, as a table of documents and tokens."""
        manifest = self.manifest
        corpus = manifest["corpus"]
        rows: list[tuple[str, int | None, int | None]] = [
            ("pool (T)", manifest["n_documents"], manifest["n_tokens"]),
            ("validation", manifest["validation"]["n_documents"], manifest["validation"]["n_tokens"]),
            ("beyond max_tokens", corpus["beyond_max_tokens"], None),
            *((f"dropped: {reason}", count, None) for reason, count in corpus["dropped"].items()),
            *((f"rejected: {reason}", count, None) for reason, count in corpus["rejects"].items()),
        ]
        table = pd.DataFrame(rows, columns=["part", "documents", "tokens"]).set_index("part")
        return table.astype("Int64")

    def __repr__(self) -> str:
        return (
            f"Split({str(self.path)!r}: T={self.n_tokens:,} tokens, {self.n_documents:,} documents, "
            f"validation {self.manifest['validation']['n_tokens']:,}, seed {self.seed}, digest {self.digest[:12]})"
        )

    def _repr_html_(self) -> str:
        facts = {
            "seed": self.seed,
            "passages": f"{self.manifest['passages']['n_passages']:,} of {self.manifest['passages']['size']} tokens, "
            f"overlap {self.manifest['passages']['overlap']}",
            "vocabulary": f"{self.vocab_size:,}",
            "digest": self.digest[:12],
        }
        line = " · ".join(f"{name}: {html.escape(str(value))}" for name, value in facts.items())
        table = self.describe().to_html(na_rep="", border=0, justify="left")
        return f"<p><b>Split</b> <code>{html.escape(str(self.path))}</code><br>{line}</p>{table}"


def _check_files(path: Path, files: dict[str, Any]) -> None:
    problems = []
    for name, entry in files.items():
        try:
            check_size(path / name, entry["bytes"], error=SplitError)
        except SplitError as error:
            problems.append(str(error))
        if name.startswith("tokenizer/") and not problems:
            check_digest(path / name, entry["sha256"], error=SplitError)
    if problems:
        raise SplitError("; ".join(problems) + ": copy the split anew, or split the corpus again")
