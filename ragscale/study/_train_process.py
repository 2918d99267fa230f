"""One process of a training run that torchrun started for a study."""

import json
import sys
from pathlib import Path

from ragscale.study._inputs import TrainInputs
from ragscale.training import ModelConfig, TrainConfig


def to_text(run: Path, inputs: TrainInputs, split_folder: Path) -> str:
    """Return the arguments of `main`."""
    from dataclasses import asdict

    given = {name: getattr(inputs, name) for name in ("D", "stop", "tokens", "ladder", "n_processes", "threads")}
    given |= {"model": asdict(inputs.model), "training": inputs.training.to_dict()}
    return json.dumps({"run": str(run), "inputs": given, "split": str(split_folder)})


def main(arguments: str) -> None:
    """Train with the arguments that the study's job gave as JSON."""
    from ragscale.study._stage_train import train_here

    given = json.loads(arguments)
    inputs = given["inputs"]
    model, training = ModelConfig(**inputs.pop("model")), TrainConfig.from_dict(inputs.pop("training"))
    for name in ("tokens", "ladder"):
        inputs[name] = tuple(inputs[name])
    train_here(Path(given["run"]), TrainInputs(model=model, training=training, **inputs), Path(given["split"]))


if __name__ == "__main__":
    from torch.distributed.elastic.multiprocessing.errors import record

    record(main)(sys.argv[1])  # torchrun ends its report with the traceback of the process that failed first
