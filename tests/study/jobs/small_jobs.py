"""Small jobs that leave a trace of every time they are entered."""

import os
import signal
import time
from pathlib import Path


def add(folder, inputs, folders):
    """Write the sum of the parents' numbers and an own one."""
    with open(Path(inputs["trace"]), "a") as file:
        file.write(f"{inputs['name']}\n")
    total = inputs["value"] + sum(int((path / "number").read_text()) for path in folders.values())
    (folder / "number").write_text(str(total))


def fail(folder, inputs, folders):
    """Fail, as a bad cell does."""
    raise ZeroDivisionError(f"no luck with {inputs['name']}")


def fail_until_allowed(folder, inputs, folders):
    """Fail until a file exists."""
    if not Path(inputs["allowed"]).exists():
        raise FileNotFoundError(inputs["allowed"])
    add(folder, inputs, folders)


def add_when_allowed(folder, inputs, folders):
    """Enter at once, and go on when a file exists."""
    add(folder, inputs, folders)
    while not Path(inputs["allowed"]).exists():
        time.sleep(0.02)


def die(folder, inputs, folders):
    """Kill the process, as the system does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def visible_gpus(seconds):
    """Return which GPU this process may use, after a while."""
    time.sleep(seconds)
    return os.environ["CUDA_VISIBLE_DEVICES"]


def nothing(folder, inputs, folders):
    """Do nothing, and leave no output."""
    return []
