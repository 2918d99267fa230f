"""Evaluation against lm-eval's Hugging Face model, in one run: the same prompts, the same model, one thread.

    python benchmarks/evaluation.py                          # about 15 minutes on one core; --quick for a look
    python benchmarks/evaluation.py --only seven_stores      # sections whose names contain this; others are kept

Measures CPU seconds (wall seconds on a GPU), medians over repeats taken in turns:

* requests per second on 4-choice questions, closed book and with five passages: whole calls (``evaluate`` against
  ``simple_evaluate``) and the models' part alone, with the largest difference of a log-likelihood;
* the fixed cost of a task;
* seven store sizes against one, and how many of the prompts are distinct;
* answers generated in batches against one at a time.

Everything is synthetic (made-up words with Zipf's frequencies); with ``--data DIR`` the store sizes are also measured
on real questions and passages in ragscale's schema (``squad.jsonl.gz``, ``squad_contexts.jsonl.gz``).
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Olmo2Config, Olmo2ForCausalLM, PreTrainedTokenizerFast

import ragscale as rs
from ragscale.evaluation import Example, PromptTemplate, Task, TorchModel, load_task, prepare_prompts
from ragscale.passages import Passage
from ragscale.retrieval import BM25Retriever

VOCABULARY = 4096


def clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


class World:
    """Made-up words, passages of them, and questions that share words with one passage."""

    def __init__(self, n_passages: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "il", "os")]
        self.words = ["".join(self.rng.choice(syllables, self.rng.integers(1, 4))) for _ in range(20_000)]
        self.weights = 1 / np.arange(1, len(self.words) + 1) ** 1.05
        self.weights /= self.weights.sum()
        self.texts = [self.text(int(self.rng.integers(90, 150))) for _ in range(n_passages)]
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = decoders.ByteLevel()
        bpe.train_from_iterator(
            self.texts[:3000],
            trainers.BpeTrainer(
                vocab_size=VOCABULARY,
                special_tokens=["<eos>"],
                initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                show_progress=False,
            ),
        )
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>")
        lengths = [len(e.ids) for e in bpe.encode_batch(self.texts)]
        self.passages = [
            Passage(f"p{i}", t, n, f"d{i}") for i, (t, n) in enumerate(zip(self.texts, lengths, strict=True))
        ]

    def text(self, n: int) -> str:
        drawn = self.rng.choice(len(self.words), n, p=self.weights)
        return " ".join(self.words[i] for i in drawn) + "."

    def questions(self, n: int, seed: int) -> tuple[Example, ...]:
        rng = np.random.default_rng(seed)
        made = []
        for i in range(n):
            words = self.texts[int(rng.integers(len(self.texts)))].split()
            asked = " ".join(rng.choice(words, 14))
            choices = tuple(" ".join(rng.choice(words, rng.integers(1, 7))) for _ in range(4))
            index = int(rng.integers(4))
            made.append(
                Example(id=str(i), question=f"{asked}?", choices=choices, answer_index=index, answers=(choices[index],))
            )
        return tuple(made)

    def model(self, device: str) -> Olmo2ForCausalLM:
        torch.manual_seed(0)
        config = Olmo2Config(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=2048,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=0,
        )
        return Olmo2ForCausalLM(config).to(device).eval()


def harness_task(name: str, folder: Path, prompts: list[str], examples: tuple[Example, ...]) -> dict:
    path = folder / f"{name}.jsonl"
    rows = [
        {"prompt": prompt, "choices": list(example.choices), "label": example.answer_index}
        for prompt, example in zip(prompts, examples, strict=True)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}, {"metric": "brier_score"}],
    }


class Peer:
    """lm-eval's HFLM, timed as a whole and in its model part."""

    def __init__(self, module: Olmo2ForCausalLM, world: World, device: str) -> None:
        import lm_eval
        from lm_eval.models.huggingface import HFLM

        logging.disable(logging.WARNING)
        self.lm_eval, self.device, self.inside = lm_eval, device, 0.0
        self.lm = HFLM(pretrained=module, tokenizer=world.tokenizer, batch_size=32, max_length=2048, device=device)
        original = self.lm.loglikelihood

        def timed(requests, **kwargs):
            start = clock(device)
            result = original(requests, **kwargs)
            self.inside = clock(device) - start
            return result

        self.lm.loglikelihood = timed

    def run(self, tasks: list[dict]):
        start = clock(self.device)
        with open(os.devnull, "w") as quiet, _quiet(quiet):
            found = self.lm_eval.simple_evaluate(model=self.lm, tasks=tasks, bootstrap_iters=0, log_samples=True)
        return clock(self.device) - start, self.inside, found


class _quiet:
    def __init__(self, stream) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        self.kept, sys.stderr = sys.stderr, self.stream

    def __exit__(self, *error) -> None:
        sys.stderr = self.kept


