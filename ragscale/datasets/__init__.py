"""Published result tables that come with ragscale, and synthetic ones whose law is known."""

from ragscale.datasets._reading import simulate_reading
from ragscale.datasets._simulate import PAPER_D_OVER_N, PAPER_N, PAPER_R_OVER_N, simulate
from ragscale.datasets._synthetic import SyntheticWorld, synthetic_corpus
from ragscale.datasets._tables import list, load

__all__ = [
    "PAPER_D_OVER_N",
    "PAPER_N",
    "PAPER_R_OVER_N",
    "SyntheticWorld",
    "list",
    "load",
    "simulate",
    "simulate_reading",
    "synthetic_corpus",
]
