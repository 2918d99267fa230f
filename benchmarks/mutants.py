"""Break the code of fitting and decisions on purpose, one small change at a time, and see whether the tests notice.

    python benchmarks/mutants.py [--mutants 150] [--seed 0] [--minutes 30] [--timeout 120] [--named]

A mutant is one change of one expression: a comparison, an operator, a number, a condition, ``and`` for ``or``; drawn by
lines of code from all files of the two rooms, without their words and pictures. It is written into a copy of the
package, and the tests of its file's area run on it in a forked process. ``--named`` runs instead the changes that once
went through unnoticed. What was done is in runs/mutants.jsonl and not done again; the table is
benchmarks/results/mutants.md.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis  # noqa: F401
import numpy  # noqa: F401  # loaded once, for all forked runs
import pandas  # noqa: F401
import pytest
import scipy.optimize
import scipy.stats  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / "runs" / "mutants.jsonl"
RESULTS = ROOT / "benchmarks" / "results" / "mutants.md"
EARLIER = "## Earlier samples"  # what stands under it stays
ROOMS = ("ragscale/fitting", "ragscale/decisions")
WORDS = {"_allocation_words.py", "_verdict.py", "_lmfit.py", "_saved.py", "__init__.py"}
AREAS = [  # the first that fits
    ("fitting/_freedom", "fitting/test_freedom.py"),
    ("fitting/_resampling_checks", "fitting/test_intervals.py"),
    ("fitting/_resampling", "fitting/test_freedom.py fitting/test_intervals.py"),
    (
        "fitting/_bootstrap",
        "fitting/test_fit_views.py fitting/test_freedom.py fitting/test_intervals.py fitting/test_uncertainty.py",
    ),
    ("fitting/_intervals", "fitting/test_intervals.py"),
    ("fitting/_calibration", "fitting/test_fit_views.py fitting/test_intervals.py fitting/test_uncertainty.py"),
    (
        "fitting/_determined",
        "fitting/test_rows_and_models.py fitting/test_determined.py decisions/test_undetermined.py",
    ),
    ("fitting/_diagnostics", "fitting/test_diagnostics.py fitting/test_uncertainty.py fitting/test_determined.py"),
    ("fitting/_misfit", "fitting/test_diagnostics.py fitting/test_determined.py"),
    ("fitting/_evidence", "fitting/test_evidence.py fitting/test_verdict.py"),
    ("fitting/_experiments", "fitting/test_rows_and_models.py fitting/test_prepare.py fitting/test_uncertainty.py"),
    ("fitting/_prepare", "fitting/test_prepare.py"),
    ("fitting/_unexplained", "fitting/test_rows_and_models.py fitting/test_prepare.py"),
    ("fitting/_table", "fitting/test_weights_and_losses.py fitting/test_intervals.py fitting/test_fit.py"),
    ("fitting/_conditions", "fitting/test_rows_and_models.py fitting/test_coverage.py fitting/test_reading.py"),
    ("fitting/_hit_rate", "fitting/test_hit_rate_of_fits.py"),
    ("fitting/_checkpoint", "fitting/test_checkpoint.py"),
    ("fitting/_joint", "fitting/test_joint.py"),
    ("fitting/_profile", "fitting/test_fit_views.py fitting/test_uncertainty.py"),
    ("fitting/_paper", "fitting/test_selection.py"),
    ("fitting/_choose", "fitting/test_criterion.py fitting/test_choose.py"),
    ("fitting/_criterion", "fitting/test_criterion.py fitting/test_selection.py"),
    ("fitting/_cross_validation", "fitting/test_criterion.py fitting/test_folds.py fitting/test_selection.py"),
    ("fitting/_comparison", "fitting/test_criterion.py fitting/test_selection.py fitting/test_values.py"),
    ("fitting/_selection", "fitting/test_criterion.py fitting/test_selection.py"),
    ("fitting/laws/_reading", "fitting/test_reading.py"),
    ("fitting/laws/_coverage", "fitting/test_coverage.py"),
    (
        "fitting/laws/_additive",
        "fitting/test_gains_and_base.py fitting/test_law_contract.py decisions/test_exchange_knee_store.py",
    ),
    (
        "fitting/laws/_gains",
        "fitting/test_gains_and_base.py fitting/test_law_contract.py decisions/test_exchange_knee_store.py",
    ),
    (
        "fitting/laws/_shaped",
        "fitting/test_gains_and_base.py fitting/test_law_contract.py decisions/test_exchange_knee_store.py",
    ),
    ("fitting/laws/_bounded_data", "laws/test_repeats_and_steps.py"),
    ("fitting/laws/_steps_batch", "laws/test_repeats_and_steps.py"),
    ("fitting/laws/_memory", "laws/test_repeats_and_steps.py decisions/test_memory_crossing.py"),
    (
        "fitting/laws/_law",
        "fitting/test_gains_and_base.py fitting/test_linear_parameters.py fitting/test_law_contract.py",
    ),
    ("fitting/laws/_columns", "fitting/test_linear_parameters.py fitting/test_hit_rate_of_fits.py"),
    ("fitting/laws/_base", "fitting/test_gains_and_base.py laws/test_published.py"),
    ("fitting/laws/_effective_data", "fitting/test_law_contract.py decisions/test_exchange_knee_store.py"),
    ("fitting/laws/_pass_until", "laws/test_tools.py laws/test_properties.py"),
    ("fitting/laws/_inference", "laws/test_tools.py laws/test_properties.py laws/test_published.py"),
    ("fitting/laws/_chinchilla", "laws/test_published.py laws/test_fitting.py"),
    ("fitting/laws/_two_stage", "laws/test_properties.py laws/test_fitting.py"),
    ("fitting/laws/_data_constrained", "laws/test_properties.py laws/test_published.py laws/test_tools.py"),
    ("fitting/laws", "fitting/test_law_contract.py laws/test_properties.py laws/test_published.py"),
    ("fitting/solver/_joint", "fitting/test_joint.py"),
    ("fitting/solver/_distinct", "fitting/test_distinct.py"),
    ("fitting/solver/_make_link", "fitting/test_weights_and_losses.py fitting/test_prepare.py"),
    ("fitting/solver/links", "fitting/test_weights_and_losses.py fitting/test_links.py"),
    ("fitting/solver/_objective", "fitting/test_weights_and_losses.py"),
    ("fitting/solver/_linear_parameters", "fitting/test_linear_parameters.py fitting/test_law_contract.py"),
    ("fitting/solver/_bounded_step", "fitting/test_bounded_step.py fitting/test_fit.py"),
    (
        "fitting/solver",
        "fitting/test_solver_parts.py fitting/test_fit.py fitting/test_distinct.py fitting/test_many_rows.py",
    ),
    ("fitting/_result", "fitting/test_fit_views.py fitting/test_fit.py fitting/test_values.py"),
    ("fitting", "fitting/test_fit.py fitting/test_values.py"),
    ("decisions/_near_optimal", "decisions/test_near_and_regret.py decisions/test_several_laws.py"),
    ("decisions/_regret", "decisions/test_near_and_regret.py"),
    ("decisions/_knee", "decisions/test_exchange_knee_store.py"),
    ("decisions/_exchange", "decisions/test_exchange_knee_store.py"),
    ("decisions/_critical_store", "decisions/test_exchange_knee_store.py"),
    ("decisions/_compute_optimal", "decisions/test_compute_optimal.py fitting/test_bounded_step.py"),
    ("decisions/_compare_fits", "decisions/test_near_and_regret.py decisions/test_compare_fits.py"),
    ("decisions/_memory_crossing", "decisions/test_memory_crossing.py"),
    ("decisions/_next_runs", "decisions/test_design.py decisions/test_next_runs.py"),
    ("decisions/_design", "decisions/test_design.py decisions/test_next_runs.py"),
    ("decisions/_reading_threshold", "decisions/test_checkpoint_gains.py decisions/test_reading_threshold.py"),
    ("decisions/_checkpoint_gains", "decisions/test_checkpoint_gains.py decisions/test_reading_threshold.py"),
    ("decisions/_substitution", "decisions/test_substitution.py"),
    ("decisions/_worth_of", "decisions/test_worth_of.py"),
    ("decisions/_split", "decisions/test_split.py decisions/test_allocation.py"),
    ("decisions/_surface", "decisions/test_surface.py decisions/test_several_laws.py fitting/test_hit_rate_of_fits.py"),
    ("decisions/_estimate", "decisions/test_estimate.py decisions/test_exchange_knee_store.py"),
    ("decisions/_arguments", "decisions/test_arguments.py"),
    ("decisions/_costs", "decisions/test_arguments.py"),
    ("decisions", "decisions/test_allocation.py decisions/test_several_laws.py decisions/test_compute_optimal.py"),
]
NAMED = [  # file, code, what it becomes, in words
    ("fitting/_table.py", "n / (p * (1.0 - p))", "(p * (1.0 - p)) / n", "binomial weights inverted"),
    ("fitting/_table.py", '(value if space == "log" else 1.0)', "1.0", "stderr weights in log space without 1 / value"),
    ("fitting/_intervals.py", "(n + 1) * confidence_level", "n * confidence_level", "conformal + 1 dropped"),
    ("fitting/_freedom.py", "whole = scaled + ", "whole = scaled + 0.0 * ", "scatter as large as the residuals"),
    (
        "fitting/_freedom.py",
        "degrees / generator.chisquare",
        "1.0 + 0.0 * generator.chisquare",
        "scatter not Student's",
    ),
    ("fitting/_freedom.py", "round(count / self.inflation)", "round(count)", "resamples of all models"),
    ("fitting/_resampling.py", "draws * (count / models)", "draws * 1.0", "weights of fewer models not scaled"),
    ("fitting/_unexplained.py", "={values[0]!r}", "={str(values[0])!r}", "a number to choose, written as text"),
    ("decisions/_knee.py", 'flat["p_R"] / flat["p_D"]', 'flat["p_D"] / flat["p_R"]', "prices of knee_point inverted"),
    ("decisions/_allocation.py", "r / (d + r)", "r / d", "share of compute_optimal as R / D"),
    ("decisions/_surface.py", "self.sign < 0", "self.sign > 0", "an average that is wrong about which way is better"),
]
_COMPARE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
            ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is}  # fmt: skip
_BINARY = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.BitAnd: ast.BitOr,
           ast.BitOr: ast.BitAnd, ast.FloorDiv: ast.Div, ast.Pow: ast.Mult}  # fmt: skip


def mutants(tree: ast.Module) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield pairs of an expression and what it becomes, inside functions, without annotations and text."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or function.name in {"__repr__", "summary", "_repr_html_"}:
            continue
        for statement in function.body:
            for node in ast.walk(statement):
                if isinstance(node, (ast.AnnAssign, ast.JoinedStr, ast.Raise)):
                    continue
                new: Any = None
                if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE:
                    new = copy.deepcopy(node)
                    new.ops[0] = _COMPARE[type(node.ops[0])]()
                elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY and not _is_text(node):
                    new = copy.deepcopy(node)
                    new.op = _BINARY[type(node.op)]()
                elif isinstance(node, ast.BoolOp):
                    new = copy.deepcopy(node)
                    new.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
                elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
                    new = copy.deepcopy(node.operand)
                elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
                    value: Any = node.value
                    new = ast.Constant(2 * value + 1 if type(value) is int else 2.0 * value + 0.5)
                elif isinstance(node, ast.IfExp):
                    new = copy.deepcopy(node)
                    new.body, new.orelse = new.orelse, new.body
                if new is not None and isinstance(node, ast.expr):
                    yield node, new


def _is_text(node: ast.BinOp) -> bool:
    parts = [part for part in ast.walk(node) if isinstance(part, (ast.JoinedStr, ast.Constant))]
    return any(isinstance(part, ast.JoinedStr) or isinstance(getattr(part, "value", None), str) for part in parts)


def in_messages(tree: ast.Module) -> set[int]:
    """Return the expressions inside of raised errors, warnings and formatted text: words are not at stake here."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Raise, ast.JoinedStr, ast.AnnAssign)):
            found |= {id(part) for part in ast.walk(node)}
    return found


