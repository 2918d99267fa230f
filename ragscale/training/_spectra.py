"""Do the layers of models of several widths have the same gain? Top singular values against width."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ragscale._extras import require
from ragscale.errors import ConfigError
from ragscale.training._checkpoint import Checkpoint


def check_transfer(checkpoints: Sequence[Checkpoint | str | os.PathLike[str]]) -> Any:
    """Return the top singular value of every kind of matrix against the width, and how fast it grows.

    Training with AdamW soon reaches a state in which the size of a matrix is set by rate and decay. If both are scaled
    rightly, the top singular values do not depend on the width; then neither do the gains of the layers, and the best
    rate of one width is that of the others.

    Parameters
    ----------
    checkpoints : sequence of Checkpoint or path
        Models of at least two widths, otherwise trained alike.

    Returns
    -------
    DataFrame
        One row per kind of matrix (``"q_proj"``, ..., ``"lm_head"``). Columns: for each width the top singular value,
        averaged over the blocks, and ``"slope"``, the exponent with which it grows with the width: 0 where ``transfer``
        does what it should.

    Raises
    ------
    ConfigError
        When all have the same width.

    References
    ----------
    Fan et al. 2025, arXiv 2510.15262: spectra scale as sqrt(rate / decay) and, at a given ratio, as width^0.75.
    """
    import pandas as pd

    loaded = [one if isinstance(one, Checkpoint) else Checkpoint.load(one) for one in checkpoints]
    widths = sorted({checkpoint.model.d_model for checkpoint in loaded})
    if len(widths) < 2:
        raise ConfigError(f"check_transfer compares widths, so give checkpoints of at least two; got {widths}")
    table = pd.DataFrame([row for checkpoint in loaded for row in _top_values(checkpoint)])
    wide = table.pivot_table(index="parameter", columns="width", values="value", sort=False)
    logs = np.log(wide.columns.to_numpy(float))
    wide["slope"] = np.polyfit(logs, np.log(wide.to_numpy(float)).T, 1)[0]
    wide.columns.name = None
    return wide


def _top_values(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    torch = require("torch", "train")
    rows = []
    for name, parameter in checkpoint.load_model().named_parameters():
        if parameter.ndim == 2 and "embed_tokens" not in name:
            value = float(torch.linalg.matrix_norm(parameter.detach().float(), ord=2))
            rows.append({"width": checkpoint.model.d_model, "parameter": name.split(".")[-2], "value": value})
    return rows
