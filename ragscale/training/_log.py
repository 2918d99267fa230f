"""What a run says while it works: rows of JSON Lines, a callback, a progress bar."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragscale._files import atomic_write, check_fields, disk_errors, parse_json
from ragscale.errors import ConfigError


class Log:
    """Rows of one segment: to ``metrics/<segment>.jsonl``, to the user's callback, to the progress bar.

    On resuming, the rows that will come again are dropped, so that the file reads like an uninterrupted run's.
    """

    def __init__(
        self,
        path: Path,
        *,
        step: int,
        start: int,
        stop: int,
        on_log: Callable[[dict[str, Any]], None] | None,
        progress: bool | None,
        active: bool,
    ) -> None:
        from tqdm.auto import tqdm

        self._active, self._on_log = active, on_log
        self._file = None
        if active:
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = _read(path) if path.exists() else []
            kept = [row for row in rows if row["step"] <= step or row["step"] > stop]
            with atomic_write(path, "w", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in kept)
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)
        hidden = True if not active or progress is False else (False if progress else None)
        self._bar = tqdm(total=stop - start, initial=step - start, desc=path.stem, unit="step", disable=hidden)

    def row(self, row: dict[str, Any]) -> None:
        """Write one row and hand it to the callback."""
        if not self._active:
            return
        assert self._file is not None
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if "loss" in row:
            shown = {
                "loss": "not finite" if row["loss"] is None else f"{row['loss']:.3f}",
                "D/N": f"{row['D/N']:.2f}",
                "tok/s": f"{row['tokens_per_second']:,.0f}",
            }
            if row.get("mfu") is not None:
                shown["MFU"] = f"{row['mfu']:.0%}"
            self._bar.set_postfix(shown, refresh=False)
        if self._on_log is not None:
            self._on_log(dict(row))

    def advance(self, steps: int) -> None:
        """Move the progress bar."""
        self._bar.update(steps)

    def close(self) -> None:
        """Close file and bar."""
        self._bar.close()
        if self._file is not None:
            self._file.close()


def read_metrics(out: str | os.PathLike[str]) -> Any:
    """Return everything that a run logged as a DataFrame, ``segment`` and ``step`` first.

    Parameters
    ----------
    out : path
        The run's folder.

    Raises
    ------
    ConfigError
        When nothing was logged there.
    CheckpointError
        When a row is damaged; the message names the file and the line.
    """
    import pandas as pd

    rows = [row for path in sorted(Path(out, "metrics").glob("*.jsonl")) for row in _read(path)]
    if not rows:
        raise ConfigError(f"{os.fspath(out)} holds no metrics/*.jsonl: give the `out` folder of a training run")
    return pd.DataFrame(rows).sort_values(["segment", "step"], kind="stable", ignore_index=True)


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file; half a last line, of a run that was killed while it wrote, is left out."""
    with disk_errors(path, "read"):
        lines = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and (not line or line.startswith(b'{"')):
            break  # nothing, or a row that has no line end yet
        name = f"{path}, line {number}"
        row = parse_json(line, name=name)
        check_fields(row, {"step": int, "segment": str}, name=name)
        rows.append(row)
    return rows
