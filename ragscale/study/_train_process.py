"""One process of a training run that torchrun started for a study."""

import json
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from ragscale.study._stages import train_here


@record  # torchrun ends its report with the traceback of the process that failed first
def main(arguments: str) -> None:
    """Train with the arguments that the study's job gave as JSON."""
    given = json.loads(arguments)
    train_here(Path(given["run"]), given["inputs"], Path(given["split"]))


if __name__ == "__main__":
    main(sys.argv[1])
