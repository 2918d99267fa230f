"""Every exception and warning that ragscale raises.

Each error also is the matching builtin, so that code that knows nothing of ragscale catches it too.
"""

from __future__ import annotations


class RagscaleError(Exception):
    """Base of every error that ragscale raises on purpose."""


class ConfigError(RagscaleError, ValueError):
    """A configuration or argument cannot work; the message lists every problem."""


class ImmutableError(ConfigError, AttributeError):
    """An attribute was set that cannot change after construction."""


class TaskError(ConfigError):
    """A task file is malformed, or a task cannot be asked for; the message lists every problem.

    Attributes
    ----------
    problems : tuple of str
        Each of them; empty where there is only the message.
    """

    problems: tuple[str, ...] = ()


class ResultsError(RagscaleError, ValueError):
    """A results table is malformed; the message lists every problem."""


class SplitError(RagscaleError, ValueError):
    """A corpus, split or store cannot give what was asked of it."""


class FitError(RagscaleError, RuntimeError):
    """A law cannot be fitted to these results, or the fit did not converge."""


class NotIndexedError(RagscaleError, RuntimeError):
    """A retriever was searched before it was given passages."""


class CheckpointError(RagscaleError, RuntimeError):
    """A checkpoint or saved artefact is missing, damaged or belongs to something else."""


class FileError(RagscaleError, OSError):
    """A file or folder cannot be read or written: the disk is full or read-only, or the right to do so is missing."""


class MissingFileError(FileError, FileNotFoundError):
    """There is no such file."""


class OutOfMemory(RagscaleError, MemoryError):
    """A device has too little memory; the message says which setting to change."""


class MissingExtraError(RagscaleError, ImportError):
    """An optional dependency is not installed; the message says what to install."""


class RagscaleWarning(UserWarning):
    """Base of every warning that ragscale issues."""


class IdentifiabilityWarning(RagscaleWarning):
    """The results do not determine every parameter of the law."""


class ExtrapolationWarning(RagscaleWarning):
    """A prediction or decision lies far outside the fitted range."""


class EvaluationWarning(RagscaleWarning):
    """An evaluation ran, but not all of it means what it seems to: questions left out, prompts cut, a slow path."""


class TruncationWarning(RagscaleWarning):
    """Texts are longer than what an encoder or model reads of them."""


class ResultsWarning(RagscaleWarning):
    """A results table is valid but probably not what was meant."""


class StudyWarning(RagscaleWarning):
    """A study is not complete: some cells of its plan are missing from what is made of it."""
