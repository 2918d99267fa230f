"""Result files of every layout that lm-eval has written since 0.3 give the same rows; what is not known is a gap."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest

from ragscale.errors import ResultsError, ResultsWarning
from ragscale.results import higher_is_better, read_lm_eval

HERE = Path(__file__).parent / "lm_eval"
COUNTS = {"N": 7e7, "D": 6.3e9, "R": 0}
LAYOUTS = ["0.3.0", "0.4.0", "0.4.1", "0.4.2", "0.4.5", "0.4.9", "latest"]
COUNTED = {"0.4.5", "0.4.9", "latest"}


def _read(path: Path, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not finite", category=ResultsWarning)
        return read_lm_eval(path, **COUNTS, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_read_from_the_folder_and_from_its_file(layout):
    folder = _read(HERE / layout)
    (file,) = (HERE / layout).rglob("*.json")
    assert folder.equals(_read(file))
    sciq = folder[(folder["task"] == "sciq") & (folder["metric"] == "acc")].iloc[0]
    assert (sciq["value"], sciq["stderr"], sciq["n_shot"], sciq["higher_is_better"]) == (0.55, 0.016, 0, True)
    assert (sciq["n_examples"] == 1000) if layout in COUNTED else sciq["n_examples"] != sciq["n_examples"]
    assert "mmlu" not in set(folder["task"])


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_group_averages_come_only_when_asked_for(layout):
    table = _read(HERE / layout, groups=True)
    assert table.loc[table["task"] == "mmlu", "value"].tolist() == [0.25]
    assert set(_read(HERE / layout)["task"]) >= {"mmlu_a", "mmlu_b", "sciq"}


def test_the_average_of_the_old_leaderboard_is_no_task():
    assert _read(HERE / "leaderboard")["task"].tolist() == ["harness|sciq|0"]


def test_directions_come_from_the_names_where_the_file_has_none():
    table = _read(HERE / "0.3.0").set_index(["task", "metric"])["higher_is_better"]
    assert not table["lambada_openai", "ppl"]
    assert not table["wikitext", "bits_per_byte"]
    assert table["sciq", "acc_norm"]


def test_filters_are_kept_apart_with_their_own_counts():
    rows = _read(HERE / "latest").query("task == 'gsm8k'").set_index("filter")
    assert rows["value"].to_dict() == {"strict-match": 0.01, "flexible-extract": 0.02}
    assert rows["n_examples"].to_dict() == {"strict-match": 1319, "flexible-extract": 1300}


def test_an_infinite_perplexity_is_left_out_and_named():
    with pytest.warns(ResultsWarning, match="wikitext word_perplexity = inf"):
        table = read_lm_eval(HERE / "latest", **COUNTS)
    assert set(table.loc[table["task"] == "wikitext", "metric"]) == {"bits_per_byte"}
    assert higher_is_better(table[table["task"] == "wikitext"]) is False


def _copy(folder: Path, name: str, source: str, **changes) -> Path:
    (file,) = (HERE / source).rglob("*.json")
    content = {**json.loads(file.read_text()), **changes}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "other",
    [
        {"config": {"model_args": "pretrained=EleutherAI/pythia-12b,revision=step3000"}},
        {"config": {"model_args": "pretrained=EleutherAI/pythia-70m,revision=step143000"}},
        {"config": {"model_args": {"pretrained": "EleutherAI/pythia-70m", "revision": "step3000", "peft": "mine"}}},
        {"config": {}, "model_name": "EleutherAI/pythia-12b"},
    ],
)
def test_two_models_or_checkpoints_in_one_folder_are_refused_by_name(tmp_path, other):
    _copy(tmp_path / "a", "results_2024-01-01T00-00-00.json", "0.4.5")
    _copy(tmp_path / "b", "results_2024-01-02T00-00-00.json", "0.4.5", **other)
    with pytest.raises(ResultsError, match=r"2 models.*pythia-70m"):
        read_lm_eval(tmp_path, **COUNTS)
    assert len(read_lm_eval(tmp_path / "a", **COUNTS)) == 3


def test_a_model_given_as_an_object_has_no_name_to_differ_by(tmp_path):
    for day, name in enumerate(("drawn-1", "drawn-2"), start=1):
        _copy(tmp_path, f"results_2024-01-0{day}T00-00-00.json", "0.4.5", config={"model_args": None}, model_name=name)
    with pytest.warns(ResultsWarning, match="the newest is taken"):
        assert len(read_lm_eval(tmp_path, **COUNTS)) == 3


def test_the_newest_file_wins_by_the_date_inside_too(tmp_path):
    for date in (1.7e9, 1.8e9, 1.75e9):
        results = {"sciq": {"acc,none": date / 1e10}}
        _copy(tmp_path / f"{date:.0f}", "results.json", "0.4.1", results=results, date=date)
    with pytest.warns(ResultsWarning, match="the newest is taken"):
        assert read_lm_eval(tmp_path, **COUNTS)["value"].tolist() == [0.18]


def test_files_without_any_date_that_repeat_a_task_are_refused(tmp_path):
    for name in ("first", "second"):
        _copy(tmp_path / name, "results.json", "0.4.0")
    with pytest.raises(ResultsError, match="no date says which is newer"):
        read_lm_eval(tmp_path, **COUNTS)


def test_other_json_in_the_folder_is_passed_over(tmp_path):
    shutil.copy(HERE / "0.3.0" / "pythia-70m_step3000.json", tmp_path / "pythia.json")
    (tmp_path / "notes.json").write_text('{"results": {"a": 1}}')
    (tmp_path / "broken.json").write_text("{")
    assert len(read_lm_eval(tmp_path, **COUNTS)) == 7
    (tmp_path / "pythia.json").unlink()
    with pytest.raises(ResultsError, match=r"results_\*\.json, results\.json"):
        read_lm_eval(tmp_path, **COUNTS)


def test_folders_whose_files_name_no_model_are_not_joined_without_a_word(tmp_path: Path) -> None:
    for name, task in (("model-70m", "sciq"), ("model-12b", "arc_easy")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps({"results": {task: {"acc,none": 0.6}}}))
    with pytest.warns(ResultsWarning, match=r"2 folders \(model-12b, model-70m\), and not all files name their model"):
        read_lm_eval(tmp_path, N=7e7, D=3e11, R=0)
    alone = read_lm_eval(tmp_path / "model-70m", N=7e7, D=3e11, R=0)
    assert alone["task"].tolist() == ["sciq"]