def changed(source: str, node: ast.expr, new: ast.expr) -> str:
    """Return the source with one expression replaced."""
    lines = source.split("\n")
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    before = lines[node.lineno - 1].encode()[: node.col_offset].decode()
    after = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
    lines[node.lineno - 1 : node.end_lineno] = [f"{before}({ast.unparse(new)}){after}"]
    return "\n".join(lines)


def drawn(count: int, seed: int) -> list[dict[str, Any]]:
    """Draw mutants from all files, every expression alike."""
    every = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if path.name in WORDS:
                continue
            source = path.read_text()
            tree = ast.parse(source)
            words = in_messages(tree)
            for node, new in mutants(tree):
                if id(node) not in words:
                    every.append((path, source, node, new))
    chosen = random.Random(seed).sample(every, count)
    found = []
    for path, source, node, new in chosen:
        name = str(path.relative_to(ROOT / "ragscale"))
        what = f"{ast.unparse(node)}  ->  {ast.unparse(new)}"
        found.append({"file": name, "line": node.lineno, "what": what, "source": changed(source, node, new)})
    return found


def named() -> list[dict[str, Any]]:
    """Return the changes that have a name."""
    found = []
    for file, old, new, what in NAMED:
        source = (ROOT / "ragscale" / file).read_text()
        if source.count(old) < 1:
            raise SystemExit(f"{file} has no {old!r}")
        line = source[: source.index(old)].count("\n") + 1
        found.append({"file": file, "line": line, "what": what, "source": source.replace(old, new, 1)})
    return found


