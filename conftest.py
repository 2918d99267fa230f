"""Settings of all tests and docstring examples."""

import sys

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Compare pictures with those that are kept, without a word on the command line."""
    if hasattr(config.option, "mpl") and not config.option.mpl_generate_path:
        config.option.mpl = True


@pytest.fixture(autouse=True)
def _no_figures_left():
    """Close the figures of a test: matplotlib warns when twenty are open, and warnings are errors."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
