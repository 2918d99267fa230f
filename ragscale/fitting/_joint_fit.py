"""Several surfaces with some parameters in common: one skill, several tasks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ragscale._files import damaged, read_json, whole_folder, write_json
from ragscale._typing import Column
from ragscale.errors import ConfigError
from ragscale.fitting._own import Own
from ragscale.fitting._result import ManifoldFit
from ragscale.results._result import Result

_CARD, _FIT = "bootstrap.json", "fit.json"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class JointFit(Result):
    """One law fitted to several groups of rows at once, some parameters equal in all of them.

    ``fit["squad"]`` is the `ManifoldFit` of one group at the joint optimum: decisions take it as any other.

    Attributes
    ----------
    fits : dict of str to ManifoldFit
    over : str
        The column whose values are the groups.
    shared : tuple of str
        The parameters that are equal in all groups.
    weights : dict of str to float
        What the objective of each group counts: the inverse of its own smallest mean loss of a residual, so that a
        group of large or noisy losses does not rule the shared parameters. Their mean over rows is 1.
    objective : float
        The weighted sum, at its minimum.
    converged : bool
    """

    fits: Own[dict[str, ManifoldFit]] = Own()
    over: str
    shared: tuple[str, ...]
    weights: Own[dict[str, float]] = Own()
    objective: float
    converged: bool

    schema: ClassVar[str] = "ragscale.JointFit"

    _picture: ClassVar[str] = "parity"

    @property
    def tasks(self) -> tuple[str, ...]:
        """The groups."""
        return tuple(self.fits)

    def __getitem__(self, task: str) -> ManifoldFit:
        fits = self.fits
        if task not in fits:
            raise ConfigError(f"no group {task!r} in column {self.over!r}: there are {', '.join(fits)}")
        return fits[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def theta(self) -> dict[str, float]:
        """The shared parameters."""
        first = self.fits[self.tasks[0]]
        return {name: float(first.theta[name]) for name in self.shared}

    @property
    def params(self) -> pd.DataFrame:
        """One row for each parameter and group, indexed by both; the group of shared ones is ``"all"``."""
        rows = [("all", name, value, "shared") for name, value in self.theta.items()]
        for task, fit in self.fits.items():
            own = [(name, value) for name, value in fit.theta.items() if name not in self.shared]
            rows += [(task, name, value, "fixed" if name in fit.law.fixed else "") for name, value in own]
        return pd.DataFrame(rows, columns=[self.over, "name", "value", "note"]).set_index([self.over, "name"])

    def predict(
        self,
        N: ArrayLike,
        D: ArrayLike,
        R: ArrayLike = 0.0,
        *,
        task: str | None = None,
        at_checkpoint: bool = False,
        **columns: Column,
    ) -> Any:
        """Predict the metric of one group, or of all: a mapping from group to array without ``task``.

        ``at_checkpoint`` and ``columns`` are those of `ManifoldFit.predict`.
        """
        if task is not None:
            return self[task].predict(N, D, R, at_checkpoint=at_checkpoint, **columns)
        fits = self.fits.items()
        return {name: fit.predict(N, D, R, at_checkpoint=at_checkpoint, **columns) for name, fit in fits}

    def summary(self) -> str:
        """Say what is shared, then one line for each group: its verdict and its own parameters."""
        fits = self.fits
        law = fits[self.tasks[0]].law
        values = ", ".join(f"{name} = {value:.4g}" for name, value in self.theta.items()) or "nothing"
        lines = [
            f"{law.name} over {self.over}: {len(fits)} groups, {sum(len(f.data) for f in fits.values())} rows; "
            f"shared: {values}" + ("" if self.converged else "; NOT CONVERGED")
        ]
        for task, fit in fits.items():
            own = ", ".join(
                f"{name} = {value:.3g}"
                for name, value in fit.theta.items()
                if name not in self.shared and name not in law.fixed
            )
            lines += [f"{task} ({len(fit.data)} rows, weight {self.weights[task]:.3g}): {own}", f"  {fit.verdict.text}"]
        return "\n".join(lines)

    def to_frame(self) -> pd.DataFrame:
        """Return `params` with the group and the name as columns."""
        return self.params.reset_index()

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the fits of all groups to a JSON file."""
        write_json(
            path,
            {
                "over": self.over,
                "shared": list(self.shared),
                "weights": self.weights,
                "objective": self.objective,
                "converged": self.converged,
                "fits": {task: fit.to_dict() for task, fit in self.fits.items()},
            },
            schema=self.schema,
            version=1,
        )

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> JointFit:
        """Read what `to_json` wrote."""
        value = read_json(path, schema=cls.schema, version=1)
        with damaged(path):
            return cls(
                fits={task: ManifoldFit.from_dict(fit) for task, fit in value["fits"].items()},
                over=value["over"],
                shared=tuple(value["shared"]),
                weights={task: float(weight) for task, weight in value["weights"].items()},
                objective=value["objective"],
                converged=value["converged"],
            )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class JointBootstrap(Result):
    """Replicates of a joint fit, the same trained models drawn for every group.

    Attributes
    ----------
    fit : JointFit
    boots : dict of str to Bootstrap
        ``boot["squad"]`` is the `Bootstrap` of one group: decisions take it as any other.
    confidence_level : float
    """

    fit: JointFit
    boots: Own[dict[str, Any]] = Own()
    confidence_level: float

    _picture: ClassVar[str] = "parameters"
    schema: ClassVar[str] = "ragscale.JointBootstrap"
    _absent: ClassVar[Mapping[str, str]] = {
        "to_json": "thousands of numbers belong into an archive: save(directory) and load(directory)",
    }

    @property
    def tasks(self) -> tuple[str, ...]:
        """The groups."""
        return self.fit.tasks

    def __getitem__(self, task: str) -> Any:
        self.fit[task]
        return self.boots[task]

    @property
    def n_resamples(self) -> int:
        """Number of replicates."""
        return next(iter(self.boots.values())).n_resamples

    @property
    def params(self) -> pd.DataFrame:
        """As `JointFit.params`, with ``stderr``, ``low`` and ``high`` of the replicates."""
        rows = []
        tables = {task: boot.params for task, boot in self.boots.items()}
        for task, name in self.fit.params.index:
            row = tables[self.tasks[0] if task == "all" else task].loc[name]
            rows.append((task, name, *(row[column] for column in ("value", "stderr", "low", "high"))))
        columns = [self.fit.over, "name", "value", "stderr", "low", "high"]
        return pd.DataFrame(rows, columns=columns).set_index([self.fit.over, "name"])

    def predict(self, N: ArrayLike, D: ArrayLike, R: ArrayLike = 0.0, *, task: str, **columns: Column) -> np.ndarray:
        """Return the metric of one group under every replicate; see `Bootstrap.predict`."""
        return self[task].predict(N, D, R, **columns)

    def summary(self) -> str:
        """Say the shared parameters with their intervals."""
        table = self.params.loc[["all"]] if self.fit.shared else self.params
        text = table.to_string(float_format="{:.4g}".format, max_rows=20)
        return f"{self.n_resamples} replicates over {len(self.tasks)} groups of {self.fit.over}\n{text}"

    def to_frame(self) -> pd.DataFrame:
        """Return `params` with the group and the name as columns; the interval is ``value_low, value_high``."""
        return self.params.reset_index().rename(columns={"low": "value_low", "high": "value_high"})

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``fit.json`` and one archive for each group into a folder, from which `load` restores it.

        The folder holds the old bootstrap or the whole new one, whatever happens; files of your own stay.
        """
        directory, names = Path(directory), [f"{i}.npz" for i in range(len(self.tasks))]
        with whole_folder(directory, ours={_CARD, _FIT, *names}) as folder:
            self.fit.to_json(folder / _FIT)
            for name, task in zip(names, self.tasks, strict=True):
                self.boots[task].save(folder / name)
            card = {"tasks": list(self.tasks), "confidence_level": self.confidence_level}
            write_json(folder / _CARD, card, schema=self.schema, version=1)
        return directory

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> JointBootstrap:
        """Read what `save` wrote; predictions are the same bit for bit.

        Raises
        ------
        CheckpointError
            When a file is missing, damaged or holds something else.
        """
        from ragscale.fitting._saved import load_bootstrap

        directory = Path(directory)
        card = read_json(directory / _CARD, schema=cls.schema, version=1)
        with damaged(directory / _CARD):
            boots = {task: load_bootstrap(directory / f"{i}.npz") for i, task in enumerate(card["tasks"])}
            fit = JointFit.from_json(directory / _FIT)
            return cls(fit=fit, boots=boots, confidence_level=float(card["confidence_level"]))
