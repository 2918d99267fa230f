"""How a model is trained: one frozen dataclass."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from ragscale._counts import is_number, whole_or_same
from ragscale.errors import ConfigError

SCHEDULES = ("wsd", "cosine", "wsd-s")
SHAPES = ("1-sqrt", "linear", "cosine")
PRECISIONS = ("auto", "fp32", "bf16", "bf16-true", "fp64")
PARALLEL = ("auto", "none", "ddp", "fsdp")

# above or at least the first number, and at most the second
NUMBERS: dict[str, tuple[str, float, float | None]] = {
    "learning_rate": ("above", 0, None),
    "eps": ("above", 0, None),
    "clip_norm": ("above", 0, None),
    "save_minutes": ("above", 0, None),
    "weight_decay": ("at least", 0, None),
    "z_loss": ("at least", 0, None),
    "final_rate": ("at least", 0, 1),
    "decay_fraction": ("above", 0, 1),
}
FLAGS = (
    "document_mask",
    "shuffle",
    "repeat",
    "allow_bf16_true",
    "allow_short_runs",
    "activation_checkpointing",
    "deterministic",
)
COUNTS = (
    "seq_len",
    "batch_tokens",
    "warmup_steps",
    "eos_id",
    "seed",
    "micro_batch_tokens",
    "log_every",
    "validate_every",
    "save_every",
    "keep_states",
    "validation_tokens",
    "max_bad_steps",
)

# these decide how a run is carried out, not what it computes: a resumed run may change them
RUNTIME_FIELDS = frozenset(
    {
        "micro_batch_tokens",
        "compile",
        "cuda_graph",
        "parallel",
        "activation_checkpointing",
        "deterministic",
        "log_every",
        "validate_every",
        "validation_tokens",
        "save_every",
        "save_minutes",
        "keep_states",
        "max_bad_steps",
        "allow_short_runs",
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How a model is trained. What is None is filled in by published rules (`make_plan` shows what they gave).

    Parameters
    ----------
    seq_len : int
        Tokens per row.
    batch_tokens : int or None
        Tokens per optimiser step, a multiple of ``seq_len``. None: the Step Law's 0.58 D^0.571, and no more than
        makes 200 steps of the shortest D.
    learning_rate : float or None
        Peak rate. None: the Step Law's 1.79 N^-0.713 D^0.307 with N without embedding and head and D the geometric
        mean of the values of D, times the square root of B / (0.58 D^0.571) where the batch B is smaller than that;
        at most 0.04.
    warmup_steps : int or None
        Steps of linear warm-up, shared by every D. None: a tenth of the shortest D, at most N tokens.
    schedule : {"wsd", "cosine", "wsd-s"}
        ``"wsd"``: one trunk at constant rate, and for every D a branch that decays over the end of its own D.
        ``"cosine"``: a separate run for every D. ``"wsd-s"``: one run that decays at every D and goes on from
        the decayed weights, as in the paper; its later values of D are biased by the earlier decays.
    decay_fraction : float
        Share of D (of the segment with "wsd-s") that decays. Unused by "cosine".
    decay_shape : {"1-sqrt", "linear", "cosine"}
    final_rate : float
        Where the decay ends, as a share of the peak rate.
    betas : (float, float) or None
        Of AdamW. None: (0.9, 0.95), and (0.9, 0.99) for batches under 524,288 tokens.
    eps, weight_decay, clip_norm : float
        Of AdamW and of the gradient's norm. Gains and embeddings are not decayed.
    transfer : {"wd-mup"} or None
        Let one rate and one decay serve every width. ``learning_rate`` and ``weight_decay`` are then those of a model
        of width ``base_width``; at width d the matrices (projections and output head) take the rate times
        ``base_width / d`` and the decay times its inverse's square root, embeddings and gains the rate itself. Without
        it a constant decay acts differently at every width, and so confounds N in a scaling law. `check_transfer`
        tells whether it works.
    base_width : int or None
        The width at which rate and decay were chosen; needed with ``transfer``, as is ``learning_rate``.
    z_loss : float
        Weight of the squared log-normaliser in the loss.
    document_mask : bool
        Keep attention within documents; needs an end-of-document token (``eos_id`` or the split's).
    eos_id : int or None
        The end-of-document token; None takes the split's.
    shuffle : bool
        Shuffle rows within windows of at most a twentieth of what was read before: a small batch of neighbouring rows
        would come from one document. Every D still reads exactly its first D tokens. Not with "wsd-s".
    repeat : bool
        Allow D beyond the stream's length: later epochs read its blocks in a new order each. Off: an error.
    seed : int
        Of the initial weights, and of the order of rows.
    precision : {"auto", "fp32", "bf16", "bf16-true", "fp64"}
        ``"bf16"`` is float32 weights with bfloat16 autocast; "auto" takes it on CUDA and on CPUs that have bfloat16
        instructions when the model is at least 64 wide. "bf16-true" (no float32 weights) is refused unless
        ``allow_bf16_true``: updates below half a bfloat16 step vanish, and RMSNorm gains never move. "fp64" is for
        checks: how much of a difference is rounding.
    allow_bf16_true, allow_short_runs : bool
        Lift the refusals, to reproduce work that did so.
    micro_batch_tokens : int or None
        Tokens per forward pass and process; None chooses. The first thing to lower when memory runs out.
    activation_checkpointing : bool
        Recompute the blocks in the backward pass: a third more compute for far less memory.
    compile : bool, "stack" or None
        torch.compile of the repeated block, once; ``"stack"`` compiles the whole stack of blocks instead, which takes
        several times as long. None: on CUDA, and there only when the run is long enough to win back the seconds of
        compilation (always with ``deterministic``); on CPUs it gains nothing.
    cuda_graph : bool or None
        Replay the whole step as one CUDA graph after the first few: for models so small that a step takes no longer
        than launching its kernels. The first replay is checked against the same step run as usual, and a warning says
        if it is not used. None: where it pays, up to 200M parameters in all and batches of 30 ms of bare arithmetic,
        and not with ``deterministic``. Without effect on CPUs, with several processes, ``document_mask`` or
        ``activation_checkpointing``.
    parallel : {"auto", "none", "ddp", "fsdp"}
        Under torchrun: "auto" replicates models below 1B parameters (DDP) and shards larger ones (FSDP2).
    deterministic : bool
        Use deterministic CUDA kernels. The CPU is deterministic anyway, for a fixed number of threads.
    log_every, validate_every, save_every : int or None
        Steps between log rows, between validation losses (None: only at each D), and between saved states (None: by
        time alone).
    save_minutes : float
        Most minutes of work that a kill can lose.
    keep_states : int
        How many periodic states to keep; those at branch points are always kept.
    validation_tokens : int
        How much of the validation stream to read at most.
    max_bad_steps : int
        Stop after so many skipped steps in a row.

    Examples
    --------
    >>> TrainConfig(seq_len=256, batch_tokens=4096).decay_shape
    '1-sqrt'
    """

    seq_len: int = 2048
    batch_tokens: int | None = None
    learning_rate: float | None = None
    warmup_steps: int | None = None
    schedule: Literal["wsd", "cosine", "wsd-s"] = "wsd"
    decay_fraction: float = 0.2
    decay_shape: Literal["1-sqrt", "linear", "cosine"] = "1-sqrt"
    final_rate: float = 0.0
    betas: tuple[float, float] | None = None
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    transfer: Literal["wd-mup"] | None = None
    base_width: int | None = None
    z_loss: float = 1e-5
    document_mask: bool = False
    eos_id: int | None = None
    shuffle: bool = True
    repeat: bool = False
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16", "bf16-true", "fp64"] = "auto"
    allow_bf16_true: bool = False
    allow_short_runs: bool = False
    micro_batch_tokens: int | None = None
    activation_checkpointing: bool = False
    compile: bool | Literal["stack"] | None = None
    cuda_graph: bool | None = None
    parallel: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    deterministic: bool = False
    log_every: int = 10
    validate_every: int | None = None
    save_every: int | None = None
    save_minutes: float = 10.0
    keep_states: int = 2
    validation_tokens: int = 1_000_000
    max_bad_steps: int = 20

    def __post_init__(self) -> None:
        if isinstance(self.betas, list):
            object.__setattr__(self, "betas", tuple(self.betas))
        for name in COUNTS:
            object.__setattr__(self, name, whole_or_same(getattr(self, name)))
        for name in NUMBERS:  # NumPy's too, which JSON does not know
            if is_number(value := getattr(self, name)) and not isinstance(value, int | float):
                object.__setattr__(self, name, float(value))
        if isinstance(self.betas, tuple) and all(map(is_number, self.betas)):
            object.__setattr__(self, "betas", tuple(b if isinstance(b, int | float) else float(b) for b in self.betas))
        problems = list(self._problems())
        if problems:
            raise ConfigError("this training configuration cannot work:\n- " + "\n- ".join(problems))

    def _problems(self) -> Any:
        for name in ("seq_len", "log_every", "keep_states", "validation_tokens", "max_bad_steps"):
            if not _whole(getattr(self, name), 1):
                yield f"{name} must be a whole number of at least 1, got {getattr(self, name)!r}"
        for name, least in (
            ("batch_tokens", 1),
            ("warmup_steps", 0),
            ("micro_batch_tokens", 1),
            ("validate_every", 1),
            ("save_every", 1),
            ("eos_id", 0),
            ("base_width", 1),
        ):
            value = getattr(self, name)
            if value is not None and not _whole(value, least):
                yield f"{name} must be None or a whole number of at least {least}, got {value!r}"
        if not _whole(self.seed, 0):
            yield f"seed must be a whole number of at least 0, got {self.seed!r}"
        for name in ("batch_tokens", "micro_batch_tokens"):
            value = getattr(self, name)
            if _whole(value, 1) and _whole(self.seq_len, 1) and value % self.seq_len:
                yield (
                    f"{name}={value} is no multiple of seq_len={self.seq_len}: "
                    f"try {max(1, round(value / self.seq_len)) * self.seq_len}"
                )
        for name, choices in (
            ("schedule", SCHEDULES),
            ("decay_shape", SHAPES),
            ("precision", PRECISIONS),
            ("parallel", PARALLEL),
        ):
            if getattr(self, name) not in choices:
                yield f"{name} must be one of {', '.join(map(repr, choices))}, got {getattr(self, name)!r}"
        if self.transfer not in (None, "wd-mup"):
            yield f"transfer must be None or 'wd-mup', got {self.transfer!r}"
        elif self.transfer is not None and (self.base_width is None or self.learning_rate is None):
            yield (
                "transfer='wd-mup' carries a rate from one width to others: give learning_rate and the base_width at "
                "which it was chosen"
            )
        elif self.transfer is None and self.base_width is not None:
            yield f"base_width={self.base_width} is used with transfer='wd-mup' only"
        for name in FLAGS:
            if not isinstance(getattr(self, name), bool):
                yield f"{name} must be True or False, got {getattr(self, name)!r}"
        if not isinstance(self.cuda_graph, bool | None):
            yield f"cuda_graph must be None, True or False, got {self.cuda_graph!r}"
        if not isinstance(self.compile, bool | None) and self.compile != "stack":
            yield f"compile must be None, True, False or 'stack', got {self.compile!r}"
        for name, (word, least, most) in NUMBERS.items():
            number: Any = getattr(self, name)
            if name == "learning_rate" and self.learning_rate is None:
                continue
            is_within = is_number(number) and (number > least if word == "above" else number >= least)
            if not is_within or not number < float("inf") or (most is not None and number > most):
                upper = "" if most is None else f" and at most {most}"
                yield f"{name} must be a finite number {word} {least}{upper}, got {number!r}"
        betas: Any = self.betas
        is_pair = isinstance(betas, tuple) and len(betas) == 2 and all(map(is_number, betas))
        if betas is not None and not (is_pair and all(0 <= beta < 1 for beta in betas)):
            yield f"betas must be two numbers of at least 0 and below 1, got {self.betas!r}"
        if self.precision == "bf16-true" and not self.allow_bf16_true:
            yield (
                "precision='bf16-true' loses every update smaller than half a bfloat16 step (RMSNorm gains, near 1, "
                "never move): use precision='bf16' (float32 weights, bfloat16 arithmetic), or allow_bf16_true=True "
                "to reproduce work that trained so"
            )

    @classmethod
    def paper(cls, **changes: object) -> TrainConfig:
        """Return how the paper trained (arXiv 2604.00715 and its code).

        One rate and one batch for every size, WSD-S with cosine decay of each segment's last tenth to 20%, warm-up of
        2,000 steps. ``allow_short_runs`` is set, because its smallest models never leave the warm-up at D/N = 1. Two
        things are left out: its bf16-true weights, and its weight decay on gains and embeddings.
        """
        values: dict[str, Any] = {
            "seq_len": 4096,
            "batch_tokens": 256 * 4096,
            "learning_rate": 3e-4,
            "warmup_steps": 2000,
            "schedule": "wsd-s",
            "decay_fraction": 0.1,
            "decay_shape": "cosine",
            "final_rate": 0.2,
            "betas": (0.9, 0.95),
            "z_loss": 0.0,
            "seed": 42,
            "allow_short_runs": True,
        }
        values.update(changes)
        return cls(**values)

    @property
    def window_share(self) -> float:
        """Size of the shuffle's windows as a share of their place: at most half of what decays."""
        return min(0.05, self.decay_fraction / 2) if self.shuffle and self.schedule != "wsd-s" else 0.0

    def replace(self, **changes: object) -> TrainConfig:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-able dictionary."""
        values = asdict(self)
        values["betas"] = None if self.betas is None else list(self.betas)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Make a config from what `to_dict` returned; keys of newer versions are ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
