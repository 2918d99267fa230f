"""Parameter values as papers print them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """Parameter values of a law from a paper, in the law's own units; ``source`` says where they stand."""

    parameters: Mapping[str, float]
    source: str
