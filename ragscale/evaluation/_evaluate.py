"""Score a model on question sets: closed book, with every size of store, with the gold passage, with unrelated text."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from ragscale._counts import as_count
from ragscale._files import check_fields, damaged, read_json, value_digest, write_json
from ragscale.errors import CheckpointError, ConfigError, EvaluationWarning
from ragscale.evaluation import _answers
from ragscale.evaluation._evaluation import Evaluation
from ragscale.evaluation._language_model import LanguageModel, ScoreRequest
from ragscale.evaluation._metrics import summarise
from ragscale.evaluation._models import load_language_model
from ragscale.evaluation._prepare import Cell, PreparedPrompts, Prompt, as_dict, prepare_prompts, scored_texts
from ragscale.evaluation._prompts import PromptTemplate
from ragscale.evaluation._queries import GoldInQuery, QueryRule
from ragscale.evaluation._tasks import Task
from ragscale.results import higher_is_better

if TYPE_CHECKING:
    from ragscale._typing import Tokenizer
    from ragscale.evaluation._models import ModelLike
    from ragscale.passages import Passage
    from ragscale.retrieval import Retriever

_SCHEMA, _VERSION = "ragscale-evaluation-cell", 1


def evaluate(
    model: ModelLike,
    tasks: Task | PreparedPrompts | str | os.PathLike[str] | Iterable[Any],
    *,
    retriever: Retriever | None = None,
    store_tokens: Sequence[int] | int = (0,),
    k: int = 5,
    condition: str | Sequence[str] = "retrieved",
    n_iterations: int = 1,
    n_shot: int = 0,
    batch_tokens: int | None = None,
    seed: int = 0,
    template: PromptTemplate | None = None,
    query: str | QueryRule | GoldInQuery = "question",
    gold: Mapping[str, str] | Iterable[Passage] | None = None,
    pmi: bool = False,
    coverage: bool = True,
    max_length: int | None = None,
    out: str | os.PathLike[str] | None = None,
    tokenizer: Tokenizer | None = None,
    device: str = "auto",
    precision: str | None = None,
    N: float | None = None,
    D: float | None = None,
    model_seed: int | None = None,
) -> Evaluation:
    """Score a model on question sets, without retrieval and with every size of store.

    Parameters
    ----------
    model : LanguageModel, Checkpoint, Hugging Face model, torch module, path or hub name
        What to evaluate. A bare module needs ``tokenizer``.
    tasks : Task, path or task name (see `load_task`), several of them, or PreparedPrompts
        What to ask. For several models with one tokenizer call `prepare_prompts` once and give its result; the
        arguments that shape prompts then belong there.
    retriever : Retriever, optional
        Already indexed.
    store_tokens : int or sequence of int
        Sizes R of the store in unique tokens; 0 is the closed book. All sizes cost one search.
    k : int
        Passages in a prompt.
    condition : {"retrieved", "closed-book", "oracle", "random"}, or several
        ``retrieved``: the k best passages of each store (and the closed book for R = 0); ``oracle``: the gold passage;
        ``random``: k passages of the smallest store that hold no answer, which separates evidence from the cost of a
        longer prompt.
    n_iterations : int
        Rounds of retrieval: above 1 the query is expanded by what was found and searched again, see
        `IterativeRetriever`. Rows then say so in the column ``n_iterations``.
    n_shot : int
        Worked examples in the prompt.
    batch_tokens : int, optional
        Tokens in a batch; results do not depend on it.
    seed : int
        For unrelated passages and worked examples.
    template : PromptTemplate, optional
        Instead of the tasks' own.
    query : str or function
        ``"question"``, ``"question_and_choices"``, or a function of the example, which is shown without its answers.
        Only ``"gold_in_query"`` or `GoldInQuery` see the gold answer, and mark their rows.
    gold : mapping of passage id to text, or passages, optional
        Where ``Example.gold_passages`` are found, if not in the retriever.
    pmi : bool
        Also score every choice after nothing, for ``accuracy_pmi``.
    coverage : bool
        Look for the answers in the whole store, not only among the k passages.
    max_length : int, optional
        Fit prompts into fewer tokens than the model reads.
    out : path, optional
        Directory for finished cells, one (task, condition, R) each. A call that finds them does not do them again.
    tokenizer, device : optional
        For a bare module; where to load a model from a path.
    precision : {"auto", "float32", "bf16", "fp16"}, optional
        Of the matrix products of a torch model. ``"auto"`` (the default unless the model says otherwise) is float32
        on a CPU; on a GPU it takes a narrower format only where that hardly moves this model's log-probabilities on a
        sample of the prompts (see `TorchModel`). ``info["precision"]`` holds what ran and what was measured.
    N, D, model_seed : optional
        For the results table, where the model does not know them: parameters, pretraining tokens, training seed.

    Returns
    -------
    Evaluation

    Raises
    ------
    ConfigError, TaskError
        Listing every problem of the arguments or the tasks.

    Examples
    --------
    ``rs.evaluate("checkpoints/30M-600M", ["sciq.jsonl"], retriever=bm25, store_tokens=[0, 10**6, 10**7]).results``

    Examples
    --------
    >>> import ragscale as rs
    >>> from ragscale.evaluation import Example, LanguageModel, Score, Task, compare_conditions
    >>> class Even(LanguageModel):
    ...     max_length, prefix_token = 4096, 0
    ...     def _encode(self, texts):
    ...         return [list(text.encode()) for text in texts]
    ...     def _decode(self, tokens):
    ...         return [bytes(line).decode() for line in tokens]
    ...     def _score(self, requests):
    ...         lengths = [[len(tokens) for tokens in request.continuations] for request in requests]
    ...         return [Score(tuple(-5.5 * n for n in line), (False,) * len(line)) for line in lengths]
    ...     def _generate(self, prompts, max_new_tokens, stop):
    ...         return [""] * len(prompts)
    >>> questions = (
    ...     Example(id="1", question="What rises twice a day?", answers=("The sea",)),
    ...     Example(id="2", question="What circles the earth?", answers=("The moon",)),
    ... )
    >>> task = Task(name="tides", kind="likelihood", examples=questions)
    >>> store = [rs.Passage("p1", "The sea rises twice a day.", 6, "a"), rs.Passage("p2", "The moon is far.", 4, "b")]
    >>> retriever = rs.retrieval.BM25Retriever().index(store)
    >>> found = rs.evaluate(Even(), [task], retriever=retriever, store_tokens=[0, 10], k=1, N=1e3, D=1e4)
    >>> print(found.summary())
    18 results from 4 samples of Even
    tides: nll_per_byte closed-book 6.24, retrieved R=10 6.24
    >>> compare_conditions(found.samples, rng=0)["difference"].tolist()
    [0.0]
    """
    N, D = (None if value is None else float(as_count(name, value)) for name, value in (("N", N), ("D", D)))
    model_seed = None if model_seed is None else as_count("model_seed", model_seed)
    batch_tokens = None if batch_tokens is None else as_count("batch_tokens", batch_tokens, least=1)
    loaded = load_language_model(
        model,
        tokenizer=tokenizer,
        device=device,
        batch_tokens=batch_tokens,
        max_length=max_length,
        precision=precision,
    )
    lm = loaded.model
    if isinstance(tasks, PreparedPrompts):
        shaping = {
            "retriever": (retriever, None),
            "store_tokens": (store_tokens, (0,)),
            "k": (k, 5),
            "condition": (condition, "retrieved"),
            "n_iterations": (n_iterations, 1),
            "n_shot": (n_shot, 0),
            "seed": (seed, 0),
            "template": (template, None),
            "query": (query, "question"),
            "gold": (gold, None),
            "pmi": (pmi, False),
            "coverage": (coverage, True),
            "max_length": (max_length, None),
        }
        given = [name for name, (value, default) in shaping.items() if value is not default and value != default]
        if given:
            raise ConfigError(f"the prompts are prepared already: give {', '.join(given)} to prepare_prompts")
        prepared = tasks
    else:
        prepared = prepare_prompts(
            tasks,
            lm,
            retriever=retriever,
            store_tokens=store_tokens,
            k=k,
            condition=condition,
            n_iterations=n_iterations,
            n_shot=n_shot,
            seed=seed,
            template=template,
            query=query,
            gold=gold,
            pmi=pmi,
            coverage=coverage,
            max_length=max_length,
        )
    if prepared.tokenizer != lm.tokenizer_fingerprint():
        raise ConfigError("these prompts were prepared with another tokenizer than this model's: prepare them again")
    if prepared.max_length > lm.max_length:
        raise ConfigError(f"prompts of up to {prepared.max_length} tokens, but the model reads {lm.max_length}")
    identity = {
        "N": loaded.N if N is None else N,
        "D": loaded.D if D is None else D,
        "N_total": loaded.N_total,
        "seed": loaded.seed if model_seed is None else model_seed,
    }
    samples = _run(lm, prepared, Path(out) if out is not None else None)
    evaluation = Evaluation(
        _results(samples, prepared, identity),
        samples.assign(**identity),
        {
            **prepared.settings,
            "scoring": getattr(lm, "scoring", type(lm).__name__),
            "precision": _precision(lm, samples),
            "path": getattr(lm, "path", None),
            "model": loaded.name,
        },
    )
    _warn_about_cuts(samples)
    return evaluation


def _precision(model: LanguageModel, samples: pd.DataFrame) -> dict[str, Any]:
    """Return what the samples were scored in, those of an earlier call too, and what "auto" measured in this one."""
    chosen = getattr(model, "precision_chosen", None)
    used = sorted({name for name in samples["precision"].tolist() if isinstance(name, str)})
    return {**(chosen.as_dict() if chosen is not None else {}), "used": used[0] if len(used) == 1 else used}


# -------------------------------------------------------------------------------------------------------- running cells


def _run(model: LanguageModel, prepared: PreparedPrompts, out: Path | None) -> pd.DataFrame:
    """Score cell after cell; prompts that an earlier cell had, or that a finished cell on disk holds, are not run."""
    known: dict[str, dict[str, Any]] = {}
    fingerprint = model.fingerprint() if out is not None else ""
    tables: list[list[dict[str, Any]]] = []
    before: set[str | None] = set()  # precisions of cells that are finished already
    for place, cell in enumerate(prepared.cells):
        path = _cell_path(out, cell, fingerprint) if out is not None else None
        rows = _read_cell(path) if path is not None else None
        if rows is None:
            used = _choose_precision(model, prepared, before)
            cells = [cell] if out is not None else _together(model, prepared, prepared.cells[place:], known)
            _score_missing(model, prepared, cells, known, used)
            _write_answers(model, prepared, cell, known)
            rows = [_sample(cell, prepared, asked, known) for asked in cell.asked]
            if path is not None:
                write_json(path, {"samples": rows}, schema=_SCHEMA, version=_VERSION)
        else:
            before |= {row.get("precision") for row in rows}
            for row in rows:
                names = ("logprobs", "greedy", "generated", "precision")
                known.setdefault(row["prompt"], {name: row.get(name) for name in names})
                if row["unconditional_prompt"] is not None:
                    alone = {"logprobs": row["unconditional_logprobs"], "greedy": None, "generated": None}
                    alone["precision"] = row.get("precision")
                    known.setdefault(row["unconditional_prompt"], alone)
            # only the scores are taken from disk: what else a row says follows from the question and from them
            with damaged(path or ""):
                rows = [_sample(cell, prepared, asked, known) for asked in cell.asked]
        tables.append(rows)
    return pd.DataFrame([row for rows in tables for row in rows])


def _choose_precision(model: LanguageModel, prepared: PreparedPrompts, before: set[str | None]) -> str | None:
    """Let the model choose on all prompts; a resumed evaluation goes on as it began."""
    choose = getattr(model, "choose_precision", None)
    if choose is None:
        return None
    if len(before) == 1 and isinstance(name := next(iter(before)), str) and hasattr(model, "keep_precision"):
        cast(Any, model).keep_precision(name)
    return choose([request for prompt in prepared.prompts.values() for request in prompt.requests]).used


def _cell_path(out: Path, cell: Cell, fingerprint: str) -> Path:
    key = value_digest([cell.digest, fingerprint])[:16]
    name = re.sub(r"[^\w.-]+", "_", f"{cell.task.name}-{cell.condition}-R{cell.R}")
    return out / f"{name}-{key}.json"


_MOST_TOGETHER = 2**22  # tokens of the prompts of one call: some 200 MB of rows

_RESUMED = {
    "prompt": str,
    "logprobs": (list, type(None)),
    "greedy": (list, type(None)),
    "generated": (str, type(None)),
    "unconditional_prompt": (str, type(None)),
    "unconditional_logprobs": (list, type(None)),
}


def _read_cell(path: Path) -> list[dict[str, Any]] | None:
    """Return the rows of a finished cell, whose scores are lists of numbers, as many as there were texts."""
    if not path.exists():
        return None
    samples = read_json(path, schema=_SCHEMA, version=_VERSION, fields={"samples": list})["samples"]
    for number, row in enumerate(samples):
        name = f"{path}, sample {number}"
        check_fields(row, _RESUMED, name=name)
        check_fields({"precision": row.get("precision")}, {"precision": (str, type(None))}, name=name)
        lists = [row[key] for key in ("logprobs", "greedy", "unconditional_logprobs") if row[key] is not None]
        lengths = {len(scores) for scores in lists}
        if len(lengths) > 1 or not all(isinstance(score, bool | int | float) for part in lists for score in part):
            raise CheckpointError(f"{name} is damaged: its scores are not lists of numbers of one length")
    return samples


def _together(
    model: LanguageModel, prepared: PreparedPrompts, cells: Sequence[Cell], known: Mapping[str, Any]
) -> list[Cell]:
    """Return the cells to score in one call: the first, and the next ones where prompts may share tokens with it."""
    if not getattr(model, "shares_prefixes", False):
        return list(cells[:1])
    together, left = [], _MOST_TOGETHER
    for cell in cells:
        new = {a.prompt for a in cell.asked} - known.keys()
        left -= sum(len(request.context) for digest in new for request in prepared.prompts[digest].requests)
        if together and left < 0:
            break
        together.append(cell)
    return together


def _score_missing(
    model: LanguageModel,
    prepared: PreparedPrompts,
    cells: Sequence[Cell],
    known: dict[str, dict[str, Any]],
    precision: str | None,
) -> None:
    """Score the prompts of cells that nobody has scored yet."""
    digests = (d for cell in cells for asked in cell.asked for d in (asked.prompt, asked.unconditional))
    wanted = dict.fromkeys(digest for digest in digests if digest is not None)
    prompts = [prepared.prompts[digest] for digest in wanted if digest not in known]
    requests: list[ScoreRequest] = [r for prompt in prompts for r in prompt.requests if r.continuations]
    scores = iter(model.score(requests))
    for prompt in prompts:
        mine = [next(scores) for r in prompt.requests if r.continuations]
        columns = zip(*(score.logprobs for score in mine), strict=True)
        greedy = zip(*(score.greedy for score in mine), strict=True)
        known[prompt.digest] = {
            "logprobs": [sum(column) for column in columns],
            "greedy": [all(column) for column in greedy],
            "generated": None,
            "precision": precision,
        }


def _write_answers(
    model: LanguageModel, prepared: PreparedPrompts, cell: Cell, known: dict[str, dict[str, Any]]
) -> None:
    """Let the model write the answers of a cell that nobody has asked for yet."""
    prompts = [prepared.prompts[digest] for digest in dict.fromkeys(asked.prompt for asked in cell.asked)]
    writing: list[Prompt] = [p for p in prompts if p.generate and known[p.digest]["generated"] is None]
    if writing:
        task = cell.task
        contexts = [prompt.requests[0].context for prompt in writing]
        texts = model.generate(contexts, max_new_tokens=task.max_new_tokens, stop=task.stop)
        for prompt, text in zip(writing, texts, strict=True):
            known[prompt.digest]["generated"] = text


def _sample(cell: Cell, prepared: PreparedPrompts, asked: Any, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    task, example = cell.task, prepared.scored[cell.task.name][asked.example]
    prompt, score = prepared.prompts[asked.prompt], known[asked.prompt]
    alone = None if asked.unconditional is None else known[asked.unconditional]["logprobs"]
    whole_text = task.kind == "text" and task.prefix_words == 0
    texts = (example.question,) if whole_text else scored_texts(task, example)
    n_tokens = [sum(sizes) for sizes in zip(*(map(len, r.continuations) for r in prompt.requests), strict=True)]
    written, regex = score["generated"], example.answer_type == "regex"
    return {
        "task": task.name,
        "id": example.id,
        "kind": task.kind,
        "condition": cell.condition,
        "R": cell.R,
        "logprobs": _of_equal_texts(score["logprobs"], texts),
        "n_tokens": n_tokens,
        "n_bytes": [len(text.encode()) for text in texts],
        "n_chars": [len(text) for text in texts],
        "n_words": len(re.split(r"\s+", texts[0])) if task.kind == "text" else None,
        "greedy": score["greedy"],
        "unconditional_logprobs": None if alone is None else _of_equal_texts(alone, texts),
        "gold_index": example.answer_index if example.choices and task.kind in ("multiple_choice", "yes_no") else 0,
        "generated": written,
        "precision": score["precision"],
        "exact_match": None if written is None else _known(_answers.exact_match(written, example.answers, regex=regex)),
        "f1": None if written is None or regex else _answers.f1(written, example.answers),
        "contains": None if written is None else _known(_answers.contains(written, example.answers, regex=regex)),
        "hit": asked.hit,
        "answer_in_store": asked.in_store,
        "passages": list(asked.passages),
        "n_prompt_tokens": asked.n_prompt_tokens,
        **as_dict(asked.cut),
        "cut": asked.cut.any,
        "prompt": asked.prompt,
        "unconditional_prompt": asked.unconditional,
    }


def _of_equal_texts(logprobs: list[float], texts: Sequence[str]) -> list[float]:
    """Give equal choices one value, so that their tie is exact whatever batch they were computed in."""
    return [logprobs[texts.index(text)] for text in texts] if len(set(texts)) < len(texts) else logprobs


def _known(score: float) -> float | None:
    return None if math.isnan(score) else score


# -------------------------------------------------------------------------------------------------------------- results


def _results(samples: pd.DataFrame, prepared: PreparedPrompts, identity: Mapping[str, Any]) -> pd.DataFrame:
    settings = prepared.settings
    rows: list[dict[str, Any]] = []
    start = 0
    for cell in prepared.cells:
        mine = samples.iloc[start : start + len(cell.asked)]
        start += len(cell.asked)
        with_evidence = cell.condition != "closed-book"
        from_store = cell.condition not in ("closed-book", "oracle")
        shared = {
            "k": settings["k"] if with_evidence else 0,
            "retriever": settings["retriever"] if from_store else "none",
            "query": settings["query"] if cell.condition.startswith("retrieved") else "none",
            "n_shot": settings["n_shot"],
            **({"n_iterations": settings["n_iterations"] if from_store else 1} if "n_iterations" in settings else {}),
            "hit_rate": _share(mine["hit"].tolist()),
            "answer_in_store": _share(mine["answer_in_store"].tolist()),
            "n_cut": sum(mine["cut"].tolist()),
            "n_left_out": len(cell.left_out),
            "prompts": cell.digest[:12],
        }
        rows += [
            {
                "N": identity["N"],
                "D": identity["D"],
                "R": float(cell.R),
                "value": metric.pop("value"),
                "task": cell.task.name,
                "metric": metric["metric"],
                "higher_is_better": higher_is_better(metric.pop("metric")),
                "seed": identity["seed"],
                "N_total": identity["N_total"],
                "condition": cell.condition,
                **metric,
                **shared,
            }
            for metric in summarise(mine)
        ]
    return pd.DataFrame(rows)


def _share(column: Sequence[Any]) -> float:
    known = [float(value) for value in column if not pd.isna(value)]
    return sum(known) / len(known) if known else float("nan")


def _warn_about_cuts(samples: pd.DataFrame) -> None:
    for column, what in (("n_question_tokens_cut", "the question"), ("n_answer_tokens_cut", "an answer")):
        rows = samples.loc[samples[column] > 0, ["id", "task"]].to_numpy().tolist()
        if rows:
            first, task = rows[0]
            warnings.warn(
                f"{len(rows)} prompts did not fit even without passages: {what} was cut (the first: question "
                f"{first!r} of {task!r}); the column {column!r} of the samples counts the tokens",
                EvaluationWarning,
                stacklevel=3,
            )
