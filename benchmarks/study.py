"""Run one study on every executor and through kills: identical results, and what it costs besides the training.

    python benchmarks/study.py [--kills 20] [--only executors|kills|overhead] [--scale 0.1]

A small synthetic world, two models, three D, three R, two seeds. Every run is a fresh process. ``executors`` compares
the bytes of all result tables and weights, and takes the wall time of the run in one process apart: training and
evaluation, the other stages, and what is no stage. ``kills`` ends a smaller study with SIGKILL at random moments, with
and without a pool of workers, lets each go on, and compares the same bytes. Every executor trains all models anew: at
``--scale 1`` that takes half an hour on two cores.
"""

from __future__ import annotations

import argparse
import heapq
import importlib.metadata
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ragscale._files import file_digest
from ragscale.study import Study, StudyConfig, executors
from ragscale.study._engine import Schedule, run_jobs
from ragscale.study._jobs import Job

HERE = Path(__file__).resolve().parent
STAGES = ("split", "index", "retrieve", "train", "evaluate")
EXECUTORS = ("in process", "process pool", "submitit", "dask", "ray")
COMPARED = ("results.jsonl", "coverage.csv", "model.safetensors", "manifest.json")


def configuration(scale: float) -> StudyConfig:
    """Return the study, its tokens and questions multiplied by ``scale``."""
    return StudyConfig(
        corpus={"synthetic": {"n_documents": round(12_000 * scale), "n_questions": round(40 * scale)}},
        models=["0.5M", "0.15M"],
        D=[round(tokens * scale) for tokens in (100_000, 200_000, 400_000)],
        R=[round(tokens * scale) for tokens in (30_000, 60_000, 120_000)],
        tokenizer=512,
        validation_tokens=round(10_000 * scale),
        passage_tokens=64,
        k=1,
        seeds=(0, 1),
        training={"seq_len": 128, "batch_tokens": 512, "allow_short_runs": True},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--only", choices=["executors", "kills", "overhead"], default=None)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "study.json")
    parser.add_argument("--child", choices=EXECUTORS, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--scale", type=float, default=0.1, help="size of the study that executors run")
    parser.add_argument("--work", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.scale, options.work)
        return
    result = json.loads(options.results.read_text()) if options.results.is_file() else {}
    packages = ("ragscale", "torch", "transformers", "numpy", "submitit", "distributed", "ray")
    result["machine"] = "2 shared CPU cores"
    result["versions"] = {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }
    with tempfile.TemporaryDirectory(prefix="study-") as folder:
        if options.only in {None, "overhead"}:
            result["overhead"] = overhead(Path(folder))
        if options.only in {None, "executors"}:
            result |= compare(Path(folder), options.scale)
        if options.only in {None, "kills"}:
            result["kills"] = kill_often(Path(folder), options.kills)
    options.results.parent.mkdir(exist_ok=True)
    options.results.write_text(json.dumps(result, indent=2) + "\n")


def compare(work: Path, scale: float) -> dict[str, Any]:
    """Run the study on every executor, compare the bytes, and take the time of the first run apart."""
    rows: dict[str, dict[str, Any]] = {}
    expected: dict[str, str] = {}
    for name in EXECUTORS:
        started = time.perf_counter()
        output = subprocess.run(command(name, scale, work / name), check=True, stdout=subprocess.PIPE).stdout
        row = json.loads(output.splitlines()[-1])
        found = digests(work / name / "study")
        expected = expected or found
        row |= {
            "seconds_with_start_of_python": round(time.perf_counter() - started, 2),
            "identical_files": sum(expected[path] == found.get(path) for path in expected),
            "files": len({*expected, *found}),
        }
        rows[name] = row
        print(name, json.dumps(row), flush=True)
    first = rows["in process"]
    wanted = first["stage_seconds"]["train"] + first["stage_seconds"]["evaluate"]
    wall = first["wall_seconds"]
    share = {
        "train_and_evaluate_seconds": round(wanted, 2),
        "other_stages_seconds": round(sum(first["stage_seconds"].values()) - wanted, 2),
        "no_stage_seconds": round(wall - sum(first["stage_seconds"].values()), 2),
        "not_training_or_evaluation": round(1 - wanted / wall, 4),
    }
    print("in process, taken apart", json.dumps(share))
    different = [name for name, row in rows.items() if row["identical_files"] != row["files"]]
    if different:
        raise SystemExit(f"files differ from those of the run in process: {', '.join(different)}")
    return {"study": configuration(scale).to_dict(), "executors": rows, "in_process": share}


def command(executor: str, scale: float, work: Path) -> list[str]:
    return [sys.executable, __file__, "--child", executor, "--scale", str(scale), "--work", str(work)]


def child(name: str, scale: float, work: Path) -> None:
    """Run the study on one executor and print the seconds of all of it and of each stage, workers' start included."""
    study = Study(configuration(scale), work / "study")
    started = time.perf_counter()
    with executor_of(name, work) as executor:
        status = study.run(executor, progress=False)
        wall = time.perf_counter() - started
    if set(status["state"]) != {"done"}:
        raise SystemExit(status[["stage", "label", "state", "error"]].to_string())
    seconds = status.groupby("stage")["seconds"].sum()
    stages = {stage: round(float(seconds[stage]), 2) for stage in STAGES}
    print(json.dumps({"wall_seconds": round(wall, 2), "jobs": len(status), "stage_seconds": stages}))


@contextmanager
def executor_of(name: str, work: Path) -> Iterator[Any]:
    """Start the executor with two workers; submitit starts a process for each job."""
    if name == "in process":
        yield None
        return
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    yield {
        "process pool": lambda: executors.processes(2),
        "submitit": lambda: executors.slurm(work / "logs", cluster="local", device="CPU-core", timeout_min=60),
        "dask": lambda: executors.dask(n_workers=2),
        "ray": lambda: executors.ray(num_cpus=2, include_dashboard=False, logging_level="ERROR"),
    }[name]()


def overhead(work: Path) -> dict[str, Any]:
    """Take the cost of jobs that do nothing, and of the scheduler alone: 10,000 jobs on 64 workers of a clock."""
    found: dict[str, Any] = {}
    for n in (278, 500):
        jobs: list[Job] = []
        for number in range(n):
            before = (jobs[number // 10],) if number else ()
            jobs.append(Job(stage="add", label=str(number), function=nothing, inputs={"n": number}, follows=before))
        started, wall = time.process_time(), time.perf_counter()
        run_jobs(work / f"empty-{n}", jobs)
        seconds = time.process_time() - started
        found[f"{n} empty jobs"] = {
            "cpu_seconds": round(seconds, 2),
            "wall_seconds": round(time.perf_counter() - wall, 2),
            "cpu_ms_per_job": round(1e3 * seconds / n, 2),
        }
    rng = random.Random(0)
    jobs = []
    for number in range(10_000):
        recent = jobs[-2000:]
        before = tuple(rng.sample(recent, min(len(recent), rng.randrange(4))))
        jobs.append(Job(stage="add", label=str(number), function=nothing, inputs={"n": number}, follows=before))
    hours = {job.key: rng.expovariate(1) for job in jobs}
    started = time.process_time()
    schedule, now, idle = Schedule(jobs), 0.0, 0.0
    running: list[tuple[float, str]] = []
    while schedule.n_left:
        while len(running) < 64 and (key := schedule.take()) is not None:
            heapq.heappush(running, (now + hours[key], key))
        then, key = heapq.heappop(running)
        idle += (64 - len(running) - 1) * (then - now)  # nothing is ready: every job that could start has
        now = then
        schedule.finished(key, True)
    seconds = time.process_time() - started
    found["10,000 jobs on 64 workers"] = {
        "cpu_seconds": round(seconds, 2),
        "cpu_ms_per_job": round(1e3 * seconds / len(jobs), 3),
        "length_over_bound": round(now / (sum(hours.values()) / 64), 4),
        "share_of_time_with_nothing_ready": round(idle / (64 * now), 4),
    }
    print(json.dumps(found))
    return found


def nothing(folder: Path, inputs: dict[str, Any], folders: dict[str, Path]) -> list[str]:
    """Do nothing, and leave no output."""
    return []


def kill_often(work: Path, kills: int, scale: float = 0.1) -> dict[str, Any]:
    """Kill runs and their workers at random moments, let each continue, and compare with an undisturbed run."""
    started = time.perf_counter()
    subprocess.run(command("in process", scale, work / "undisturbed"), check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    expected = digests(work / "undisturbed" / "study")
    rng = random.Random(0)
    struck = {"before the first stage": 0, **dict.fromkeys(STAGES, 0), "between stages": 0}
    n_killed = n_finished = n_identical = n_done_twice = 0
    out = work / "killed"
    while n_killed < kills:
        shutil.rmtree(out, ignore_errors=True)
        done: dict[Path, int] = {}
        while n_killed < kills:
            name = rng.choice(["in process", "process pool"])
            process = subprocess.Popen(
                command(name, scale, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
            )
            time.sleep(rng.uniform(0, seconds))
            if process.poll() is not None:
                break
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            n_killed += 1
            done |= {path: path.stat().st_mtime_ns for path in out.glob("study/stages/*/done.json")}
            folders = {path for path in out.glob("study/stages/*") if not (path / "done.json").exists()}
            under_way = {path.name.split("-")[0] for path in folders}
            for stage in under_way or {"between stages" if done else "before the first stage"}:
                struck[stage] += 1
        subprocess.run(command("in process", scale, out), check=True, stdout=subprocess.DEVNULL)
        n_finished += 1
        n_identical += digests(out / "study") == expected
        n_done_twice += sum(path.stat().st_mtime_ns != before for path, before in done.items())
        print(f"{n_killed} kills, {n_identical} of {n_finished} studies identical", flush=True)
    outcome = {"kills": n_killed, "struck": struck, "studies": n_finished, "identical": n_identical}
    outcome |= {"jobs_done_twice": n_done_twice, "seconds_undisturbed": round(seconds, 1)}
    print(json.dumps(outcome))
    if n_identical != n_finished or n_done_twice:
        raise SystemExit("a study that was killed ended differently")
    return outcome


def digests(directory: Path) -> dict[str, str]:
    """Digest what later stages and people read; names with a dot are what a kill left half made."""
    found = {path.relative_to(directory): path for name in COMPARED for path in directory.rglob(name)}
    return {
        str(name): file_digest(path)
        for name, path in sorted(found.items())
        if not any(part[0] == "." for part in name.parts)
    }


if __name__ == "__main__":
    main()
