"""An allocation in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ragscale.decisions._allocation import Allocation

_LIMITS = {
    "D=min": "; all that may goes to the store",
    "D=max": "; pretraining data is the limit",
    "R=max": "; the store is as large as it may be",
    "R=min": "; even the smallest store gives it",
    "N=min": "; the smallest model allowed",
    "N=max": "; the largest model allowed",
}


def sentences(found: Allocation) -> list[str]:
    """Return one sentence per budget: the split, its interval, what the laws disagree about and what it may cost."""
    lines = []
    for i, row in enumerate(found.to_frame().to_dict("records")):
        head = f"N = {row['N']:.3g}, {row['budget']:.3g} {found.budget_unit}: "
        lines.append(head + _split(found, row) + _by_law(found, row) + _ranges(found, row) + _replicates(found, row, i))
    return lines


def _split(found: Allocation, row: dict) -> str:
    if row["R"] == 0 and found.budget_unit == "FLOPs":
        return f"pretrain on {row['D']:.3g} tokens, no store" + _LIMITS.get(row["boundary"], "")
    if row["boundary"] == "R=0":
        rate = row["exchange_rate"]
        if 0 < rate <= (1 + 1e-6) * np.max(found.prices[1]) / np.min(found.prices[0]):
            return f"a store does not pay here; spend everything on pretraining (its first token replaces {rate:.3g})"
        text = "retrieval does not help here; spend everything on pretraining"
        return text + (" (a store makes it worse)" if rate < 0 else "")
    whole = "budget" if found.budget_unit == "tokens" else "tokens"
    text = f"pretrain on {row['D']:.3g} tokens, retrieve from {row['R']:.3g} ({100 * row['share']:.1f}%"
    if "share_low" in row:
        text += f", {100 * row['share_low']:.1f} to {100 * row['share_high']:.1f}%"
    text += f" of the {whole})"
    return text + f"; lowers the loss by {row['gain']:.3g}" + _LIMITS.get(row["boundary"], "")


def _by_law(found: Allocation, row: dict) -> str:
    """Say what each law would recommend and what the recommended split costs at worst."""
    if found.laws.empty:
        return ""
    laws: Any = found.laws[(found.laws["N"] == row["N"]) & (found.laws["budget"] == row["budget"])]
    low, high = 100 * laws["share"].min(), 100 * laws["share"].max()
    span = f"{low:.0f} %" if round(low) == round(high) else f"{low:.0f} to {high:.0f} %"
    return f"; {span} across {len(laws)} laws that fit equally well, at worst this costs {laws['regret'].max():.2g}"


def _ranges(found: Allocation, row: dict) -> str:
    """Say which other splits are nearly as good."""
    if found.near_optimal.empty:
        return ""
    table = found.near_optimal
    near: Any = table[(table["N"] == row["N"]) & (table["budget"] == row["budget"])]
    spans = [f"{low:.3g} to {high:.3g}" for low, high in zip(near["D_low"], near["D_high"], strict=True)]
    if not spans:
        return ""
    return f"; D of {' or '.join(spans)} is within {near['within'].iloc[0]:.2g} of the best"


def _replicates(found: Allocation, row: dict, i: int) -> str:
    shares = {name: np.ravel(value)[i] for name, value in found.boundary_share.items()}
    others = [f"{100 * s:.0f}% at {k}" for k, s in shares.items() if s > 0 and k not in ("interior", "R=0")]
    if shares.get("R=0", 0) > 0 and row["boundary"] != "R=0":
        others.insert(0, f"{100 * shares['R=0']:.0f}% with no retrieval at all")
    if row["boundary"] == "R=0" and shares and shares.get("R=0", 0.0) < 1:
        others.insert(0, f"{100 * (1 - shares.get('R=0', 0.0)):.0f}% with some retrieval")
    return f" [replicates: {', '.join(others)}]" if others else ""
