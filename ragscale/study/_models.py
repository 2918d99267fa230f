"""A model of a study: its shape, its name in tables, and how it alone is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ragscale.errors import ConfigError
from ragscale.training import ModelConfig, TrainConfig

_SHAPE = {item.name: item.default for item in fields(ModelConfig)}
_TRAINING = {item.name for item in fields(TrainConfig)}
_UNKNOWN_VOCABULARY = 1024  # stands in until the tokenizer is known; `shape_for` replaces it


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyModel:
    """One size of a study, from a `ModelConfig`, a name of the ladder, or a dictionary.

    Parameters
    ----------
    name : str
        Tells the models of a study apart.
    shape : ModelConfig
        Its ``vocab_size`` counts only if ``own_vocabulary``; else the tokenizer decides it.
    own_vocabulary : bool
        Whether the vocabulary was given with the shape.
    training : tuple of (str, value)
        Fields of ``TrainConfig`` for this model alone, such as its learning rate.
    """

    name: str
    shape: ModelConfig
    own_vocabulary: bool = False
    training: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, given: StudyModel | ModelConfig | str | Mapping[str, Any]) -> StudyModel:
        """Return the model that a configuration names.

        Raises
        ------
        ConfigError
            For an unknown rung, a bad shape, or unknown keys.
        """
        if isinstance(given, StudyModel):
            return given
        if isinstance(given, ModelConfig):
            name = given.name if given.name != "custom" else f"L{given.n_layers}-d{given.d_model}"
            return cls(name=name, shape=replace(given, name=name), own_vocabulary=True)
        if isinstance(given, str):
            return cls(name=given, shape=ModelConfig.olmo2(given, vocab_size=_UNKNOWN_VOCABULARY))
        if not isinstance(given, Mapping):
            raise ConfigError(f"a model must be a ModelConfig, a name of the ladder or a dictionary, got {given!r}")
        return cls._from_dict(dict(given))

    @classmethod
    def _from_dict(cls, given: dict[str, Any]) -> StudyModel:
        training = given.pop("training", None) or {}
        if not isinstance(training, Mapping):
            raise ConfigError(f"'training' of a model must hold arguments of TrainConfig, got {training!r}")
        unknown = sorted(set(given) - {*_SHAPE, "rung"})
        if unknown:
            known = ", ".join(["rung", "training", *_SHAPE])
            raise ConfigError(f"a model has no {', '.join(map(repr, unknown))}; known are {known}")
        own = "vocab_size" in given
        shape = {"vocab_size": _UNKNOWN_VOCABULARY, **given}
        rung, name = shape.pop("rung", None), shape.pop("name", None)
        if rung is not None:
            built = ModelConfig.olmo2(str(rung), **shape)
        else:
            missing = [key for key in ("n_layers", "d_model", "n_heads", "d_ff") if key not in shape]
            if missing:
                raise ConfigError(f"a model needs 'rung', or all of its shape: {', '.join(missing)} is missing")
            built = ModelConfig.custom(**shape)
        name = str(name or rung or f"L{built.n_layers}-d{built.d_model}")
        pairs = tuple(sorted((key, _frozen(value)) for key, value in training.items()))
        return cls(name=name, shape=replace(built, name=name), own_vocabulary=own, training=pairs)

    def shape_for(self, vocab_size: int) -> ModelConfig:
        """Return the shape for a tokenizer of ``vocab_size``."""
        return self.shape if self.own_vocabulary else replace(self.shape, vocab_size=vocab_size)

    def config_over(self, training: TrainConfig) -> TrainConfig:
        """Return the study's training configuration with this model's own fields over it.

        Raises
        ------
        ConfigError
            For unknown fields or values that cannot work.
        """
        return train_config({**training.to_dict(), **dict(self.training)}, f"training of model {self.name}")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values from which `of` builds the same model."""
        value: dict[str, Any] = {"name": self.name}
        for key, default in _SHAPE.items():
            found = getattr(self.shape, key)
            if key not in {"name", "vocab_size"} and found != default:
                value[key] = found
        if self.own_vocabulary:
            value["vocab_size"] = self.shape.vocab_size
        if self.training:
            value["training"] = {key: list(v) if isinstance(v, tuple) else v for key, v in self.training}
        return value


def train_config(given: Any, what: str) -> TrainConfig:
    """Return a TrainConfig from one or from its arguments; unknown keys are named.

    Raises
    ------
    ConfigError
    """
    if isinstance(given, TrainConfig):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(f"{what} must be a TrainConfig or its arguments, got {given!r}")
    unknown = sorted(set(given) - _TRAINING)
    if unknown:
        close = {"lr": "learning_rate", "batch_size": "batch_tokens", "warmup": "warmup_steps", "length": "seq_len"}
        hints = [f"{key!r} (is it {close[key]!r}?)" if key in close else repr(key) for key in map(str, unknown)]
        raise ConfigError(f"{what} has no {', '.join(hints)}; known are {', '.join(sorted(_TRAINING))}")
    try:
        return TrainConfig(**given)
    except TypeError as error:  # a text where a number belongs: comparing it fails
        raise ConfigError(f"{what} = {dict(given)!r} has a value of the wrong type: {error}") from None


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
