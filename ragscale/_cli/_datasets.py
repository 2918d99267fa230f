"""``ragscale datasets``: what comes with the library, and how to get it."""

from __future__ import annotations

import argparse
from typing import Any

from ragscale._cli._out import say, say_table

_HELP = """\
List the tables that come with ragscale, or write one of them to a file.

  ragscale datasets                                all of them, with what they are
  ragscale datasets paper_figure2                  its first rows
  ragscale datasets paper_figure2 --out fig2.csv   all of its rows (.csv, .jsonl, .parquet)
  ragscale fit fig2.csv                            and a fit"""


def add(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser(
        "datasets",
        help="the tables that come with the library",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("name", nargs="?", help="one of them")
    command.add_argument("--out", metavar="FILE", help="write it to a .csv, .jsonl or .parquet file")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """List, show or write."""
    from ragscale import datasets, results

    if options.name is None:
        say_table(datasets.list().reset_index(), columns=["name", "title", "rows", "canonical", "licence"])
        say("\ncanonical: has N, D, R and value, so that ragscale fit takes it")
        return 0
    table: Any = datasets.load(options.name)
    if options.out is None:
        say(f"{options.name}: {len(table):,} rows; columns {', '.join(map(str, table.columns))}")
        say_table(table.head(5))
    else:
        results.write(table, options.out)
        say(f"{len(table):,} rows in {options.out}")
    return 0
