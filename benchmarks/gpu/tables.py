"""What machine this is, and the results as Markdown."""

from __future__ import annotations

import importlib.util
import platform
from importlib import metadata
from typing import Any

WHEELS = ("torch", "triton", "transformers", "numpy", "numba", "faiss", "sentence_transformers", "bm25s", "Stemmer")
HEADERS = {
    "checks": "Checks",
    "training": "A training step (rows of 4,096 tokens, bfloat16 autocast, compiled)",
    "small": "A step of a small model (rows of 512 tokens)",
    "head": "The loss head",
    "evaluation": "Evaluation",
    "search": "Search",
    "encoding": "Encoding",
    "pytest": "Tests",
}


def environment(device: str) -> dict[str, Any]:
    """Return device, driver and versions; wheels that are missing are named."""
    import torch

    cuda = device.startswith("cuda") and torch.cuda.is_available()
    found, missing = {"python": platform.python_version()}, []
    for wheel in WHEELS:
        if importlib.util.find_spec(wheel) is None:
            missing.append(wheel)
            continue
        try:
            found[wheel] = metadata.version(wheel)
        except metadata.PackageNotFoundError:
            found[wheel] = str(getattr(importlib.import_module(wheel), "__version__", "?"))
    return {
        "device": torch.cuda.get_device_name(0) if cuda else platform.processor() or platform.machine(),
        "memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1) if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "versions": found,
        "missing": missing,
    }


def markdown(results: dict[str, Any]) -> str:
    """Return the tables: one a section, a column for every key of its rows."""
    machine = results["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    missing = ", ".join(machine["missing"]) or "nothing that is used"
    lines = [f"# gpu_check: {machine['device']}" + (" (toy sizes)" if results["tiny"] else ""), ""]
    lines.append(f"{versions}. Not installed: {missing}. {results.get('seconds', 0):.0f} s in all.")
    rows = [row for row in results["rows"] if not row.get("done")]
    for section, title in HEADERS.items():
        mine = [row for row in rows if row["job"].split("/")[0] == section]
        if mine:
            lines += ["", f"## {title}", "", *table(mine)]
    ratios = _ratios(rows)
    if ratios:
        lines += ["", "## ragscale against its peers (tokens per second, same rows)", "", *table(ratios)]
    return "\n".join(lines) + "\n"


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return rows as the lines of a Markdown table."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    speeds: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        if row["job"].startswith("training/") and "tokens_per_second" in row:
            _, size, kind = row["job"].split("/")
            speeds.setdefault((size, row["rows"]), {})[kind] = row["tokens_per_second"]
    return [
        {"size": size, "rows": n, **{f"against {kind}": ours["ragscale"] / speed for kind, speed in ours.items()}}
        for (size, n), ours in speeds.items()
        if "ragscale" in ours and len(ours) > 1
    ]
