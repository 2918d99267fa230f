"""The command line does what the functions do, and every error is a sentence."""

import re
import subprocess
import sys

import pandas as pd
import pytest

from ragscale import ManifoldFit, datasets, fit_manifold, optimal_allocation, results
from ragscale._cli import main
from ragscale._cli._main import parser

WORLD = """
corpus: {synthetic: {n_documents: 400, n_entities: 20, n_questions: 5, n_bands: 2}}
models: [{n_layers: 1, d_model: 16, n_heads: 2, d_ff: 32, name: tiny}]
D: [4e3]
R: [3_000]
tokenizer: 300
validation_tokens: 500
passage_tokens: 48
k: 1
training: {seq_len: 128, batch_tokens: 256, allow_short_runs: yes, precision: fp32}
"""


@pytest.fixture
def table(tmp_path):
    made = datasets.simulate("log1p", noise=0.01, rng=0)
    results.write(made, tmp_path / "results.csv")
    return tmp_path / "results.csv"


def run(capsys, *arguments):
    """Return (exit status, standard output, standard error)."""
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_module_is_the_command_and_its_help_names_what_there_is():
    ended = subprocess.run([sys.executable, "-m", "ragscale", "--help"], capture_output=True, text=True, check=True)
    for name in ("fit", "study", "datasets"):
        assert re.search(rf"^\s+{name}\s", ended.stdout, re.MULTILINE)
    alone = subprocess.run([sys.executable, "-m", "ragscale"], capture_output=True, text=True, check=True)
    assert alone.stdout == ended.stdout


@pytest.mark.parametrize(
    "command", ["fit", "study", "datasets", "study plan", "study run", "study status", "study report"]
)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: ragscale {command}" in text
    assert len(text.splitlines()) > 8


def test_help_needs_nothing_heavy():
    heavy = ("numpy", "pandas", "torch")
    code = (
        f"import sys; from ragscale._cli._main import parser; parser(); print([m for m in {heavy} if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
    assert parser().prog == "ragscale"


def test_fit_says_what_the_function_says(table, tmp_path, capsys):
    status, out, _ = run(
        capsys,
        "fit",
        table,
        "--law",
        "log1p",
        "--budget",
        "50e9",
        "5e9",
        "--resamples",
        0,
        "--out",
        tmp_path / "f.json",
    )
    fit = fit_manifold(results.read(table), law="log1p")
    best = optimal_allocation(fit, N=float(results.read(table)["N"].max()), budget=[50e9, 5e9])
    assert status == 0
    assert fit.summary() in out
    assert best.summary() in out
    pd.testing.assert_frame_equal(ManifoldFit.from_json(tmp_path / "f.json").params, fit.params)


def test_fit_gives_intervals_and_takes_sizes(table, capsys):
    status, out, _ = run(
        capsys, "fit", table, "--law", "log1p", "--budget", "5e9", "--N", "1e9", "2e9", "--resamples", 20
    )
    assert status == 0
    assert out.count("pretrain on") == 2
    assert re.search(r"\d to [\d.]+% of the budget", out)


def test_fit_keeps_the_rows_that_are_asked_for(tmp_path, capsys):
    made = datasets.simulate("log1p", noise=0.01, rng=0)
    both = pd.concat([made.assign(metric="nll", n_shot=n, value=made["value"] + n) for n in (0, 5)])
    results.write(pd.concat([both, both.assign(metric="other")]), tmp_path / "r.csv")
    status, out, _ = run(capsys, "fit", tmp_path / "r.csv", "--law", "log1p", "--metric", "nll", "--where", "n_shot=5")
    assert status == 0
    expected = fit_manifold(made.assign(value=made["value"] + 5, metric="nll", n_shot=5), law="log1p")
    assert expected.summary().splitlines()[4:] == out.splitlines()[4 : 4 + len(expected.summary().splitlines()[4:])]


def test_the_laws_are_listed(capsys):
    status, out, _ = run(capsys, "fit", "--laws")
    assert status == 0
    assert "log1p" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fit",), "ragscale fit results.csv"),
        (("fit", "nothing.csv"), "nothing.csv"),
        (("fit", "{table}", "--law", "log2p"), "log2p"),
        (("fit", "{table}", "--budget", "lots"), "--budget"),
        (("fit", "{table}", "--N", "1e9"), "--budget"),
        (("fit", "{table}", "--where", "k"), "COLUMN=VALUE"),
        (("fit", "{table}", "--where", "N=x"), "holds numbers"),
        (("fit", "{table}", "--resamples", "-1"), "--resamples"),
        (("datasets", "no-such-table"), "no-such-table"),
        (("study", "plan", "nothing.yaml"), "there is no such file"),
        (("study", "plan", "{study}", "--price", "cheap"), "--price"),
        (("study", "plan", "{study}", "--devices", "0"), "--devices"),
        (("study", "plan", "{study}", "--device", "H900"), "H900"),
        (("study", "run", "{study}", "--until", "lunch"), "lunch"),
        (("study", "run", "{study}", "--workers", "-2"), "--workers"),
        (("study", "status", "{folder}"), "holds no study"),
    ],
)
def test_errors_are_sentences_and_the_status_is_one(arguments, said, table, tmp_path, capsys):
    study = tmp_path / "study.yaml"
    study.write_text(WORLD)
    (tmp_path / "empty").mkdir()
    places = {"table": table, "study": study, "folder": tmp_path / "empty"}
    status, _, err = run(capsys, *(text.format(**places) for text in arguments))
    assert status == 1
    assert err.startswith("ragscale: ")
    assert said in err
    assert "Traceback" not in err


