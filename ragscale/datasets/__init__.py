"""Published result tables that come with ragscale, and synthetic ones whose law is known."""

from ragscale.datasets._simulate import PAPER_D_OVER_N, PAPER_N, PAPER_R_OVER_N, simulate
from ragscale.datasets._tables import list, load

__all__ = ["PAPER_D_OVER_N", "PAPER_N", "PAPER_R_OVER_N", "list", "load", "simulate"]
