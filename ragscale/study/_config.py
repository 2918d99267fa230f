"""What a study is: a corpus, a ladder of models, grids of D and R, a retriever, questions. Frozen, and JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, cast

from ragscale._files import value_digest, write_json
from ragscale.errors import ConfigError
from ragscale.evaluation import Task
from ragscale.retrieval import Retriever
from ragscale.splitting import Split
from ragscale.study._config_checks import CONDITIONS, problems_of
from ragscale.study._config_files import SCHEMA, VERSION, read_config
from ragscale.study._grid import Grid
from ragscale.study._models import StudyModel, train_config
from ragscale.study._retrievers import RetrieverSpec
from ragscale.study._task_specs import TaskSpec
from ragscale.training import ModelConfig, TrainConfig

_TUPLES = ("tasks", "models", "seeds", "conditions", "gold", "store_sources")


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyConfig:
    """Everything that determines the results of a study.

    Give objects, or the dictionaries of a JSON or YAML file: they become objects at once, and every problem of all of
    them is reported together.

    Parameters
    ----------
    corpus : path, sequence of paths, Split or mapping
        Files (JSON Lines, Parquet, text folders); a `Split` that exists, or ``{"split": folder}``; or
        ``{"synthetic": {...}}`` with the arguments of `ragscale.datasets.synthetic_corpus`.
    tasks : sequence of Task, path, str or mapping
        Tasks, question files, names, or arguments of `ragscale.evaluation.load_task` such as ``{"path_or_name":
        "squad.jsonl", "kind": "likelihood", "limit": 300}``; ``"template"`` then holds arguments of
        ``PromptTemplate``. Empty with a synthetic corpus means its own questions.
    models : sequence of ModelConfig, str or mapping
        Shapes; names of the ladder; ``{"rung": name, ...}``; or arguments of ``ModelConfig.custom``, with which
        ``vocab_size`` may be left to the tokenizer. A mapping may hold ``"training"``: arguments of ``TrainConfig``
        for this model alone, such as its learning rate, and ``"name"``.
    D, R : Grid
        Pretraining tokens and store tokens; a plain sequence means token counts. R = 0 always is part.
    budgets : Grid
        Fixed budgets T: every D of the grid below T gets the store R = T - D as well, the frontier D + R = T.
    store_sources : sequence of str
        Where stores come from: ``"held-out"``, text that no cell was trained on, and ``"seen"``, the first R tokens of
        the permutation, which every D >= R has read. With both, every R is asked from both; a seen store is no leak,
        so its cells have any D up to T. Results say which in ``store_source``, and in ``seen_share`` how much of the
        store the model was trained on.
    tokenizer : str or int
        A name or path, or the size of a vocabulary to train on the corpus. A `Split` brings its own.
    max_tokens : int or None
        Tokens of the pool; None takes the whole corpus.
    validation_tokens : int
        Set aside first.
    seeds : sequence of int
        One training run for each model and seed.
    retriever : Retriever, class, "package.module:Class" or mapping
        An object counts by its class and its arguments. As a mapping ``{"factory": "package.module:Class",
        ...arguments}`` or ``{"kind": "bm25" | "lsa" | "hybrid", ...arguments}``. Code of your own is imported in
        every process, and a change in it makes a new index.
    passage_tokens, passage_overlap : int
        Windows of the store.
    k : int, or sequence of int
        Passages in the prompt. Several numbers are several surfaces in the results: one index and one retrieval, with
        the largest, serve all.
    conditions : sequence of str
        Of ``closed-book, retrieved, oracle, random``; the first two always run.
    n_shot : int
        Solved questions in the prompt.
    gold : sequence of str
        Files of gold passages (JSON Lines with ``id`` and ``text``), for questions that name ``gold_passages``.
    max_length : int or None
        Longest prompt, tokens; None takes the length of a training row.
    training : TrainConfig or mapping
        How every model is trained; its seed comes from ``seeds``.
    threads : int
        Threads of each job: the same number gives the same bytes on any number of workers.
    n_workers : int
        Processes that split the corpus; any number gives the same split.
    index_shards : int
        Parts in which the index is built and kept, each by a job of its own, so that no machine holds all of it: BM25,
        and flat dense indexes of a fitted encoder. Hits and scores are those of one index.
    search_jobs : int
        Jobs that share the questions when stores are searched; any number gives the same hits.
    processes_per_training : int
        Processes (GPUs) of one training run, started by torchrun when there is more than one.
    coverage_sizes : int
        Store sizes at which `Study.coverage` measures hits, beside those of the grid; one search serves all.
    split_seed : int
        Seed of the permutation.
    deduplicate : str or None
        ``"exact"``, ``"minhash"`` or None.
    decontaminate : bool
        Drop documents that share a 13-gram with a question.
    allow_overlap : bool
        Also evaluate cells with D + R > T, where the model was trained on part of its store; they are marked.

    Raises
    ------
    ConfigError
        Listing every problem at once.

    Examples
    --------
    >>> config = StudyConfig(corpus={"synthetic": {"n_documents": 500}}, models=["0.15M"], D=[20_000], R=[5_000],
    ...                      training={"seq_len": 64})
    >>> config.training.seq_len, config.models[0].name
    (64, '0.15M')
    >>> StudyConfig(corpus={"synthetic": {}}, models=["0.15M"], D=[1e4], R=[], k=0, training={"lr": 0.1})
    Traceback (most recent call last):
    ...
    ragscale.errors.ConfigError: this study cannot work:
    - training has no 'lr' (is it 'learning_rate'?); known are ...
    - k = 0 must be a whole number of at least 1
    """

    corpus: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Split | Mapping[str, Any]
    models: Sequence[ModelConfig | StudyModel | str | Mapping[str, Any]]
    D: Grid | Sequence[float]
    R: Grid | Sequence[float]
    tasks: Sequence[Task | TaskSpec | str | os.PathLike[str] | Mapping[str, Any]] = ()
    budgets: Grid | Sequence[float] = ()
    store_sources: Sequence[str] = ("held-out",)
    tokenizer: str | int = 4096
    max_tokens: int | None = None
    validation_tokens: int = 0
    seeds: Sequence[int] = (0,)
    retriever: Retriever | type[Retriever] | RetrieverSpec | str | Mapping[str, Any] = "bm25"
    passage_tokens: int = 128
    passage_overlap: int = 0
    k: int | Sequence[int] = 5
    conditions: Sequence[str] = CONDITIONS
    n_shot: int = 0
    gold: Sequence[str] = ()
    max_length: int | None = None
    training: TrainConfig | Mapping[str, Any] = field(default_factory=TrainConfig)
    threads: int = 1
    n_workers: int = 1
    index_shards: int = 1
    search_jobs: int = 1
    processes_per_training: int = 1
    coverage_sizes: int = 24
    split_seed: int = 0
    deduplicate: str | None = "exact"
    decontaminate: bool = False
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        problems: list[str] = []

        def settle(name: str, make: Any, value: Any) -> None:
            try:
                object.__setattr__(self, name, make(value))
            except (ConfigError, ImportError, TypeError) as error:
                problems.append(str(error).replace("\n- ", "; "))

        for name in ("D", "R", "budgets"):
            settle(name, lambda value, name=name: Grid.of(value, name), getattr(self, name))
        for name in _TUPLES:
            settle(name, lambda value, name=name: _several(value, name), getattr(self, name))
        settle("corpus", _corpus, self.corpus)
        if isinstance(self.models, tuple) and not self.models:
            problems.append("models is empty: name at least one size, such as '0.15M'")
        if isinstance(self.tasks, tuple) and not self.tasks and not self.is_synthetic:
            problems.append("tasks is empty: name tasks or question files")
        settle("training", lambda value: train_config(value, "training"), self.training)
        settle("retriever", RetrieverSpec.of, self.retriever)
        for name, kind in (("models", StudyModel), ("tasks", TaskSpec)):
            made = []
            for given in getattr(self, name) if isinstance(getattr(self, name), tuple) else ():
                try:
                    made.append(kind.of(given))
                except (ConfigError, TypeError) as error:
                    problems.append(str(error).replace("\n- ", "; "))
            object.__setattr__(self, name, tuple(made))
        problems += problems_of(self, settled=not problems)
        if problems:
            raise ConfigError("this study cannot work:\n- " + "\n- ".join(dict.fromkeys(problems)))

    def __reduce__(self) -> Any:
        return (StudyConfig.from_dict, (self.to_dict(),))

    @property
    def grids(self) -> tuple[Grid, Grid, Grid]:
        """The grids of D, R and budgets."""
        return cast("tuple[Grid, Grid, Grid]", (self.D, self.R, self.budgets))

    @property
    def numbers_of_passages(self) -> tuple[int, ...]:
        """Every k of the study."""
        return cast("tuple[int, ...]", self.k if isinstance(self.k, tuple) else (self.k,))

    @property
    def searches_apart(self) -> bool:
        """Whether stores are searched by jobs of their own, before prompts are made."""
        return len(self.numbers_of_passages) * self.index_shards * self.search_jobs > 1

    @property
    def is_synthetic(self) -> bool:
        """Whether the corpus is the synthetic world."""
        return isinstance(self.corpus, Mapping) and "synthetic" in self.corpus

    @property
    def given_split(self) -> str | None:
        """The folder of a split that exists, None where the study makes its own."""
        return self.corpus["split"] if isinstance(self.corpus, Mapping) and "split" in self.corpus else None

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON-able values."""
        value: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        for name in ("D", "R", "budgets"):
            value[name] = {"values": list(value[name].values), "unit": value[name].unit}
        for name in ("seeds", "conditions", "gold", "store_sources"):
            value[name] = list(value[name])
        value["models"] = [model.to_dict() for model in value["models"]]
        value["tasks"] = [task.to_dict() for task in value["tasks"]]
        value["training"] = value["training"].to_dict()
        value["retriever"] = value["retriever"].value
        value["k"] = list(self.k) if isinstance(self.k, tuple) else self.k
        corpus = value["corpus"]
        if isinstance(corpus, Mapping):
            value["corpus"] = {name: dict(v) if isinstance(v, Mapping) else v for name, v in corpus.items()}
        elif isinstance(corpus, tuple):
            value["corpus"] = list(corpus)
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> StudyConfig:
        """Build a configuration from `to_dict` or from what a person wrote; unknown names are an error."""
        if not isinstance(value, Mapping):
            raise ConfigError(f"a study's configuration must be a dictionary, got {type(value).__name__}")
        known = {item.name for item in fields(cls)}
        unknown = sorted(str(name) for name in set(value) - known)
        missing = [name for name in ("corpus", "models", "D", "R") if name not in value]
        if unknown:
            raise ConfigError(f"StudyConfig has no {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        if missing:
            raise ConfigError(f"StudyConfig needs {', '.join(missing)}")
        return cls(**value)

    def replace(self, **changes: object) -> StudyConfig:
        """Return a copy with some fields changed."""
        return StudyConfig.from_dict({**{item.name: getattr(self, item.name) for item in fields(self)}, **changes})

    @property
    def digest(self) -> str:
        """SHA-256 of the configuration."""
        return value_digest(self.to_dict())

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the configuration as JSON."""
        write_json(path, {"config": self.to_dict()}, schema=SCHEMA, version=VERSION, seal=False)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> StudyConfig:
        """Read what `write` wrote, or a ``.yaml`` or ``.json`` file with the arguments of this class.

        Paths in it are relative to the working directory.

        Raises
        ------
        ConfigError
            Listing every problem at once, with the name of the file.
        """
        try:
            return cls.from_dict(read_config(path))
        except ConfigError as error:
            raise ConfigError(f"{os.fspath(path)}: {error}") from None


def _several(value: Any, name: str) -> tuple[Any, ...]:
    single = (str, Mapping, os.PathLike, Task, TaskSpec, ModelConfig, StudyModel, int, float)
    if isinstance(value, single):
        return (value,)
    try:
        return tuple(os.fspath(item) if isinstance(item, os.PathLike) else item for item in value)
    except TypeError:
        raise ConfigError(f"{name} = {value!r} must be a list") from None


def _corpus(value: Any) -> Any:
    if isinstance(value, Split):
        value = {"split": os.fspath(value.path)}
    if isinstance(value, Mapping):
        if len(value) != 1 or not set(value) <= {"synthetic", "split"}:
            raise ConfigError(
                f"corpus = {dict(value)!r} must be files, a Split, {{'split': folder}} or {{'synthetic': {{...}}}}"
            )
        ((kind, inner),) = value.items()
        if kind == "split":
            return MappingProxyType({"split": os.fspath(inner)})
        if inner is None:
            inner = {}
        if not isinstance(inner, Mapping):
            raise ConfigError(f"corpus = {dict(value)!r}: 'synthetic' must hold the arguments of synthetic_corpus")
        return MappingProxyType({"synthetic": MappingProxyType(dict(inner))})
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    try:
        return tuple(os.fspath(item) for item in value)
    except TypeError:
        raise ConfigError(
            f"corpus must be files, a Split or {{'synthetic': {{...}}}}, got {type(value).__name__}; documents in "
            "memory go through ragscale.split_corpus first"
        ) from None
