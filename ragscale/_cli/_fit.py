"""``ragscale fit``: a surface from a table of results, and the split of a budget under it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragscale._cli._out import say
from ragscale._counts import as_count
from ragscale.errors import ConfigError

_HELP = """\
Fit the surface L(N, D, R) to a table of results, and say how to split a budget of text.

The file (.csv, .jsonl, .parquet) has one row for each evaluation: parameters N, pretraining tokens D, tokens of the
retrieval store R (counts), and the measured value. Rows of one trained model share a column run, or N, D and seed.

  ragscale fit results.csv
  ragscale fit results.csv --law log1p --budget 50e9
  ragscale fit results.csv --metric nll_per_token --task squad --budget 16e6 32e6 52e6 --N 38e6 --out fit.json

Laws: auto compares them and tells which the data cannot tell apart; ragscale fit --laws lists all."""


def add(commands: Any) -> None:
    """Add the command."""
    command = commands.add_parser(
        "fit",
        help="fit L(N, D, R) to a table of results, and split a budget",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("results", nargs="?", metavar="FILE", help="the table, or the directory of a study")
    command.add_argument("--law", default="auto", metavar="NAME", help="a law by name (default: auto)")
    command.add_argument("--laws", action="store_true", help="list the laws and stop")
    command.add_argument("--metric", help="which metric, where the table has several")
    command.add_argument("--task", help="which task; by default the mean over the tasks of each cell")
    command.add_argument(
        "--where", nargs="+", default=[], metavar="COLUMN=VALUE", help="keep only such rows, e.g. n_shot=5"
    )
    command.add_argument("--budget", nargs="+", default=[], metavar="TOKENS", help="split budgets of D + R tokens")
    command.add_argument("--N", nargs="+", default=[], metavar="N", help="for these sizes (default: the largest there)")
    command.add_argument(
        "--resamples", default="200", metavar="COUNT", help="bootstrap resamples for intervals (default: 200; 0: none)"
    )
    command.add_argument("--seed", default="0", help="of the resampling (default: 0)")
    command.add_argument("--out", metavar="FILE", help="write the fit to a .json file, from which Python loads it")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Read, fit, say; decide where a budget is given."""
    from ragscale import bootstrap, fit_manifold, fitting, optimal_allocation

    if options.laws:
        table: Any = fitting.catalogue()
        say(table.to_string(max_colwidth=90))
        return 0
    if options.results is None:
        raise ConfigError("fit needs a file with results: ragscale fit results.csv (ragscale fit --help says more)")
    budgets = [float(as_count("--budget", text, least=1)) for text in options.budget]
    sizes = [float(as_count("--N", text, least=1)) for text in options.N]
    resamples = as_count("--resamples", options.resamples)
    table = _table(options)
    fit = fit_manifold(table, law=options.law)
    say(fit.summary())
    if options.out is not None:
        fit.to_json(options.out)
        say(f"\nwritten to {options.out}: ragscale.ManifoldFit.from_json({options.out!r})")
    if budgets:
        largest = [float(table["N"].max())]
        subject = bootstrap(fit, n_resamples=resamples, rng=as_count("--seed", options.seed)) if resamples else fit
        for size in sizes or largest:
            best = optimal_allocation(subject, N=size, budget=budgets if len(budgets) > 1 else budgets[0])
            say(f"\n{best.summary()}")
    elif sizes:
        raise ConfigError("--N says for which sizes a budget is split: give --budget too")
    return 0


def _table(options: argparse.Namespace) -> Any:
    from ragscale import results

    path = Path(options.results)
    if path.is_dir():
        from ragscale.study import Study

        table: Any = Study.open(path).results()
    else:
        table = results.read(path)
    return results.select(table, metric=options.metric, task=options.task, **_where(options.where, table))


def _where(given: list[str], table: Any) -> Mapping[str, Any]:
    """Return column=value pairs, the value in the column's own type."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"--where {text!r} must be written COLUMN=VALUE")
        if name in table and table[name].dtype.kind in "iufb":
            try:
                found[name] = float(value)
            except ValueError:
                raise ConfigError(f"--where {text!r}: the column {name} holds numbers") from None
        else:
            found[name] = value
    return found
