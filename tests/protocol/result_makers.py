"""One of each kind of public result, made the way that users make it."""

from functools import cache

import numpy as np
import pandas as pd

import ragscale as rs
from ragscale.passages import Document
from ragscale.results import hit_rate_curve


@cache
def table():
    return rs.datasets.simulate("hill", noise=0.01, rng=0)


@cache
def fit():
    return rs.fit_manifold(table(), "hill")


@cache
def boot():
    return rs.bootstrap(fit(), n_resamples=20, rng=0)


@cache
def reader():
    return rs.fit_manifold(rs.datasets.simulate_reading(model_noise=0.002, row_noise=0.001, rng=0), "reading")


@cache
def joint():
    both = pd.concat([table().assign(task="a"), table().assign(task="b", value=1.1 * table()["value"])])
    return rs.fit_manifold(both, "log1p", over="task", shared=("alpha",))


def evaluation():
    rows = {"N": 1e6, "D": 1e7, "R": [0, 1e6], "task": "squad", "metric": "accuracy", "value": [0.2, 0.3]}
    results = pd.DataFrame(rows | {"condition": ["closed-book", "retrieved"], "stderr": [0.01, 0.02]})
    samples = pd.DataFrame({"question": ["q1", "q2"], "correct": [True, False]})
    return rs.evaluation.Evaluation(results, samples, {"model": "tiny", "k": 3})


def plan():
    stages = pd.DataFrame({"stage": ["train", "total"], "jobs": 1, "device_hours": 2.0, "cpu_hours": 0.5})
    stages = stages.assign(money=np.nan, memory_gib=1.0, disk_gib=0.1)
    cells = {"model": "6M", "N": 6e6, "D": 1e7, "R": [0, 1e6], "train_tokens": 1e7, "train_flops": 1e15}
    return rs.study.StudyPlan(cells=pd.DataFrame(cells), stages=stages, wall_hours=2.0, device="H100")


def better(store):
    return 1 - 0.5 * (1 - np.asarray(reader().hit_rate(store)))


def audit(folder):
    texts = [Document(str(i), f"document number {i} speaks of {i * i} and of {i % 7}") for i in range(40)]
    tokenizer = rs.splitting.train_tokenizer([document.text for document in texts], 300)
    return rs.split_corpus(texts, folder / "split", tokenizer=tokenizer, progress=False).audit(measure=False)


def tuning():
    scores = pd.DataFrame({"bm25": [1.0, 0.5], "dense": [0.0, 0.5], "score": [0.3, 0.4]})
    fusion = rs.retrieval.weighted_sum((0.5, 0.5))
    return rs.retrieval.Tuning(fusion=fusion, weights=(0.5, 0.5), score=0.4, table=scores)


MAKERS = {
    "decisions.Allocation": lambda _: rs.optimal_allocation(boot(), N=[1e8, 1e9], budget=1e10),
    "decisions.Estimate": lambda _: rs.exchange_rate(boot(), N=1e9, D=[1e9, 1e10], R=1e9),
    "decisions.FitComparison": lambda _: rs.compare_fits({"a": boot(), "b": boot()}, n_resamples=20),
    "decisions.Knee": lambda _: rs.knee_point(boot(), N=[1e8, 1e9]),
    "decisions.NextRuns": lambda _: rs.next_runs(
        table()[["N", "D", "R", "value"]],
        pd.DataFrame({"N": [1e8, 1e9], "D": [1e11, 1e11]}),
        budget_flops=1e21,
        law="hill",
    ),
    "decisions.Substitution": lambda _: rs.substitution(table(), boot()),
    "decisions.Threshold": lambda _: rs.reading_threshold(rs.datasets.load("ragscale-gpu"), by="D"),
    "decisions.Worth": lambda _: rs.decisions.worth_of(better, over=reader().hit_rate, fit=reader()),
    "evaluation.Evaluation": lambda _: evaluation(),
    "fitting.Bootstrap": lambda _: boot(),
    "fitting.Calibration": lambda _: rs.fitting.backtest(fit(), n_resamples=20),
    "fitting.Comparison": lambda _: rs.compare_laws(table().iloc[::3], ["chinchilla", "log1p"]),
    "fitting.CrossValidation": lambda _: rs.cross_validate(table(), "hill", leave_out="N"),
    "fitting.Diagnostics": lambda _: fit().diagnostics,
    "fitting.Evidence": lambda _: reader().evidence,
    "fitting.JointBootstrap": lambda _: rs.bootstrap(joint(), n_resamples=20, rng=0),
    "fitting.JointFit": lambda _: joint(),
    "fitting.ManifoldFit": lambda _: fit(),
    "fitting.Paired": lambda _: reader().evidence.largest,
    "fitting.PaperFit": lambda _: rs.fitting.fit_paper(table(), "log"),
    "fitting.Profile": lambda _: rs.fitting.profile(fit(), "alpha", n_points=5),
    "fitting.RetrievalEffect": lambda _: fit().diagnostics.retrieval,
    "fitting.Verdict": lambda _: fit().verdict,
    "results.HitRateCurve": lambda _: hit_rate_curve({1e6: 0.1, 1e7: 0.3, 1e8: 0.5}, n_questions=400),
    "retrieval.Tuning": lambda _: tuning(),
    "splitting.AuditReport": audit,
    "study.StudyPlan": lambda _: plan(),
}
