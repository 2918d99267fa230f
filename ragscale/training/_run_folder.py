"""A run's folder: which run it holds, whether there is room for it, and who may write to it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

from ragscale._files import damaged, read_json, value_digest, write_json
from ragscale.errors import CheckpointError
from ragscale.training._checkpoint import disk_errors
from ragscale.training._config import RUNTIME_FIELDS, TrainConfig
from ragscale.training._data import Source
from ragscale.training._model import ModelConfig
from ragscale.training._plan import Plan

_RUN = "ragscale.training-run"


def run_identity(plan: Plan, source: Source) -> dict[str, Any]:
    config = {name: value for name, value in plan.config.to_dict().items() if name not in RUNTIME_FIELDS}
    return {
        "model": plan.model.to_dict(),
        "config": config,
        "split": source.digest,
        "tokenizer_digest": source.tokenizer_digest,
    }


def open_folder(out: Path, resume: bool) -> None:
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    if not resume and (out / "run.json").exists():
        raise CheckpointError(f"{out} holds a run already, and resume=False: choose another out, or delete that folder")


def agree_with_stored_run(out: Path, model: ModelConfig, config: TrainConfig, source: Source) -> TrainConfig:
    """Take what the config leaves open from the run that the folder holds; refuse another run."""
    path = out / "run.json"
    if not path.exists():
        return config
    text = (str, type(None))
    kinds = {"config": dict, "model": dict, "split": text, "tokenizer_digest": text}
    stored = read_json(path, schema=_RUN, version=1, fields=kinds)
    open_fields = ("batch_tokens", "learning_rate", "warmup_steps", "betas")
    before = stored["config"]
    with damaged(path):
        config = config.replace(**{name: before[name] for name in open_fields if getattr(config, name) is None})
    wanted = {key: value for key, value in config.to_dict().items() if key not in RUNTIME_FIELDS}
    differences = [
        f"{name}: {before.get(name)!r} there, {value!r} here"
        for name, value in wanted.items()
        if before.get(name) != value
    ]
    differences += [
        f"model {name}: {stored['model'].get(name)!r} there, {value!r} here"
        for name, value in model.to_dict().items()
        if name != "name" and stored["model"].get(name) != value
    ]
    if stored["split"] != source.digest:
        differences.append(f"data: digest {str(stored['split'])[:12]} there, {source.digest[:12]} here")
    if stored["tokenizer_digest"] != source.tokenizer_digest:
        there, here = (value and value[:12] for value in (stored["tokenizer_digest"], source.tokenizer_digest))
        differences.append(f"tokenizer: digest {there} there, {here} here")
    if differences:
        raise CheckpointError(
            f"{out} holds another run; give another out, or the same settings:\n- " + "\n- ".join(differences)
        )
    return config


def claim(out: Path, identity: dict[str, Any]) -> None:
    if not (out / "run.json").exists():
        with disk_errors(out):
            write_json(out / "run.json", {**identity, "digest": value_digest(identity)}, schema=_RUN, version=1)


def disk_bytes(plan: Plan) -> int:
    """Estimate what a run leaves on disk: a state per branch point, the periodic ones, a checkpoint per D."""
    n_states = sum(segment.tokens is None or plan.config.schedule == "wsd-s" for segment in plan.segments)
    return plan.model.n_params_total * (12 * (n_states + plan.config.keep_states + 1) + 4 * len(plan.tokens))


def check_space(out: Path, plan: Plan) -> None:
    present = sum(file.stat().st_size for file in out.rglob("*.safetensors"))
    needed, free = disk_bytes(plan) - present, shutil.disk_usage(out).free
    if needed > free:
        raise CheckpointError(
            f"this run needs about {needed / 2**30:.2f} GiB in {out}, which has {free / 2**30:.2f} GiB free: "
            "free some space, choose another out, or ask for fewer values of D"
        )


@contextlib.contextmanager
def only_one(folder: Path, active: bool) -> Generator[None]:
    """Hold a lock that the operating system drops when the process dies, however it dies."""
    try:
        import fcntl
    except ModuleNotFoundError:
        yield
        return
    if not active:
        yield
        return
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "w")  # noqa: SIM115 (closed by the with below)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(
                f"another process is training {folder.name} in {folder.parents[1]}: wait for it, or choose another out"
            ) from None
        yield
