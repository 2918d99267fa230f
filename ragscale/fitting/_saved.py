"""Fits, comparisons and bootstraps as JSON and as NumPy archives, exactly; no pickle.

A damaged file is refused with its name, whatever is wrong in it.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from ragscale._files import atomic_write, check_fields, damaged, disk_errors, read_json, write_json
from ragscale.errors import CheckpointError, RagscaleError
from ragscale.fitting._bootstrap import Bootstrap
from ragscale.fitting._comparison import Comparison
from ragscale.fitting._evidence import Evidence, Paired
from ragscale.fitting._own import peek
from ragscale.fitting._result import ManifoldFit
from ragscale.fitting.laws._law import ScalingLaw, Theta
from ragscale.fitting.solver._objective import Objective
from ragscale.fitting.solver.links import Link
from ragscale.results import HitRateCurve, HitRateDraws
from ragscale.results._hit_rate_shapes import make_shape
from ragscale.results._result import decode, encode

VERSION = 1
_NUMBER, _TEXT = (int, float), str
_FIT = {
    "law": dict, "theta": dict, "link": dict, "loss": dict, "space": _TEXT, "objective": _NUMBER, "converged": bool,
    "weights": _TEXT, "data": dict, "minima": dict,
}  # fmt: skip
_COUNTS = ("N", "D", "R", "value", "weight")
S = TypeVar("S")
T = TypeVar("T")


def write(path: str | os.PathLike[str], value: dict[str, Any], schema: str) -> None:
    """Write a result's dictionary to a versioned JSON file, atomically."""
    write_json(path, value, schema=schema, version=VERSION)


def read(path: str | os.PathLike[str], build: Callable[[Mapping[str, Any]], T], schema: str) -> Any:
    """Read what `write` wrote and build the result from it."""
    value = read_json(path, schema=schema, version=VERSION)
    with damaged(path):
        return _named(os.fspath(path), build, value)


def _named(name: str, build: Callable[[S], T], value: S) -> T:
    """Build, and put the file's name before what is wrong with its content."""
    try:
        return build(value)
    except RagscaleError as problem:
        raise type(problem)(f"{name}: {problem}") from problem


# Fits ----------------------------------------------------------------------------------------------------------------


def fit_to_dict(fit: ManifoldFit, data: pd.DataFrame | None = None) -> dict[str, Any]:
    """Return everything, JSON-able; rows that equal ``data`` are left out."""
    rows: pd.DataFrame = peek(fit, "data")
    shared = data is not None and rows.equals(data)
    return {
        "law": fit.law.to_dict(),
        "theta": dict(fit.theta),
        "link": fit.link.to_dict(),
        "loss": {"loss": fit.loss.loss, "delta": fit.loss.delta, "tau": fit.loss.tau},
        "space": fit.space,
        "objective": fit.objective,
        "converged": bool(fit.converged),
        "weights": fit.weights,
        "left_out": fit.left_out,
        "dropped": list(fit.dropped),
        "hit_rate": fit.hit_rate.to_dict() if isinstance(fit.hit_rate, HitRateCurve) else None,
        "evidence": None if fit.evidence is None else fit.evidence.to_dict(),
        "data": {} if shared else _columns(rows),
        "minima": _columns(peek(fit, "minima")),
        "selection": None if fit.selection is None else comparison_to_dict(fit.selection, rows),
    }


def fit_from_dict(value: Any, data: pd.DataFrame | None = None) -> ManifoldFit:
    """Build a fit from `fit_to_dict`.

    Raises
    ------
    FitError
        When its law is not known here.
    CheckpointError
        Saying what is missing or wrong in the value.
    """
    check_fields(value, _FIT, name="the fit")
    check_fields(value["law"], {"name": str, "options": dict}, name="the fit's law")
    law = ScalingLaw.from_dict(value["law"])
    check_fields(value["theta"], {p.name: _NUMBER for p in law.parameters}, name="the fit's theta")
    rows = _frame(value["data"]) if value["data"] or data is None else data
    check_fields(dict.fromkeys(map(str, rows.columns), 0), dict.fromkeys(_COUNTS, int), name="the fit's data")
    for column in _COUNTS:
        if rows[column].dtype.kind not in "iuf" or not np.isfinite(rows[column].to_numpy(float)).all():
            raise CheckpointError(f"the fit's data are damaged: {column} holds what is no finite number")
    minima = _frame(value["minima"])
    if not len(rows) or "objective" not in minima or not len(minima):
        raise CheckpointError("the fit is damaged: it has no rows or no minima")
    if any(minima[column].dtype.kind not in "biuf" for column in minima):
        raise CheckpointError("the fit's minima are damaged: they hold what is no number")
    if value["space"] not in {"log", "linear"}:
        raise CheckpointError(f"the fit is damaged: its space is {value['space']!r}")
    selection = value.get("selection")
    return ManifoldFit(
        law=law,
        theta=Theta(value["theta"]),
        link=Link.from_dict(value["link"]),
        loss=Objective(**value["loss"]),
        space=value["space"],
        objective=value["objective"],
        converged=value["converged"],
        weights=value["weights"],
        left_out=str(value.get("left_out", "")),
        dropped=tuple(str(name) for name in value.get("dropped", ())),
        hit_rate=HitRateCurve.from_dict(value["hit_rate"]) if value.get("hit_rate") else None,
        evidence=Evidence.from_dict(value["evidence"]) if value.get("evidence") else None,
        data=rows,
        minima=minima,
        selection=None if selection is None else comparison_from_dict(selection, rows),
    )


