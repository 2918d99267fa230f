"""An allocation in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ragscale.decisions._surface import SETTLED

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
        split = (
            _split(found, row, str(np.ravel(found.store)[i]))
            if found.budget_unit == "tokens"
            else _computation(found, row)
        )
        tail = _by_law(found, row, i) + _ranges(found, row) + _replicates(found, row, i)
        lines.append(f"N = {row['N']:.3g}{_between(row, 'N')}, {row['budget']:.3g} {found.budget_unit}: {split}{tail}")
    return lines


def _between(row: dict, name: str) -> str:
    """Return the interval of a count in brackets; nothing without a bootstrap, or where it does not vary."""
    if not row.get(f"{name}_low", 0) < row.get(f"{name}_high", 0):
        return ""
    return f" ({row[f'{name}_low']:.3g} to {row[f'{name}_high']:.3g})"


def _computation(found: Allocation, row: dict) -> str:
    text = f"pretrain on {row['D']:.3g}{_between(row, 'D')} tokens, "
    if row["R"] == 0:
        return text + "no store" + _LIMITS.get(row["boundary"], "")
    return text + _store(found, row, "tokens")


def _split(found: Allocation, row: dict, store: str) -> str:
    if row["boundary"] == "R=0":
        return _no_store(found, row, store)
    return f"pretrain on {row['D']:.3g} tokens, {_store(found, row, 'budget')}"


def _store(found: Allocation, row: dict, whole: str) -> str:
    text = f"retrieve from {row['R']:.3g} ({100 * row['share']:.1f}%"
    if "share_low" in row:
        text += f", {100 * row['share_low']:.1f} to {100 * row['share_high']:.1f}%"
    text += f" of the {whole}); {'raises' if found.rises else 'lowers'} {found.metric or 'the loss'}"
    text += f" by {row['improvement']:.3g}"
    if "improvement_low" in row:
        text += f" [{row['improvement_low']:.3g}, {row['improvement_high']:.3g}]"
    return text + _LIMITS.get(row["boundary"], "")


def _no_store(found: Allocation, row: dict, store: str) -> str:
    """Say why nothing goes to a store: not measured, excluded, not worth its price, not known to help, or no help."""
    rate = row["exchange_rate"]
    if found.verdict == "not measured":
        return "spend everything on pretraining or measure first: what a store is worth is not in these results"
    if found.verdict in SETTLED:
        return "retrieval does not help here; spend everything on pretraining"
    if np.isnan(rate):
        return (
            "neither a store nor more pretraining changes the prediction, so no split of the budget is better than "
            "another"
        )
    if store == "excluded":
        return f"max_R leaves no store; spend everything on pretraining (a first store token would replace {rate:.3g})"
    if store == "helps":
        first = f" (its first token replaces {rate:.3g})" if rate > 0 else ""
        return f"a store does not pay here; spend everything on pretraining{first}"
    if found.verdict == "cannot be told":
        return "by this law nothing is gained by a store, so everything goes to pretraining"
    text = "retrieval does not help here; spend everything on pretraining"
    return text + (" (a store makes it worse)" if rate < 0 else "")


def _by_law(found: Allocation, row: dict, i: int) -> str:
    """Say what each law would recommend and what the recommended split costs at worst."""
    if found.laws.empty:
        return ""
    laws: Any = found.laws[i :: np.size(found.share)]
    if found.budget_unit == "tokens":
        low, high = 100 * laws["share"].min(), 100 * laws["share"].max()
        span = f"{low:.0f} %" if round(low) == round(high) else f"{low:.0f} to {high:.0f} %"
    else:
        span = f"N of {laws['N'].min():.3g} to {laws['N'].max():.3g}"
    worst = float(laws["regret"].max())
    rounding = 1e-9 * max(float(np.abs(laws["loss"]).max()), 1e-300)
    cost = f"{worst if worst > rounding else 0:.2g}{' ' + found.metric if found.metric else ''}"
    return f"; {span} across {len(laws)} laws that fit equally well, at worst this costs {cost}"


def _ranges(found: Allocation, row: dict) -> str:
    """Say which other splits are nearly as good."""
    if found.near_optimal.empty:
        return ""
    table = found.near_optimal
    near: Any = table[(table["N"] == row["N"]) & (table["budget"] == row["budget"])]
    ends = [(f"{low:.3g}", f"{high:.3g}") for low, high in zip(near["D_low"], near["D_high"], strict=True)]
    spans = [f"{low} to {high}" if low != high else low for low, high in ends]
    if not spans or (len(ends) == 1 and ends[0][0] == ends[0][1]):
        return ""
    best = f"the best{' ' + found.metric if found.metric else ''}"
    return f"; D of {' or '.join(spans)} is within {near['within'].iloc[0]:.2g} of {best}"


def _replicates(found: Allocation, row: dict, i: int) -> str:
    shares = {name: np.ravel(value)[i] for name, value in found.boundary_share.items()}
    others = [f"{100 * s:.0f}% at {k}" for k, s in shares.items() if s > 0 and k not in ("interior", "R=0")]
    if found.budget_unit == "FLOPs" and row["R"] == 0:
        return f" [replicates: {', '.join(others)}]" if others else ""
    if shares.get("R=0", 0) > 0 and row["boundary"] != "R=0":
        others.insert(0, f"{100 * shares['R=0']:.0f}% with no retrieval at all")
    if row["boundary"] == "R=0" and shares and shares.get("R=0", 0.0) < 1:
        others.insert(0, f"{100 * (1 - shares.get('R=0', 0.0)):.0f}% with some retrieval")
    return f" [replicates: {', '.join(others)}]" if others else ""
