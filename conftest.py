"""Settings of all tests and docstring examples."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _no_figures_left():
    """Close the figures of a test: matplotlib warns when twenty are open, and warnings are errors."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
