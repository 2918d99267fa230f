"""``split_corpus``: from any corpus to one permutation on disk, in stages that a killed run takes up again."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict

from ragscale._counts import whole_or_same
from ragscale._files import (
    Busy,
    OwnedFolder,
    atomic_write,
    check_fields,
    damaged,
    disk_errors,
    locked,
    remove_leftovers,
    value_digest,
)
from ragscale._files._ownership import MARK
from ragscale._renamed import renamed
from ragscale.errors import ConfigError, FileError, SplitError
from ragscale.passages import check_windows
from ragscale.splitting._assemble import PARTS, assemble, needed_units
from ragscale.splitting._decontamination import Decontamination, NgramIndex, as_decontamination
from ragscale.splitting._duplicates import find_duplicates
from ragscale.splitting._order import Runs, count_iterable, count_shard, scatter_iterable, scatter_shard
from ragscale.splitting._pieces import START_ANEW, finished_piece, read_work, remove_attempts, write_work
from ragscale.splitting._sources import Source, as_source
from ragscale.splitting._split import Split
from ragscale.splitting._tokenizers import as_split_tokenizer
from ragscale.splitting._units import UnitTask, make_unit, plan_units
from ragscale.splitting._workers import WorkerPool

if TYPE_CHECKING:
    from ragscale.splitting._decontamination import Questions
    from ragscale.splitting._sources import Documents
    from ragscale.splitting._tokenizers import TokenizerSource


LAYOUT = 1
_FACTS = {"documents": int, "bytes": int, "rejects": dict, "digest": str}


class SplitSettings(TypedDict, total=False):
    """What a split depends on, see `split_corpus`."""

    tokenizer: Required[TokenizerSource]
    max_tokens: int | None
    validation_tokens: int
    seed: int
    deduplicate: Literal["exact", "minhash"] | None
    decontaminate: Decontamination | Questions | None
    passage_tokens: int
    passage_overlap: int
    max_rejected: float
    eos_token: str | None
    minhash_threshold: float


@renamed("passage_size", "passage_tokens")
def split_corpus(
    documents: Documents,
    out: str | os.PathLike[str],
    *,
    tokenizer: TokenizerSource,
    max_tokens: int | None = None,
    validation_tokens: int = 0,
    seed: int = 0,
    deduplicate: Literal["exact", "minhash"] | None = "exact",
    decontaminate: Decontamination | Questions | None = (),
    n_workers: int = 1,
    passage_tokens: int = 256,
    passage_overlap: int = 0,
    max_rejected: float = 0.01,
    eos_token: str | None = None,
    minhash_threshold: float = 0.8,
    progress: bool | None = None,
) -> Split:
    """Put a corpus into one seeded order and write it so that it can be read from both ends.

    The order depends on the document ids and the seed alone: not on the order of the input, its files or the number
    of workers. A run that was killed continues when called again, and ends with the same bytes.

    Parameters
    ----------
    documents : iterable of Document, source, or paths
        What `read_jsonl`, `read_parquet`, `read_text`, `read_huggingface` or `read_datatrove_tokens` give, paths of
        such files, or any iterable of `ragscale.Document` (read twice when a run is continued).
    out : path
        Folder of the split; made if need be. A finished split of the same corpus and settings there is returned.
    tokenizer : str, path or tokenizer
        A Hugging Face fast tokenizer, a ``tokenizers.Tokenizer``, or a name or path of one. Saved with the split.
    max_tokens : int, optional
        Keep at most this many tokens in the pool (whole documents from the front of the order).
    validation_tokens : int
        Set aside that many tokens first; the documents they come from are in no other part.
    seed : int
        Another seed, another order.
    deduplicate : {"exact", "minhash"} or None
        "exact" keeps one of equal texts (case and white space do not matter), "minhash" also one of each cluster of
        near-duplicates. The one with the smallest key stays.
    decontaminate : Decontamination, mapping, or sequence of paths or tasks
        Evaluation questions whose 13-grams must not occur; see `Decontamination`.
    n_workers : int
        Processes for reading and tokenising.
    passage_tokens, passage_overlap : int
        Token windows of the store.
    max_rejected : float
        Stop when a larger share of the records is unusable; they are listed in ``rejects.jsonl`` either way.
    eos_token : str, optional
        The token that ends a document, where the tokenizer does not say.
    minhash_threshold : float
        Jaccard similarity of 5-word shingles from which texts are near-duplicates.
    progress : bool, optional
        Show a progress bar; by default when standard error is a terminal.

    Returns
    -------
    Split

    Raises
    ------
    ConfigError
        When the settings cannot work; lists every problem.
    SplitError
        When a file cannot be read to its end, too much was rejected, nothing is left, ``out`` belongs to another
        corpus or other settings, or it holds files of your own where the split has to write.
    FileError
        When the disk is full or may not be written to.

    Examples
    --------
    >>> import tempfile
    >>> import ragscale as rs
    >>> documents = [rs.Document(str(i), f"document {i} speaks of {i * i}") for i in range(20)]
    >>> tokenizer = rs.splitting.train_tokenizer([document.text for document in documents], 300)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     split = rs.split_corpus(documents, folder, tokenizer=tokenizer, passage_tokens=16, progress=False)
    ...     len(split.pretraining(50)[:]), split.store(60).n_tokens <= 60
    (50, True)
    """
    job = SplitJob.create(
        out,
        tokenizer=tokenizer,
        max_tokens=max_tokens,
        validation_tokens=validation_tokens,
        seed=seed,
        deduplicate=deduplicate,
        decontaminate=decontaminate,
        passage_tokens=passage_tokens,
        passage_overlap=passage_overlap,
        max_rejected=max_rejected,
        eos_token=eos_token,
        minhash_threshold=minhash_threshold,
    )
    if n_workers < 1:
        raise ConfigError(f"n_workers must be at least 1, got {n_workers}")
    source = as_source(documents)
    if job.finished():  # needs no lock and no right to write: a finished split is only read
        job.check_same_corpus(source)
        return Split.load(job.out)
    with job.locked():
        if job.finished():
            job.check_same_corpus(source)
            return Split.load(job.out)
        job.prepare()
        with WorkerPool(n_workers) as pool:
            job.scatter(source, pool)
            job.find_exact_duplicates()
            job.find_near_duplicates(pool)
            stats = job.tokenise(pool, _Progress(job, progress))
        job.finish(stats)
    return Split.load(job.out)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class SplitJob:
    """The stages of one split in one folder; each knows what is done already.

    Parameters
    ----------
    out : Path
        The folder.
    config : dict
        All that decides the bytes, JSON-able.
    """

    def __init__(self, out: Path, config: dict[str, Any]) -> None:
        self.out, self.config = out, config
        self.work = out / ".work"
        self.folder = OwnedFolder(out, "split", error=SplitError)
        self.task = UnitTask(self.work, config["size"], config["overlap"], config["dtype"], value_digest(config))
        self._tokenizer: Any = None
        self._ngrams: NgramIndex | None = None

    @classmethod
    @renamed("passage_size", "passage_tokens")
    def create(
        cls,
        out: str | os.PathLike[str],
        *,
        tokenizer: TokenizerSource,
        max_tokens: int | None = None,
        validation_tokens: int = 0,
        seed: int = 0,
        deduplicate: str | None = "exact",
        decontaminate: Decontamination | Questions | None = (),
        passage_tokens: int = 256,
        passage_overlap: int = 0,
        max_rejected: float = 0.01,
        eos_token: str | None = None,
        minhash_threshold: float = 0.8,
    ) -> SplitJob:
        """Check the settings and take in the tokenizer and the questions; nothing is written yet."""
        problems = []
        max_tokens, validation_tokens = whole_or_same(max_tokens), whole_or_same(validation_tokens)
        passage_tokens, passage_overlap = whole_or_same(passage_tokens), whole_or_same(passage_overlap)
        if max_tokens is not None and not (_is_int(max_tokens) and max_tokens >= 1):
            problems.append(f"max_tokens must be at least 1, a whole number or None, got {max_tokens!r}")
        if not (_is_int(validation_tokens) and validation_tokens >= 0):
            problems.append(f"validation_tokens must not be negative, and a whole number, got {validation_tokens!r}")
        if not _is_int(whole_or_same(seed)):
            problems.append(f"seed must be a whole number, got {seed!r}")
        if deduplicate not in ("exact", "minhash", None):
            problems.append(f"deduplicate must be 'exact', 'minhash' or None, got {deduplicate!r}")
        if not 0 <= max_rejected <= 1:
            problems.append(f"max_rejected is a share between 0 and 1, got {max_rejected}")
        if not 0 < minhash_threshold < 1:
            problems.append(f"minhash_threshold must lie between 0 and 1, got {minhash_threshold}")
        if len(str(seed)) > 64:
            problems.append(f"seed must have at most 64 digits, got {seed}")
        try:
            check_windows(passage_tokens, passage_overlap)
        except ConfigError as error:
            problems.append(str(error))
        if problems:
            raise ConfigError("the corpus cannot be split like this: " + "; ".join(problems))
        loaded = as_split_tokenizer(tokenizer, eos_token)
        backend = loaded.backend()
        vocab_size = max(backend.get_vocab_size(), 1 + max(backend.get_vocab().values()))
        wanted: Decontamination | None = as_decontamination(decontaminate)
        ngrams = NgramIndex(wanted.questions(), wanted.n, wanted.action) if wanted else None
        config = {
            "layout": LAYOUT,
            "seed": int(seed),
            "max_tokens": None if max_tokens is None else int(max_tokens),
            "validation_tokens": int(validation_tokens),
            "deduplicate": {"method": deduplicate, "threshold": minhash_threshold}
            if deduplicate == "minhash"
            else {"method": deduplicate},
            "decontaminate": {"n": ngrams.n, "action": ngrams.action, "questions": value_digest(ngrams.tasks)}
            if ngrams
            else None,
            "size": int(passage_tokens),
            "overlap": int(passage_overlap),
            "tokenizer": loaded.digest,
            "vocab_size": vocab_size,
            "eos_id": backend.token_to_id(loaded.eos_token),
            "dtype": "<u2" if vocab_size <= 1 << 16 else "<u4",
        }
        job = cls(Path(out), config)
        job._tokenizer, job._ngrams, job.max_rejected = loaded, ngrams, max_rejected
        return job

    max_rejected = 1.0

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Keep a second run out of the folder; the lock goes with the process, however it ends."""
        lock = locked(self.out / ".ragscale.lock", wait=False, keep=False)
        try:
            lock.__enter__()
        except Busy as error:
            raise SplitError(f"another run is splitting into {self.out} right now: wait for it") from error
        with contextlib.ExitStack() as stack:
            stack.push(lock)
            yield

    def finished(self) -> bool:
        """Tell whether the folder holds the finished split of these settings; others are an error."""
        if not (self.out / "manifest.json").is_file():
            return False
        manifest = Split.load(self.out).manifest
        self._clear_away()
        found = {
            "seed": manifest["seed"],
            **manifest["settings"],
            "validation_tokens": manifest["validation"]["n_tokens"],
            "size": manifest["passages"]["size"],
            "overlap": manifest["passages"]["overlap"],
            "tokenizer": manifest["tokenizer"]["digest"],
        }
        self._check_same(found)
        return True

    def _clear_away(self) -> None:
        """Remove what only an unfinished split needs, where a run was killed before it did."""
        with contextlib.suppress(FileError, SplitError):
            if ".work" in self.folder.names():
                self.folder.remove(".work")
                self.folder.release()

    def _check_same(self, found: dict[str, Any]) -> None:
        differing = [
            f"{key}: {value!r} there, {self.config.get(key)!r} now"
            for key, value in found.items()
            if value != self.config.get(key)
        ]
        if differing:
            raise SplitError(
                f"{self.out} belongs to a split with other settings ({'; '.join(differing)}): choose another folder, "
                f"or delete this one"
            )

    def check_same_corpus(self, documents: Source | Iterable[Any]) -> None:
        """Read the corpus (no tokenising) and raise when it is not the one that was split here."""
        with WorkerPool(1) as pool:
            digest = _corpus_facts(list(_count_all(documents, pool)))["digest"]
        known = Split.load(self.out).manifest["corpus"]["digest"]
        if digest != known:
            raise SplitError(
                f"{self.out} holds the split of another corpus (digest {known[:12]}, this one {digest[:12]}): "
                f"choose another folder, or delete this one"
            )

    def prepare(self) -> None:
        """Make the working folder, or check that the one there belongs to these settings."""
        marker = self.work / "config.json"
        for name in (MARK, "manifest.json", "rejects.jsonl"):  # what a kill left of writing them
            remove_leftovers(self.out / name)
        if marker.is_file() and ".work" in self.folder.names():
            self._check_same(read_work(marker)["config"])
            remove_attempts(self.work)
            self._save_tools()
            self._check_scattered()
            return
        with disk_errors(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        self.folder.claim([".work", ".logs", "manifest.json", *PARTS])
        self.folder.remove(".work")
        with disk_errors(self.work):
            self.work.mkdir()
            (self.work / "scatter").mkdir()
            (self.work / "units").mkdir()
        self._save_tools()
        write_work(marker, {"config": self.config})

    def _save_tools(self) -> None:
        self._tokenizer.save(self.work / "tokenizer")
        if self._ngrams is not None:
            self._ngrams.save(self.work / "ngrams.json")

    def _check_scattered(self) -> None:
        """Raise when documents that a stopped run has sorted are no longer as it left them."""
        if (self.work / "corpus.json").is_file():
            for shard in sorted((self.work / "scatter").glob("[0-9]*")):
                if finished_piece(shard) is None:
                    raise SplitError(f"{shard} is damaged, its files are not as they were: {START_ANEW}")

    def scatter(self, source: Source | Iterable[Any], pool: WorkerPool) -> None:
        """Read the corpus once into sorted runs."""
        fingerprint = source.fingerprint() if isinstance(source, Source) else None
        known = self.work / "source.json"
        read_before = (self.work / "corpus.json").is_file()
        same = known.is_file() and read_work(known)["fingerprint"] == fingerprint
        if read_before and not same:
            raise SplitError(
                f"the run that was stopped in {self.out} read other files, or they have changed since: "
                f"delete {self.work} to start anew"
            )
        if read_before and fingerprint is not None:
            return
        if not read_before and (not same or fingerprint is None):
            with disk_errors(self.work):  # the corpus was not read to its end, or cannot be told from another one
                shutil.rmtree(self.work / "scatter")
                (self.work / "scatter").mkdir()
        write_work(known, {"fingerprint": fingerprint})
        if read_before:
            again = _corpus_facts(list(_count_all(source, pool)))
            if again["digest"] != self.facts()["digest"]:
                raise SplitError(
                    f"the run that was stopped in {self.out} read another corpus: delete {self.work} to start anew"
                )
            return
        list(_scatter_all(source, self.work / "scatter", self.config["seed"], pool))
        self.gather_facts()

    def facts(self) -> dict[str, Any]:
        """Return what is known of the corpus once it was read."""
        path = self.work / "corpus.json"
        facts = read_work(path).get("facts")
        check_fields(facts, _FACTS, name=str(path), error=SplitError)
        return facts  # type: ignore[return-value] - checked

    def gather_facts(self) -> None:
        """Join the counts of all shards; too many rejects stop the run here."""
        shards = sorted((self.work / "scatter").glob("[0-9]*"))
        stats = [read_work(shard / "stats.json")["stats"] for shard in shards]
        facts = _corpus_facts(stats)
        rejected = sum(facts["rejects"].values())
        records = facts["documents"] + rejected
        if rejected > self.max_rejected * records or not facts["documents"]:
            first = next((entry["first_reject"] for entry in stats if entry["first_reject"]), None)
            self._refuse(shards, facts, first)
        write_work(self.work / "corpus.json", {"facts": facts})

    def _refuse(self, shards: list[Path], facts: dict[str, Any], first: dict[str, Any] | None) -> None:
        """Say what is wrong with the corpus, list it all, and leave no work behind."""
        rejected = sum(facts["rejects"].values())
        if first is None:
            self.folder.remove(".work")
            raise SplitError("the corpus has no usable documents: it is empty")
        listing = self.out / "rejects.jsonl"
        with atomic_write(listing, "w", encoding="utf-8") as file:
            for shard in shards:
                file.write((shard / "rejects.jsonl").read_text(encoding="utf-8"))
        self.folder.remove(".work")
        reasons = ", ".join(f"{count} {reason}" for reason, count in facts["rejects"].items())
        raise SplitError(
            f"{rejected} of {facts['documents'] + rejected} records are unusable ({reasons}), more than "
            f"max_rejected={self.max_rejected:g} allows. The first is {first['file']}, line {first['line']}: "
            f"{first['reason']}{first['detail'] and ', ' + first['detail'][:200]}. See {listing}, mend the corpus or "
            "raise max_rejected"
        )

    def find_exact_duplicates(self) -> None:
        """Decide which documents repeat an id or a text, and how the key space is cut into units."""
        facts = self.facts()
        runs = Runs(self.work / "scatter")
        exact = self.config["deduplicate"]["method"] is not None
        find_duplicates(runs, self.work / "drops", facts["documents"], exact=exact)
        if not (self.work / "units.json").is_file():
            write_work(self.work / "units.json", {"units": plan_units(runs.sizes())})

    def find_near_duplicates(self, pool: WorkerPool | None = None) -> None:
        """Decide which documents stand too close to another one, where that was asked for."""
        if self.config["deduplicate"]["method"] == "minhash":
            from ragscale.splitting._minhash import find_near_duplicates

            threshold = self.config["deduplicate"]["threshold"]
            find_near_duplicates(self.work, self.units(), threshold, pool or WorkerPool(1))

    def units(self) -> list[tuple[int, int]]:
        """Return the key ranges of the units."""
        with damaged(self.work / "units.json", SplitError):
            return [(int(low), int(high)) for low, high in read_work(self.work / "units.json")["units"]]

    def tokenise(self, pool: WorkerPool, progress: _Progress | None = None) -> list[dict[str, Any]]:
        """Make the units in order, as many as the wanted tokens need."""
        calls = ((self.task, number, low, high) for number, (low, high) in enumerate(self.units()))
        stats = pool.map(make_unit, calls)
        return needed_units(progress.watch(stats) if progress else stats, self.enough_tokens())

    def enough_tokens(self) -> int | None:
        """Return how many tokens units must hold: validation may take one document more than it was asked for."""
        if self.config["max_tokens"] is None:
            return None
        longest = max(int(rows["length"].max()) for _, rows in Runs(self.work / "scatter").rows(0, 1 << 64))
        return self.config["max_tokens"] + self.config["validation_tokens"] + longest

    def finish(self, stats: list[dict[str, Any]]) -> None:
        """Write the split and its manifest, then remove the working folder."""
        facts = self.facts()
        units = [self.task.units / f"{number:06d}" for number in range(len(stats))]
        assemble(self.folder, self.work, units=units, stats=stats, config=self.config, corpus=facts)
        self._clear_away()


def _scatter_all(
    documents: Source | Iterable[Any], directory: Path, seed: int, pool: WorkerPool
) -> Iterator[dict[str, Any]]:
    if isinstance(documents, Source):
        calls = ((documents, shard, directory / f"{i:06d}", seed) for i, shard in enumerate(documents.shards))
        yield from pool.map(scatter_shard, calls)
    else:
        yield scatter_iterable(documents, directory / "000000", seed)


def _count_all(documents: Source | Iterable[Any], pool: WorkerPool) -> Iterator[dict[str, Any]]:
    if isinstance(documents, Source):
        yield from pool.map(count_shard, ((documents, shard) for shard in documents.shards))
    else:
        yield count_iterable(documents)


def _corpus_facts(stats: list[dict[str, Any]]) -> dict[str, Any]:
    """Join the counts of shards; the digest does not depend on how documents lie in them, or in what order."""
    rejects: dict[str, int] = {}
    for entry in stats:
        for reason, count in entry["rejects"].items():
            rejects[reason] = rejects.get(reason, 0) + count
    total = sum(int(entry["fingerprint"], 16) for entry in stats) % 2**128
    return {
        "documents": sum(entry["documents"] for entry in stats),
        "bytes": sum(entry["bytes"] for entry in stats),
        "rejects": dict(sorted(rejects.items())),
        "digest": f"{total:032x}",
    }


class _Progress:
    """A bar over the units, with tokens a second and the time left."""

    def __init__(self, job: SplitJob, show: bool | None) -> None:
        self.job = job
        self.show = sys.stderr.isatty() if show is None else show

    def watch(self, stats: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        if not self.show:
            yield from stats
            return
        from tqdm import tqdm

        total = self.job.facts()["bytes"]
        n_tokens, start = 0, time.monotonic()
        with tqdm(total=total, unit="B", unit_scale=True, desc="tokenising") as bar:
            for entry in stats:
                n_tokens += entry["tokens"]
                bar.update(entry["bytes"])
                bar.set_postfix_str(f"{n_tokens / max(time.monotonic() - start, 1e-9):,.0f} tokens/s")
                yield entry
