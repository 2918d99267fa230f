"""Split corpora whole and compare with the tokenizer alone: time, memory, kills.

    python benchmarks/splitting.py CORPUS.jsonl.zst [MORE ...] [--kills 20] [--only measure|kills|audit|picture]

Every measurement runs in a fresh process, so that peak memory is its own. The plain run only reads the same text and
calls ``tokenizers.Tokenizer.encode_batch`` on batches of the same size: the least that any splitter must do. CPU
seconds are compared, because other work shares the machine. The tokenizer is trained on the first file.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BATCH_CHARACTERS = 1 << 19


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="+")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--vocab-size", type=int, default=16384)
    parser.add_argument("--work", default=None)
    parser.add_argument("--only", choices=["measure", "kills", "audit", "picture"], default=None)
    parser.add_argument("--results", default=str(HERE / "results" / "splitting.json"))
    parser.add_argument("--child", default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.corpus, Path(arguments.work))
        return
    work = Path(arguments.work or tempfile.mkdtemp(prefix="ragscale-splitting-"))
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "tokenizer").is_dir():
        from ragscale.splitting import read_jsonl, train_tokenizer

        train_tokenizer(read_jsonl(arguments.corpus[0]), arguments.vocab_size).save_pretrained(work / "tokenizer")
    target = Path(arguments.results)
    result = json.loads(target.read_text()) if target.is_file() else {}
    result["machine"] = "2 shared CPU cores"
    result["versions"] = {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("ragscale", "tokenizers", "zstandard", "numpy")},
    }
    wanted = [arguments.only] if arguments.only else ["measure", "audit", "picture", "kills"]
    if "measure" in wanted:
        corpora = result.setdefault("corpora", {})
        corpora["first file"] = measure("first file", arguments.corpus[:1], work, arguments.repeats)
        if len(arguments.corpus) > 1:
            corpora["all files"] = measure("all files", arguments.corpus, work, 1)
        ratio = corpora["all files"]["peak_mb"] / corpora["first file"]["peak_mb"]
        result["peak_memory_ratio"] = round(ratio, 3)
        print(f"peak memory, all files to first file: {ratio:.3f}")
    if "audit" in wanted:
        result["audit"] = audit_last(work)
    if "picture" in wanted:
        draw(work, HERE.parent / "docs" / "_static" / "splitting" / "layout.png")
    if "kills" in wanted:
        result["kills"] = kill_often(arguments.corpus[:1], work, arguments.kills)
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    if arguments.work is None:
        shutil.rmtree(work)


def audit_last(work: Path) -> dict:
    """Audit the split that was made last, the one of all files, and measure the likeness of its halves."""
    import ragscale as rs

    start = cpu()
    split = rs.Split.load(work / "split")
    report = split.audit()
    report.raise_if_failed()
    entry = {"tokens": split.n_tokens, "checks": len(report.checks), "cpu_seconds": round(cpu() - start, 1)}
    entry |= {"manifest": split.manifest["corpus"], "measures": report.measures}
    print(json.dumps(entry))
    return entry


def draw(work: Path, target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import ragscale as rs

    ax = rs.plotting.split_layout(rs.Split.load(work / "split"))
    target.parent.mkdir(parents=True, exist_ok=True)
    ax.get_figure().savefig(target, dpi=110)


def measure(name: str, files: list[str], work: Path, repeats: int) -> dict:
    plain, split = [], []
    for _ in range(repeats):
        plain.append(run("plain", files, work))
        split.append(run("split", files, work))
    best = split[-1]
    ratios = [s["cpu_s"] / p["cpu_s"] for s, p in zip(split, plain, strict=True)]
    entry = {
        "documents": best["documents"],
        "tokens": best["tokens"],
        "cpu_seconds": statistics.median(s["cpu_s"] for s in split),
        "wall_seconds": statistics.median(s["wall_s"] for s in split),
        "tokens_per_cpu_second": round(best["tokens"] / statistics.median(s["cpu_s"] for s in split)),
        "peak_mb": max(s["peak_mb"] for s in split),
        "plain_cpu_seconds": statistics.median(p["cpu_s"] for p in plain),
        "plain_peak_mb": max(p["peak_mb"] for p in plain),
        "cpu_ratio_to_encode_batch": round(statistics.median(ratios), 3),
        "cpu_ratios": [round(ratio, 3) for ratio in ratios],
    }
    print(name, json.dumps(entry))
    return entry


def run(what: str, files: list[str], work: Path) -> dict:
    command = [sys.executable, __file__, *files, "--child", what, "--work", str(work)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return json.loads(output.splitlines()[-1])


def child(what: str, files: list[str], work: Path) -> None:
    import ragscale as rs
    from ragscale.splitting._tokenizers import as_split_tokenizer

    tokenizer = as_split_tokenizer(work / "tokenizer")
    source = rs.splitting.read_jsonl(files)
    before, start = cpu(), time.perf_counter()
    if what == "plain":
        documents, tokens = encode_only(source, tokenizer.backend())
    else:
        out = work / "split"
        if what == "split":
            shutil.rmtree(out, ignore_errors=True)
        split = rs.split_corpus(source, out, tokenizer=tokenizer, validation_tokens=20_000)
        documents, tokens = split.n_documents + split.manifest["validation"]["n_documents"], split.n_tokens
    row = {"documents": documents, "tokens": tokens, "cpu_s": cpu() - before, "wall_s": time.perf_counter() - start}
    row["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(row))


def cpu() -> float:
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


def encode_only(source, backend) -> tuple[int, int]:
    documents = tokens = pending = 0
    batch: list[str] = []

    def encode() -> int:
        return sum(len(encoding.ids) for encoding in backend.encode_batch(batch, add_special_tokens=False))

    for document in source:
        batch.append(document.text)
        documents, pending = documents + 1, pending + len(document.text)
        if pending >= BATCH_CHARACTERS:
            tokens, pending = tokens + encode(), 0
            batch.clear()
    return documents, tokens + encode()


def kill_often(files: list[str], work: Path, kills: int) -> dict:
    """Kill runs at random moments with SIGKILL, let each continue, and compare all bytes with an undisturbed run."""
    out = work / "split"
    seconds = run("split", files, work)["wall_s"] + 1.0
    expected = digests(out)
    rng = random.Random(0)
    done = interrupted = 0
    while done < kills:
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, __file__, *files, "--child", "continue", "--work", str(work)]
        while done < kills:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            time.sleep(rng.uniform(0, seconds))
            if process.poll() is not None:
                break
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
            interrupted += (out / ".work").is_dir()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found = digests(out)
        if found != expected:
            changed = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            raise SystemExit(f"after {done} kills these files differ: {changed}")
    print(f"{done} kills ({interrupted} with work under way): identical bytes")
    return {"kills": done, "with_work_under_way": interrupted, "identical": True}


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


if __name__ == "__main__":
    main()
