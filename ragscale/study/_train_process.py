"""One process of a training run that torchrun started for a study."""

import json
import sys
from pathlib import Path

from ragscale.study._stages import train_here

if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    train_here(Path(arguments["run"]), arguments["inputs"], Path(arguments["split"]))