def _columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    plain = frame.astype(object).where(frame.notna(), None)
    return {
        str(name): [item.item() if isinstance(item, np.generic) else item for item in plain[name].tolist()]
        for name in plain
    }


def _frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(dict(columns))


# Comparisons ---------------------------------------------------------------------------------------------------------


def comparison_to_dict(comparison: Comparison, data: pd.DataFrame | None = None) -> dict[str, Any]:
    """Return table and fits, JSON-able; the rows of the fits are written once."""
    fits = comparison.fits
    rows = data
    if rows is None and fits:
        rows = peek(next(iter(fits.values())), "data")
    return {
        "table": encode(comparison.table),
        "data": {} if data is not None or rows is None else _columns(rows),
        "fits": {name: fit_to_dict(fit, rows) for name, fit in fits.items()},
        "gate": None if comparison.gate is None else encode(asdict(comparison.gate)),
        "chosen": comparison.chosen,
        "note": comparison.note,
    }


def comparison_from_dict(value: Any, data: pd.DataFrame | None = None) -> Comparison:
    """Build a comparison from `comparison_to_dict`."""
    check_fields(value, {"table": dict, "data": dict, "fits": dict}, name="the comparison")
    rows = _frame(value["data"]) if value["data"] else data
    table = decode(value["table"])
    check_fields(dict.fromkeys(table.columns, 0), dict.fromkeys(("tied", "weight", "problem"), int), name="the table")
    return Comparison(
        table=table,
        fits={name: fit_from_dict(fit, rows) for name, fit in value["fits"].items()},
        gate=Paired(**decode(value["gate"])) if value.get("gate") else None,
        chosen=str(value.get("chosen", "")),
        note=str(value.get("note", "")),
    )


# Bootstraps ----------------------------------------------------------------------------------------------------------


def save_bootstrap(path: str | os.PathLike[str], boot: Bootstrap) -> None:
    """Write one NumPy archive: the replicates as arrays, and the rest as JSON text."""
    head = {
        "schema": Bootstrap.schema,
        "schema_version": VERSION,
        "by": boot.by if isinstance(boot.by, str) else list(boot.by),
        "confidence_level": boot.confidence_level,
        "seed": boot.seed,
        "method": boot.method,
        "parameters": list(boot.theta),
        "link_parameters": list(boot.link_values),
        "fit": fit_to_dict(boot.fit),
        "hit_rate": None if boot.hit_rate is None else boot.hit_rate.shape.kind,
    }
    arrays = {f"theta_{name}": values for name, values in boot.theta.items()}
    arrays |= {f"link_{name}": values for name, values in boot.link_values.items()}
    if boot.hit_rate is not None:
        arrays |= {"hit_rate_rows": boot.hit_rate.rows, **boot.hit_rate.shape.arrays("hit_rate_")}
    text = np.frombuffer(json.dumps(head, ensure_ascii=False).encode(), dtype=np.uint8)
    with atomic_write(path) as file:
        np.savez(file, head=text, objective=boot.objective, **arrays)


def load_bootstrap(path: str | os.PathLike[str]) -> Bootstrap:
    """Read what `save_bootstrap` wrote."""
    with damaged(path), disk_errors(path, "read"):
        if not zipfile.is_zipfile(path):
            with open(path, "rb"):  # one that is not there, or may not be read, says so
                raise CheckpointError(f"{os.fspath(path)} is no archive of a bootstrap: it was damaged or is another")
        with np.load(path, allow_pickle=False) as archive:
            stored = {name: archive[name] for name in archive.files}
        return _named(os.fspath(path), _bootstrap_from_arrays, stored)


def _bootstrap_from_arrays(stored: dict[str, np.ndarray]) -> Bootstrap:
    if "head" not in stored:
        raise CheckpointError("it holds arrays, but no bootstrap")
    head = json.loads(stored["head"].tobytes().decode())
    fields = {"schema": str, "schema_version": int, "by": (str, list), "confidence_level": _NUMBER, "fit": dict}
    check_fields(head, fields | {"parameters": list, "link_parameters": list}, name="the bootstrap")
    if head["schema"] != Bootstrap.schema or head["schema_version"] > VERSION:
        raise CheckpointError(f"it holds {head['schema']} of version {head['schema_version']}: upgrade ragscale")
    names = ["objective", *(f"theta_{n}" for n in head["parameters"]), *(f"link_{n}" for n in head["link_parameters"])]
    missing = [name for name in names if name not in stored]
    if missing or len({stored[name].shape for name in names}) != 1 or stored["objective"].ndim != 1:
        raise CheckpointError(f"its replicates are damaged: {', '.join(missing) or 'arrays differ in length'}")
    return Bootstrap(
        fit=fit_from_dict(head["fit"]),
        theta=Theta({name: stored[f"theta_{name}"] for name in head["parameters"]}),
        link_values={name: stored[f"link_{name}"] for name in head["link_parameters"]},
        objective=stored["objective"],
        by=head["by"] if isinstance(head["by"], str) else tuple(head["by"]),
        confidence_level=head["confidence_level"],
        hit_rate=_draws(stored, head["hit_rate"]) if head.get("hit_rate") else None,
        seed=int(head.get("seed", 0)),
        method=str(head.get("method", "refits")),
    )


def _draws(stored: dict[str, np.ndarray], kind: str) -> HitRateDraws:
    stores, values, rows = (stored[f"hit_rate_{name}"] for name in ("stores", "values", "rows"))
    return HitRateDraws(make_shape(kind, stores, values), rows)
