"""Run a split again and again, killed with SIGKILL at its n-th atomic step, until it ends; run by test_resume.py.

A fresh process per kill would cost a second of start-up each: this one forks before any thread exists.
"""

from __future__ import annotations

import os
import random
import signal
import sys

import ragscale as rs
from ragscale.splitting import _order, _units, read_jsonl


def kill_at(step: int) -> None:
    real = {name: getattr(os, name) for name in ("replace", "unlink", "rmdir", "mkdir")}
    left = [step]

    def counted(name):
        def call(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real[name](*arguments, **options)

        return call

    for name in real:
        setattr(os, name, counted(name))


def main(corpus: str, tokenizer: str, out: str, kills: str) -> None:
    _order.RUN_BYTES = 6_000
    _units.UNIT_BYTES = 5_000
    rng = random.Random(7)
    killed = 0
    while True:
        child = os.fork()
        if child == 0:
            if killed < int(kills):
                kill_at(rng.randrange(1, 60))
            rs.split_corpus(
                read_jsonl(corpus),
                out,
                tokenizer=tokenizer,
                validation_tokens=300,
                passage_tokens=32,
                deduplicate="minhash",
            )
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            killed += 1
            continue
        if status != 0:
            raise SystemExit(f"a continued run failed with status {status}")
        break
    sys.stdout.write(f"{killed}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
