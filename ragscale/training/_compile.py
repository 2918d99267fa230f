"""torch.compile for training: whether it pays, of what, and without noise.

The blocks of a decoder are alike. Compiled one by one they share a single graph, so that a deep model takes no longer
to compile than a shallow one; compiled as one stack they take a multiple of that for a few per cent of speed.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator
from typing import Any

from ragscale.training._config import TrainConfig
from ragscale.training._model import ModelConfig

# what compilation takes, uncached
COMPILE_SECONDS = 10.0
# what it saves in each step: some kernels' launches if those are waited for, and a multiple of the step's bare
# arithmetic (measured on an H200: 8 ms; 3 to 8 times for 6M to 30M parameters)
SAVED_LAUNCHES = 0.008
SAVED_ARITHMETIC = 3.0
# a step is captured while its bare arithmetic is shorter than this: longer ones hide their launches
CAPTURE_SECONDS = 0.03
CAPTURE_PARAMS = 200_000_000
_UNKNOWN_PEAK = 300e12


def worth_compiling(model: ModelConfig, config: TrainConfig, n_steps: int, *, peak: float | None) -> bool:
    """Return whether a run on CUDA is long enough to win back what compilation costs.

    Parameters
    ----------
    model : ModelConfig
    config : TrainConfig
        Complete. With ``deterministic`` the answer is always True, because it must not depend on how much of a run is
        left: eager and compiled arithmetic round differently.
    n_steps : int
        Steps that are still to do.
    peak : float or None
        FLOPs per second of the device by its data sheet; None if unknown.

    Examples
    --------
    >>> model = ModelConfig.olmo2("30M")
    >>> config = TrainConfig(seq_len=512, batch_tokens=8192)
    >>> [worth_compiling(model, config, steps, peak=989e12) for steps in (250, 25_000)]
    [False, True]
    """
    if config.deterministic:
        return True
    captured = config.cuda_graph is not False and worth_capturing(model, config, peak=peak)
    launches = 0.0 if captured else SAVED_LAUNCHES
    return n_steps * max(launches, SAVED_ARITHMETIC * _arithmetic(model, config, peak)) >= COMPILE_SECONDS


def worth_capturing(model: ModelConfig, config: TrainConfig, *, peak: float | None) -> bool:
    """Return whether a step's kernels are so short that launching them takes the time, and are always the same.

    Examples
    --------
    >>> config = TrainConfig(seq_len=4096, batch_tokens=32 * 4096)
    >>> [worth_capturing(ModelConfig.olmo2(name), config, peak=989e12) for name in ("13M", "728M")]
    [True, False]
    """
    same = not config.document_mask and not config.activation_checkpointing
    small = model.n_params_total <= CAPTURE_PARAMS
    return same and small and _arithmetic(model, config, peak) <= CAPTURE_SECONDS


def _arithmetic(model: ModelConfig, config: TrainConfig, peak: float | None) -> float:
    """Return the seconds of a step at the device's peak."""
    assert config.batch_tokens is not None
    return config.batch_tokens * model.flops(config.seq_len) / (peak or _UNKNOWN_PEAK)


@contextlib.contextmanager
def compiling() -> Generator[None]:
    """Run steps that may compile: no warnings that are not the user's, and room for the shapes of many models.

    dynamo keeps its graphs by code, and all models share the code of a block: at the default limit of eight the fifth
    model of a study would silently run uncompiled.
    """
    from torch._dynamo import config as dynamo

    with warnings.catch_warnings(), dynamo.patch(recompile_limit=256, accumulated_recompile_limit=4096):
        # "TensorFloat32 ... not enabled": the products are bfloat16, or float32 because the user said so
        warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores", category=UserWarning)
        # dynamo looks at every input's gradient, and hides this only where warnings are shown rather than raised
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch(\.|$)")
        warnings.filterwarnings("ignore", module=r"torch\._(inductor|dynamo|functorch)")
        yield


def compile_decoder(decoder: Any, *, stack: bool) -> None:
    """Compile a decoder's blocks, which share one graph; or with ``stack`` the whole of it as one graph."""
    with compiling():
        for part in [decoder] if stack else decoder.layers:
            part.compile(dynamic=False)


def eagerly() -> Any:
    """Return a context in which compiled modules run uncompiled: for a few passes that deserve no graph."""
    import torch

    return torch.compiler.set_stance("force_eager")