def test_a_dataset_is_shown_and_written_and_fitted(tmp_path, capsys):
    status, out, _ = run(capsys, "datasets")
    assert status == 0
    assert set(datasets.list().index) <= set(out.split())
    assert run(capsys, "datasets", "gemstones")[0] == 0
    status, out, _ = run(capsys, "datasets", "gemstones", "--out", tmp_path / "g.csv")
    assert status == 0
    assert len(results.read(tmp_path / "g.csv")) == len(datasets.load("gemstones"))


def test_a_study_from_a_file_to_a_report(tmp_path, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib").use("Agg")
    path = tmp_path / "world.yaml"
    path.write_text(WORLD)
    status, out, _ = run(capsys, "study", "plan", path, "--device", "H100", "--devices", 2, "--price", 2.5, "--cells")
    assert status == 0
    for text in ("2 x H100", "at 2.5 an hour", "GiB of disk", "tiny", "estimated"):
        assert text in out
    assert not (tmp_path / "world").exists(), "a plan leaves nothing behind"
    assert "waiting" in run(capsys, "study", "status", path)[1]
    status, out, err = run(capsys, "study", "run", path, "--until", "retrieve")
    assert (status, err) == (0, "")
    status, out, _ = run(capsys, "study", "run", path)
    assert status == 0
    assert "all is done" in out
    status, out, _ = run(capsys, "study", "status", tmp_path / "world", "--jobs")
    assert status == 0
    assert "tiny seed 0 D 4000" in out
    assert run(capsys, "study", "report", path, "--out", tmp_path / "r.md")[0] == 0
    assert (tmp_path / "r.md").read_text().startswith("# ")
    assert run(capsys, "fit", tmp_path / "world", "--metric", "nll_per_token", "--law", "log1p")[0] in {0, 1}


def test_a_study_in_which_something_failed_says_so_and_ends_with_one(tmp_path, capsys):
    pytest.importorskip("torch")
    path = tmp_path / "world.yaml"
    path.write_text(WORLD.replace("precision: fp32", "precision: fp32, eos_id: 9999"))
    status, out, err = run(capsys, "study", "run", path, "--directory", tmp_path / "here")
    assert status == 1
    assert "failed: train tiny seed 0" in out
    assert "failed.json" in out
    assert "StudyWarning: 1 of 6 jobs failed" in err
