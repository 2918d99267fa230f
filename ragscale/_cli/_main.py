"""The command line: which commands there are, and how an error is told."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from ragscale._cli import _datasets, _fit, _study
from ragscale._version import __version__
from ragscale.errors import RagscaleError, RagscaleWarning

_DESCRIPTION = """\
Given a fixed budget of text: how much should a language model memorise in pretraining, and how much should it look up?

  ragscale study plan study.yaml      what an experiment will cost, before any is spent
  ragscale study run study.yaml       do it, on this machine or a cluster; it goes on where it was stopped
  ragscale fit results.csv            fit the surface L(N, D, R) to a table of results, and split a budget
  ragscale datasets                   the tables that come with the library

Every command has its own --help. The same functions are in Python: import ragscale as rs."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(
        prog="ragscale", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action="version", version=f"ragscale {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for module in (_fit, _study, _datasets):
        module.add(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 after an error of the library, 2 after wrong arguments."""
    top = parser()
    options = top.parse_args(arguments)
    if options.command is None:
        top.print_help()
        return 0
    with warnings.catch_warnings():
        warnings.showwarning = _say
        warnings.filterwarnings("always", category=RagscaleWarning)
        try:
            return int(options.run(options) or 0)
        except RagscaleError as error:
            sys.stderr.write(f"ragscale: {error}\n")
            return 1
        except BrokenPipeError:  # the reader, such as head, has seen enough
            sys.stderr.close()
            return 0


def _say(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    sys.stderr.write(f"{category.__name__}: {message}\n")