def compare(name, world, module, peer, folder, *, device, n, retriever, k, repeats) -> dict:
    task = Task(name=name, kind="multiple_choice", examples=world.questions(n, seed=n))
    sizes = [retriever.n_tokens] if retriever is not None else [0]
    times: dict[str, list[float]] = {key: [] for key in ("ours", "ours_model", "peer", "peer_model")}
    difference = 0.0
    prompts: list[str] = []
    for _ in range(repeats):
        lm = _Timed(module, world.tokenizer, device)
        start = clock(device)
        ours = rs.evaluate(lm, task, retriever=retriever, store_tokens=sizes, k=k, coverage=False)
        times["ours"].append(clock(device) - start)
        times["ours_model"].append(lm.inside)
        if not prompts:
            prompts = prompts_of(task, retriever, k)
        whole, inside, found = peer.run([harness_task(name, folder, prompts, task.examples)])
        times["peer"].append(whole)
        times["peer_model"].append(inside)
        samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
        for sample, logprobs in zip(samples, ours.samples["logprobs"], strict=True):
            theirs = [float(response[0][0]) for response in sample["resps"]]
            difference = max(difference, float(np.abs(np.array(theirs) - logprobs).max()))
    medians = {key: statistics.median(found) for key, found in times.items()}
    tokens = float(np.mean(ours.samples["n_prompt_tokens"]))
    return {
        "questions": n,
        "requests": 4 * n,
        "mean_prompt_tokens": round(tokens, 1),
        "requests_per_s": {key: round(4 * n / seconds, 1) for key, seconds in medians.items()},
        "ratio_whole_call": round(medians["peer"] / medians["ours"], 2),
        "ratio_model_part": round(medians["peer_model"] / medians["ours_model"], 2),
        "ratio_our_call_to_their_model_part": round(medians["peer_model"] / medians["ours"], 2),
        "max_abs_difference": difference,
    }


class _Timed(TorchModel):
    def __init__(self, module, tokenizer, device) -> None:
        super().__init__(module, tokenizer)
        self.inside, self.clock_device = 0.0, device

    def _score(self, requests):
        start = clock(self.clock_device)
        scores = super()._score(requests)
        self.inside += clock(self.clock_device) - start
        return scores


def prompts_of(task: Task, retriever, k: int) -> list[str]:
    template = PromptTemplate()
    asked = [template.ask(example) for example in task.examples]
    if retriever is None:
        return asked
    hits = retriever.search([example.question for example in task.examples], k)
    return [
        template.build(text, [p.text for p in hits.take(retriever.passages, row)]) for row, text in enumerate(asked)
    ]


