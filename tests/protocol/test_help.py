"""``help()`` of what users call has an example that runs, and what is heavy stays out of a plain fit."""

import inspect
import subprocess
import sys

from protocol_table import public_names

import ragscale

# Why there is no example that could run in a docstring; each is shown on a page or in the gallery instead.
ELSEWHERE = {
    "needs a trained model, or its folder": {
        "load_language_model",
        "prepare_prompts",
        "check_transfer",
        "evaluate_loss",
        "read_metrics",
        "use_ragscale_attention",
        "write_report",
        "reading",
    },
    "needs files of another program": {
        "read_lm_eval",
        "read_paper_csv",
        "read_huggingface",
        "read_parquet",
        "read_datatrove_tokens",
        "datatrove_stages",
        "split_with_datatrove",
    },
    "needs the samples of an evaluation, as in the example of evaluate": {
        "compare_conditions",
        "decompose_gain",
        "per_question",
    },
    "is a step inside of others": {
        "check_windows",
        "cut_windows",
        "passages_digest",
        "query_and_passages",
        "as_source",
        "audit",
        "split_layout",
        "tune_weights",
    },
}


def test_functions_have_an_example_or_a_reason():
    excused = set().union(*ELSEWHERE.values())
    bare = set()
    for name, value in public_names().items():
        ours = inspect.isfunction(value) and value.__module__.startswith("ragscale.")
        if ours and ">>>" not in (inspect.getdoc(value) or ""):
            bare.add(name.split(".")[1])
    assert bare <= excused, f"without an example: {sorted(bare - excused)}"
    assert excused <= bare, f"have one now, so that the excuse can go: {sorted(excused - bare)}"


def test_every_public_name_has_a_docstring():
    names = {**public_names(), **{name: getattr(ragscale, name) for name in ragscale.__all__}}
    silent = [
        name
        for name, value in names.items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and not (inspect.getdoc(value) or "").strip()
    ]
    assert not silent


CODE = """
import sys
import ragscale as rs
import ragscale.fitting
fit = rs.fit_manifold(rs.datasets.simulate("log1p", noise=0.01, rng=0), "log1p")
rs.optimal_allocation(rs.bootstrap(fit, n_resamples=5, rng=0), N=1e9, budget=1e10).summary()
loaded = {"lmfit", "torch", "matplotlib", "transformers", "faiss", "bm25s"} & set(sys.modules)
assert not loaded, loaded
minimizer, parameters = fit.to_lmfit()
assert "lmfit" in sys.modules and parameters["alpha"].value == fit.theta["alpha"]
"""


def test_a_plain_fit_imports_nothing_that_it_does_not_need():
    subprocess.run([sys.executable, "-c", CODE], check=True, timeout=200)
