"""Where a study stands, in a table, in words and in a notebook: failures are said, with the files that tell more."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pandas as pd

from ragscale.study._jobs import JobState, folder_of
from ragscale.study._stage_train import run_folder

_COLUMNS = ["stage", "label", "state", "seconds", "error", "step", "steps", "tokens_per_second", "hours_left", "key"]
_TAIL_BYTES = 4096


def status_table(root: Path, states: list[JobState]) -> pd.DataFrame:
    """Return one row for each job."""
    rows = [
        {
            "stage": state.job.stage,
            "label": state.job.label,
            "state": state.state,
            "seconds": state.seconds,
            "error": _last_line(state.error),
            **_progress(root, state),
            "key": state.job.key,
        }
        for state in states
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def failures_in_words(root: Path, states: list[JobState], most: int = 3) -> str:
    """Return a sentence on what failed and where its traceback stands; empty where nothing did."""
    failed = [state for state in states if state.state == "failed"]
    if not failed:
        return ""
    blocked = sum(state.state == "blocked" for state in states)
    named = "; ".join(
        f"{state.job.stage} {state.job.label}: {_last_line(state.error)} ({folder_of(root, state.job) / 'failed.json'})"
        for state in failed[:most]
    )
    more = f"; and {len(failed) - most} more, see study.missing()" if len(failed) > most else ""
    waits = f", and {blocked} wait for them" if blocked else ""
    return f"{len(failed)} of {len(states)} jobs failed{waits}: {named}{more}"


def status_html(title: str, root: Path, states: list[JobState]) -> str:
    """Return the state of every stage as HTML, what failed first."""
    table: Any = status_table(root, states)
    counts = table.groupby(["stage", "state"], sort=False)["seconds"].agg(["size", "sum"]).reset_index()
    counts.columns = ["stage", "state", "jobs", "seconds"]
    failed = failures_in_words(root, states)
    said = f"<p><b>{html.escape(failed)}</b></p>" if failed else ""
    bars = "".join(
        f"<p>{html.escape(str(row['label']))}: step {row['step']:,.0f} of {row['steps']:,.0f} "
        f"<progress value='{row['step']:.0f}' max='{row['steps']:.0f}'></progress> "
        f"{row['tokens_per_second']:,.0f} tokens/s, {60 * row['hours_left']:,.0f} minutes left</p>"
        for row in table[(table["state"] == "running") & table["step"].notna()].to_dict("records")
    )
    return f"<p>{html.escape(title)}</p>{said}{bars}{counts.round(1).to_html(index=False, na_rep='')}"


def _last_line(error: str) -> str:
    lines = error.strip().splitlines()
    return lines[-1].removeprefix("- ") if lines else ""


def _progress(root: Path, state: JobState) -> dict[str, float]:
    """Return how far a training job is that is running: from the last row of its metrics."""
    nothing: dict[str, Any] = dict.fromkeys(("step", "steps", "tokens_per_second", "hours_left"), float("nan"))
    if state.state != "running" or state.job.stage != "train":
        return nothing
    inputs = state.job.inputs
    name = "trunk" if inputs.D is None else f"D{inputs.D}"
    path = run_folder(inputs, folder_of(root, state.job.after["split"])) / "metrics" / f"{name}.jsonl"
    row = _last_row(path)
    if row is None:
        return nothing
    rate = float(row.get("tokens_per_second") or float("nan"))
    left = (inputs.stop - row["step"]) * (inputs.training.batch_tokens or 0)
    return {
        "step": row["step"],
        "steps": inputs.stop,
        "tokens_per_second": rate,
        "hours_left": left / rate / 3600 if rate > 0 else float("nan"),
    }


def _last_row(path: Path) -> dict[str, Any] | None:
    """Return the last whole row of a log that is being written."""
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return None
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row and "tokens_per_second" in row:
            return row
    return None