def tests_of(file: str) -> list[str]:
    """Return the test files of a file's area."""
    for start, tests in AREAS:
        if file.startswith(start):
            return [f"tests/{name}" for name in tests.split()]
    raise SystemExit(f"no tests are named for {file}")


def run(place: Path, mutant: dict[str, Any], test: str, timeout: float) -> str:
    """Return "killed", "survived" or "too long" for one mutant in a copy of the project and one test file."""
    target = place / "ragscale" / mutant["file"]
    original, times = target.read_text(), target.stat()
    target.write_text(mutant["source"])
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(place, test)
    status = None
    while status is None and time.monotonic() - start < timeout:
        done, code = os.waitpid(pid, os.WNOHANG)
        status = code if done else None
        time.sleep(0.05)
    if status is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    target.write_text(original)
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
    if status is None:
        return "too long"
    return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"


def _child(place: Path, test: str) -> None:
    os.chdir(place)
    sys.path.insert(0, str(place))
    sys.dont_write_bytecode = True
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    options = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = pytest.main([*options, test])
    os._exit(int(code))


def report(rows: list[dict[str, Any]]) -> str:
    """Return the score and what survived as text."""
    drawn_rows = [row for row in rows if not row["named"]]
    what = "`python benchmarks/mutants.py --named`, then without: one change each, and the tests of its file's area."
    lines = ["# Mutants", "", what, ""]
    for title, part in (("Changes with a name", [r for r in rows if r["named"]]), ("Drawn at random", drawn_rows)):
        count = {verdict: sum(r["verdict"] == verdict for r in part) for verdict in ("killed", "too long", "survived")}
        noticed = count["killed"] + count["too long"]
        lines += [f"## {title}", "", f"{noticed} of {len(part)} noticed ({count['too long']} by running too long).", ""]
        left = [r for r in part if r["verdict"] == "survived"]
        if left:
            lines += ["| not noticed | line | change |", "|---|--:|---|"]
            lines += [f"| {r['file']} | {r['line']} | `{r['what'].replace('|', '¦')[:150]}` |" for r in left]
            lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--timeout", type=float, default=120.0)
    parser.add_argument("--named", action="store_true")
    options = parser.parse_args()
    STATE.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in STATE.read_text().splitlines()] if STATE.exists() else []
    done = {(row["file"], row["line"], row["what"]) for row in rows}
    start = time.monotonic()
    sound = {row["what"] for row in rows if row["file"] == "unchanged"}
    rows = [row for row in rows if row["file"] != "unchanged"]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for part in ("ragscale", "tests", "pyproject.toml"):
            source = ROOT / part
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, place / part)
        for mutant in named() if options.named else drawn(options.mutants, options.seed):
            if (mutant["file"], mutant["line"], mutant["what"]) in done:
                continue
            if time.monotonic() - start > 60 * options.minutes:
                break
            verdict = "survived"
            for test in tests_of(mutant["file"]):  # the quick ones first: most mutants need no other
                if test not in sound:
                    unchanged = {**mutant, "source": (place / "ragscale" / mutant["file"]).read_text()}
                    if run(place, unchanged, test, 10 * options.timeout) != "survived":
                        raise SystemExit(f"{test} fails without a change")
                    sound.add(test)
                    with STATE.open("a") as file:
                        file.write(json.dumps({"file": "unchanged", "line": 0, "what": test}) + "\n")
                verdict = run(place, mutant, test, options.timeout)
                if verdict != "survived":
                    break
            row = {key: mutant[key] for key in ("file", "line", "what")}
            rows.append({**row, "named": options.named, "verdict": verdict})
            with STATE.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            where = f"{mutant['file']}:{mutant['line']}"
            print(f"{time.monotonic() - start:6.0f} s {verdict:9} {where} {mutant['what'][:90]}", flush=True)
    earlier = RESULTS.read_text().partition(EARLIER)[2] if RESULTS.exists() else ""
    RESULTS.write_text(report(rows) + (f"{EARLIER}{earlier}" if earlier else ""))


if __name__ == "__main__":
    main()
