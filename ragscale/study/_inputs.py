"""What each stage is given: frozen, and plain data; `counts` is what determines the outputs, and names the job."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ragscale.training import ModelConfig, TrainConfig
from ragscale.training._config import RUNTIME_FIELDS

# raised when a stage writes something else for the same inputs: its jobs then have other names
DATA_VERSION = {"split": 2, "check": 1, "index": 2, "search": 1, "retrieve": 2, "train": 2, "evaluate": 2}
BM25 = "ragscale.retrieval:BM25Retriever"


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitInputs:
    """The corpus and how it is split; ``content`` stands for the files, by their digests."""

    content: Any
    corpus: Any
    vocabulary: Any
    tokenizer: Any
    max_tokens: int | None
    validation_tokens: int
    seed: int
    deduplicate: str | None
    decontaminated_of: Any
    tasks: tuple[str, ...] | None
    passage_tokens: int
    passage_overlap: int
    n_workers: int

    def counts(self) -> Any:
        """All but where files lie and the number of workers, which leaves every byte as it is."""
        places = {"corpus", "tokenizer", "tasks", "n_workers"}
        fields = {name: value for name, value in asdict(self).items() if name not in places}
        return {**fields, "data_version": DATA_VERSION["split"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenSplit:
    """A split that exists already."""

    path: str
    digest: str

    def counts(self) -> Any:
        """The split's own digest."""
        return {"split": self.digest, "data_version": DATA_VERSION["split"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexInputs:
    """A retriever, its code where it is the user's own, and the largest store, or its i-th run of n."""

    retriever: str
    factory: str
    code: tuple[tuple[tuple[str, str], ...], ...]
    source: Any
    store_tokens: int
    threads: int
    tasks: tuple[str, ...] = ()
    store_source: str = "held-out"
    part: tuple[int, int] = (0, 1)

    def counts(self) -> Any:
        """The retriever, its source and the store; threads where the retriever computes with torch."""
        threads = {} if self.factory == BM25 else {"threads": self.threads}
        return {
            "retriever": self.retriever,
            "source": self.source,
            "store_tokens": self.store_tokens,
            **_unless_held_out("store_source", self.store_source),
            **({} if self.part == (0, 1) else {"part": list(self.part)}),
            **threads,
            "data_version": DATA_VERSION["index"],
        }

    def modules(self) -> list[dict[str, str]]:
        """The user's modules, as `import_own` takes them."""
        return [dict(entry) for entry in self.code]


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchInputs:
    """Questions, all or the i-th run of n, and the stores that they are searched in with the largest k."""

    asked: Any
    tasks: tuple[str, ...]
    stores: tuple[int, ...]
    coverage_stores: int
    k: int
    part: tuple[int, int]
    threads: int
    index: IndexInputs

    def counts(self) -> Any:
        """All but where files lie; the index is counted as a job before."""
        threads = {} if self.index.factory == BM25 else {"threads": self.threads}
        left = {"tasks", "threads", "index"}
        fields = {name: value for name, value in asdict(self).items() if name not in left}
        return {**fields, **threads, "data_version": DATA_VERSION["search"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrieveInputs:
    """The questions, and how they are asked of every store.

    ``hits`` names the jobs that searched before; without them the job searches itself, with the same hits.
    """

    asked: Any
    tasks: tuple[str, ...]
    gold_of: Any
    gold: tuple[str, ...]
    stores: tuple[int, ...]
    coverage_stores: int
    k: int
    conditions: tuple[str, ...]
    n_shot: int
    max_length: int
    threads: int
    index: IndexInputs | None
    source: str = "held-out"
    hits: tuple[str, ...] = ()

    def counts(self) -> Any:
        """All but where files lie; the index, and with it the source of the store, is counted as a job before."""
        threads = {} if self.index is None or self.index.factory == BM25 else {"threads": self.threads}
        left = {"tasks", "gold", "threads", "index", "source", "hits"}
        fields = {name: value for name, value in asdict(self).items() if name not in left}
        return {**fields, **threads, "data_version": DATA_VERSION["retrieve"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainInputs:
    """A piece of one training run: the trunk up to a step, or the branch that ends at D.

    ``tokens`` are the values of D up to this one, ``ladder`` all that the study asks for: the trunk keeps a state
    where each branch leaves.
    """

    model: ModelConfig
    training: TrainConfig
    D: int | None
    stop: int
    tokens: tuple[int, ...]
    ladder: tuple[int, ...]
    n_processes: int
    threads: int

    def counts(self) -> Any:
        """The model, the settings that change numbers, and the end; earlier D where they leave a trace (wsd-s)."""
        earlier = list(self.tokens) if self.training.schedule == "wsd-s" else None
        return {
            **self.run_counts(),
            "D": self.D,
            "stop": self.stop,
            "earlier": earlier,
            "n_processes": self.n_processes,
            "data_version": DATA_VERSION["train"],
        }

    def run_counts(self) -> dict[str, Any]:
        """Return what names the run, whose folder holds the trunk and all branches."""
        shape = {name: value for name, value in asdict(self.model).items() if name != "name"}
        logistics = RUNTIME_FIELDS - {"validation_tokens"}
        training = {name: value for name, value in self.training.to_dict().items() if name not in logistics}
        return {"model": shape, "training": training, "threads": self.threads}


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateInputs:
    """One checkpoint, and the stores that it is asked with; k is counted with the prompts."""

    model: str
    seed: int
    D: int
    stores: tuple[int, ...]
    threads: int
    source: str = "held-out"
    k: int = 0

    def counts(self) -> Any:
        """All of it but k."""
        fields = {name: value for name, value in asdict(self).items() if name not in {"source", "k"}}
        fields |= _unless_held_out("source", self.source)
        return {**fields, "stores": list(self.stores), "data_version": DATA_VERSION["evaluate"]}


def _unless_held_out(name: str, source: str) -> dict[str, str]:
    """Return what a seen store adds to what is counted: the names of all other jobs do not hold where it comes from."""
    return {} if source == "held-out" else {name: source}
