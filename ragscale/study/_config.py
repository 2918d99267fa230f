"""What a study is: a corpus, a ladder of models, grids of D and R, a retriever, questions. Frozen, and JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ragscale._files import read_json, value_digest, write_json
from ragscale.errors import ConfigError

_SCHEMA = "ragscale-study"
_VERSION = 1
_UNITS = ("tokens", "per_parameter", "share_of_budget")
CONDITIONS = ("closed-book", "retrieved", "oracle", "random")


@dataclass(frozen=True, slots=True)
class Grid:
    """Sizes in one of three units.

    Parameters
    ----------
    values : sequence of float
        The sizes.
    unit : {"tokens", "per_parameter", "share_of_budget"}
        Token counts; multiples of N (core + head parameters); shares of the budget T.

    Examples
    --------
    >>> Grid((1, 20), "per_parameter").tokens(n_params=1000, budget=10**6)
    (1000, 20000)
    >>> Grid((0.25,), "share_of_budget").tokens(n_params=1000, budget=10**6)
    (250000,)
    """

    values: tuple[float, ...]
    unit: str = "tokens"

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))

    def tokens(self, *, n_params: int, budget: int) -> tuple[int, ...]:
        """Return the sizes as token counts for a model of ``n_params`` and a budget of ``budget`` tokens."""
        scale = {"tokens": 1, "per_parameter": n_params, "share_of_budget": budget}[self.unit]
        return tuple(sorted({round(value * scale) for value in self.values}))

    def problems(self, name: str, *, zero: bool) -> list[str]:
        """List what is wrong with the grid."""
        found = []
        if self.unit not in _UNITS:
            found.append(f"{name}.unit = {self.unit!r} must be one of {', '.join(_UNITS)}")
        if not self.values and not zero:
            found.append(f"{name} has no values")
        bad = [v for v in self.values if not isinstance(v, int | float) or not v >= 0 or (v == 0 and not zero)]
        if bad:
            found.append(f"{name} has values that are not {'zero or ' if zero else ''}positive numbers: {bad}")
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyConfig:
    """Everything that determines the results of a study.

    Parameters
    ----------
    corpus : str or sequence of str or mapping
        Files (JSON Lines, Parquet, text folders), or ``{"synthetic": {...}}`` with the arguments of
        `ragscale.datasets.synthetic_corpus`.
    tasks : sequence of str or mapping
        Task names or question files, or arguments of `ragscale.evaluation.load_task` such as ``{"path_or_name":
        "squad.jsonl", "kind": "likelihood", "limit": 300}``; ``"template"`` then holds arguments of
        ``PromptTemplate``. Empty with a synthetic corpus means its own questions.
    models : sequence of str or mapping
        Names of the ladder, ``{"rung": name, ...}``, or arguments of ``ModelConfig.custom`` without ``vocab_size``. A
        mapping may hold ``"training"``: arguments of ``TrainConfig`` for this model alone, such as its learning rate.
    D, R : Grid
        Pretraining tokens and store tokens; a plain sequence means token counts. R = 0 always is part.
    budgets : Grid
        Fixed budgets T: every D of the grid below T gets the store R = T - D as well, the frontier D + R = T.
    tokenizer : str or int
        A name or path, or the size of a vocabulary to train on the corpus.
    max_tokens : int or None
        Tokens of the pool; None takes the whole corpus.
    validation_tokens : int
        Set aside first.
    seeds : sequence of int
        One training run for each model and seed.
    retriever : mapping
        ``{"kind": "bm25" | "lsa" | "hybrid", ...arguments}``, or ``{"factory": "package.module:function"}``.
    passage_tokens, passage_overlap : int
        Windows of the store.
    k : int
        Passages in the prompt.
    conditions : sequence of str
        Of ``closed-book, retrieved, oracle, random``; the first two always run.
    n_shot : int
        Solved questions in the prompt.
    gold : sequence of str
        Files of gold passages (JSON Lines with ``id`` and ``text``), for questions that name ``gold_passages``.
    max_length : int or None
        Longest prompt, tokens; None takes the length of a training row.
    training : mapping
        Arguments of ``TrainConfig``.
    threads : int
        Threads of each job: the same number gives the same bytes on any number of workers.
    processes_per_training : int
        Processes (GPUs) of one training run, started by torchrun when there is more than one.
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
    """

    corpus: str | Sequence[str] | Mapping[str, Any]
    models: Sequence[str | Mapping[str, Any]]
    D: Grid | Sequence[float]
    R: Grid | Sequence[float]
    tasks: Sequence[str | Mapping[str, Any]] = ()
    budgets: Grid | Sequence[float] = ()
    tokenizer: str | int = 4096
    max_tokens: int | None = None
    validation_tokens: int = 0
    seeds: Sequence[int] = (0,)
    retriever: Mapping[str, Any] = field(default_factory=lambda: {"kind": "bm25"})
    passage_tokens: int = 128
    passage_overlap: int = 0
    k: int = 5
    conditions: Sequence[str] = CONDITIONS
    n_shot: int = 0
    gold: Sequence[str] = ()
    max_length: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    processes_per_training: int = 1
    split_seed: int = 0
    deduplicate: str | None = "exact"
    decontaminate: bool = False
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        for name in ("D", "R", "budgets"):
            value = getattr(self, name)
            if isinstance(value, Mapping):
                value = Grid(**value)
            object.__setattr__(self, name, value if isinstance(value, Grid) else Grid(tuple(value)))
        for name in ("tasks", "models", "seeds", "conditions", "gold"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str | Mapping) else tuple(value))
        problems = self._problems()
        if problems:
            raise ConfigError("StudyConfig: " + "; ".join(problems))

    def _problems(self) -> list[str]:
        grid_d, grid_r, budgets = self.grids
        found = [*grid_d.problems("D", zero=False), *grid_r.problems("R", zero=True)]
        found += budgets.problems("budgets", zero=True)
        if not self.models:
            found.append("models is empty: name at least one size, such as '0.15M'")
        if not self.tasks and not self.is_synthetic:
            found.append("tasks is empty: name tasks or question files")
        if isinstance(self.corpus, Mapping) and not self.is_synthetic:
            found.append(f"corpus = {dict(self.corpus)!r} must be files or {{'synthetic': {{...}}}}")
        unknown = sorted(set(self.conditions) - set(CONDITIONS))
        if unknown:
            found.append(f"conditions has {unknown}, known are {list(CONDITIONS)}")
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            found.append(f"seeds = {self.seeds} must be distinct and at least one")
        if ("kind" in self.retriever) == ("factory" in self.retriever):
            found.append(f"retriever = {dict(self.retriever)!r} needs either 'kind' or 'factory'")
        elif self.retriever.get("kind", "bm25") not in {"bm25", "lsa", "hybrid"}:
            found.append(f"retriever kind {self.retriever['kind']!r} must be bm25, lsa or hybrid, or give a 'factory'")
        for name, low in (
            ("threads", 1),
            ("processes_per_training", 1),
            ("k", 1),
            ("passage_tokens", 1),
            ("passage_overlap", 0),
            ("validation_tokens", 0),
            ("n_shot", 0),
        ):
            if getattr(self, name) < low:
                found.append(f"{name} = {getattr(self, name)} must be at least {low}")
        if self.passage_overlap >= self.passage_tokens:
            found.append(
                f"passage_overlap = {self.passage_overlap} must be below passage_tokens = {self.passage_tokens}"
            )
        return found

    @property
    def grids(self) -> tuple[Grid, Grid, Grid]:
        """The grids of D, R and budgets."""
        grids = (self.D, self.R, self.budgets)
        assert all(isinstance(grid, Grid) for grid in grids)
        return grids  # type: ignore[return-value]

    @property
    def is_synthetic(self) -> bool:
        """Whether the corpus is the synthetic world."""
        return isinstance(self.corpus, Mapping) and set(self.corpus) == {"synthetic"}

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON-able values."""
        value = asdict(self)
        for name in ("tasks", "models", "seeds", "conditions", "gold"):
            value[name] = list(value[name])
        for name in ("D", "R", "budgets"):
            value[name]["values"] = list(value[name]["values"])
        if not isinstance(self.corpus, str | Mapping):
            value["corpus"] = list(self.corpus)
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> StudyConfig:
        """Build a configuration from `to_dict`; unknown names are an error."""
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(value) - known)
        if unknown:
            raise ConfigError(f"StudyConfig has no {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        return cls(**value)

    @property
    def digest(self) -> str:
        """SHA-256 of the configuration."""
        return value_digest(self.to_dict())

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the configuration as JSON."""
        write_json(path, {"config": self.to_dict()}, schema=_SCHEMA, version=_VERSION, seal=False)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> StudyConfig:
        """Read what `write` wrote."""
        return cls.from_dict(read_json(path, schema=_SCHEMA, version=_VERSION)["config"])