def fixed_cost(world, module, peer, folder, *, device, n_tasks: int) -> dict:
    """Cost of a task with two questions, beyond the first call of each library, less the model's part."""
    tasks = [Task(name=f"t{i}", kind="multiple_choice", examples=world.questions(2, seed=i)) for i in range(n_tasks)]
    lm = _Timed(module, world.tokenizer, device)
    rs.evaluate(lm, tasks[0])
    lm.inside = 0.0
    start = clock(device)
    for task in tasks:
        rs.evaluate(lm, task)
    ours = (clock(device) - start - lm.inside) / n_tasks
    theirs = []
    for task in tasks[: max(2, n_tasks // 4)]:
        whole, inside, _ = peer.run([harness_task(task.name, folder, prompts_of(task, None, 0), task.examples)])
        theirs.append(whole - inside)
    return {"ours_s": round(ours, 4), "lm_eval_s": round(statistics.median(theirs), 3)}


def store_sizes(module, tokenizer, task, retriever, *, device, sizes, k, repeats) -> dict:
    """Seven sizes against the largest alone, in turns; ``order`` is where the best passage stands."""
    rs.evaluate(TorchModel(module, tokenizer), task.limit(4), retriever=retriever, store_tokens=sizes[-1:], k=k)
    times: dict[str, list[float]] = {"one": [], "seven": []}
    for _ in range(repeats):
        for name, wanted in (("one", sizes[-1:]), ("seven", sizes)):
            start = clock(device)
            found = rs.evaluate(TorchModel(module, tokenizer), task, retriever=retriever, store_tokens=wanted, k=k)
            times[name].append(clock(device) - start)
    one, seven = (statistics.median(times[name]) for name in ("one", "seven"))
    start = clock(device)
    prepare_prompts(task, TorchModel(module, tokenizer), retriever=retriever, store_tokens=sizes, k=k)
    preparing = clock(device) - start
    distinct = found.samples["prompt"].nunique()
    return {
        "sizes": [int(size) for size in sizes],
        "questions": len(task),
        "k": k,
        "order": task.template.order,
        "one_s": round(one, 2),
        "seven_s": round(seven, 2),
        "ratio": round(seven / one, 2),
        "repeats": repeats,
        "distinct_prompts_per_question": round(distinct / len(task), 2),
        "preparing_ms_per_question_and_store": round(1e3 * preparing / len(task) / len(sizes), 2),
    }


def generation(world, module, device, *, n: int) -> dict:
    lm = TorchModel(module, world.tokenizer)
    prompts = [tuple(ids) for ids in lm.encode([PromptTemplate().ask(e) for e in world.questions(n, seed=1)])]
    lm.generate(prompts[:2], max_new_tokens=32)
    start = clock(device)
    together = lm.generate(prompts, max_new_tokens=32)
    batched = (clock(device) - start) / n
    few = prompts[: max(8, n // 8)]
    start = clock(device)
    alone = [lm.generate([prompt], max_new_tokens=32)[0] for prompt in few]
    single = (clock(device) - start) / len(few)
    return {
        "answers": n,
        "new_tokens": 32,
        "answers_per_s_batched": round(1 / batched, 1),
        "answers_per_s_alone": round(1 / single, 2),
        "ratio": round(single / batched, 2),
        "same_texts": together[: len(few)] == alone,
    }


def real_data(folder: Path):
    with gzip.open(folder / "closed" / "squad_contexts.jsonl.gz", "rt", encoding="utf-8") as file:
        contexts = [json.loads(line) for line in file]
    task = load_task(folder / "qa" / "squad.jsonl.gz", kind="likelihood")
    step = len(task) // 60
    return contexts, replace(task, examples=task.examples[::step][:60])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer questions and repeats")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--data", type=Path, help="folder with qa/ and closed/ in ragscale's schema")
    parser.add_argument("--only", nargs="*", default=[], help="sections whose names contain one of these")
    parser.add_argument("--questions", type=int, default=60, help="of the sections on several stores")
    parser.add_argument("--repeats", type=int, help="3 by default, 1 with --quick")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "evaluation.json")
    arguments = parser.parse_args()
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):  # read when lm-eval imports datasets, below
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HOME", tempfile.mkdtemp(prefix="ragscale-benchmark-"))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    device, quick = arguments.device, arguments.quick
    world = World(600 if quick else 4000)
    module = world.model(device)
    retriever = BM25Retriever().index(world.passages)
    folder = Path(tempfile.mkdtemp(prefix="ragscale-benchmark-"))
    peer: Peer | None = None
    repeats = arguments.repeats or (1 if quick else 3)
    report: dict = {
        "machine": "one GPU" if device == "cuda" else "2 shared CPU cores, one thread",
        "clock": "wall seconds" if device == "cuda" else "CPU seconds",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: __import__(name).__version__ for name in ("transformers", "lm_eval", "ragscale")},
        },
        "model": f"random OLMo-2, {sum(p.numel() for p in module.parameters()):,} parameters, float32",
    }

    if arguments.only and arguments.out.exists():
        report = {**json.loads(arguments.out.read_text(encoding="utf-8")), "versions": report["versions"]}

    def show(name: str, measure: Callable[[], dict]) -> None:
        if arguments.only and not any(part in name for part in arguments.only):
            return
        report[name] = measure() | {"measured_with": report["versions"]["ragscale"]}
        print(f"{name}: {json.dumps(report[name])}", flush=True)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

    def against_peer(name: str, **options) -> dict:
        nonlocal peer
        if peer is None:
            peer = Peer(module, world, device)
            peer.run([harness_task("warm", folder, ["Q:"] * 2, world.questions(2, seed=0))])
        if name == "fixed":
            return fixed_cost(world, module, peer, folder, device=device, **options)
        return compare(name, world, module, peer, folder, device=device, repeats=repeats, k=5, **options)

    show("fixed_cost_per_task", lambda: against_peer("fixed", n_tasks=4 if quick else 12))
    show("closed_book", lambda: against_peer("closed", n=60 if quick else 250, retriever=None))
    show("five_passages", lambda: against_peer("open", n=12 if quick else 30, retriever=retriever))
    show("generation", lambda: generation(world, module, device, n=32 if quick else 128))
    n_asked = 12 if quick else arguments.questions
    task = Task(name="stores", kind="multiple_choice", examples=world.questions(n_asked, seed=3))
    worlds = {"synthetic": (task, retriever)}
    if arguments.data:
        contexts, questions = real_data(arguments.data)
        lengths = [len(ids) for ids in TorchModel(module, world.tokenizer).encode([c["text"] for c in contexts])]
        order = np.random.default_rng(0).permutation(len(contexts)).tolist()
        passages = [Passage(contexts[i]["id"], contexts[i]["text"], lengths[i], contexts[i]["id"]) for i in order]
        template = replace(questions.template, passage_tokens=128)
        real = replace(questions.limit(n_asked), template=template)
        worlds["squad"] = (real, BM25Retriever().index(passages))
    for name, (asked, index) in worlds.items():
        sizes = [0, *(int(index.n_tokens * share) for share in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0))]
        for k, order in ((1, "best_last"), (5, "best_last"), (5, "best_first")):
            ordered = replace(asked, template=replace(asked.template, order=order))
            options = {"device": device, "sizes": sizes, "k": k, "repeats": repeats}
            show(
                f"seven_stores_{name}_k{k}" + ("_best_first" if order == "best_first" else ""),
                lambda t=ordered, i=index, o=options: store_sizes(module, world.tokenizer, t, i, **o),
            )


if __name__ == "__main__":
    main()
