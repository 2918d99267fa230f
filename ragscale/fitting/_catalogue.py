"""Every law that can be called by name."""

from __future__ import annotations

import pandas as pd

from ragscale.fitting._law import ScalingLaw
from ragscale.fitting._laws import BUILT_IN


def law_classes() -> dict[str, type[ScalingLaw]]:
    """Return the laws by name: the retrieval manifold's own, and those of the literature."""
    from ragscale.fitting._coverage import Coverage
    from ragscale.fitting.laws import LAWS

    return {law.name: law for law in (*BUILT_IN, Coverage, *LAWS)}


def catalogue() -> pd.DataFrame:
    """List every law that `fit_manifold` knows by name.

    Returns
    -------
    DataFrame
        Indexed by name, with ``law`` (the class), ``formula``, ``variables``, ``parameters``, ``retrieval`` (whether
        it reads R) and ``reference``.

    Examples
    --------
    >>> catalogue().loc["log1p", "formula"]
    'E + A N^-alpha + B D^-beta - C ln(1 + eta R)'
    """
    rows = [
        {
            "name": name,
            "law": law,
            "formula": law.formula,
            "variables": ", ".join(law.variables),
            "parameters": ", ".join(parameter.name for parameter in law.parameters),
            "retrieval": "R" in law.variables,
            "reference": law.reference,
        }
        for name, law in law_classes().items()
    ]
    return pd.DataFrame(rows).set_index("name")
