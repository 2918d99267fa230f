"""What a done job wrote is checked when it is used: nothing goes missing in silence, and no file runs code."""

import dataclasses
import pickle
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from tiny_study import copy_of, outputs

from ragscale._files import read_json
from ragscale.errors import CheckpointError, ResultsError, StudyWarning
from ragscale.evaluation import Example, PreparedPrompts, Task, TorchModel, prepare_prompts
from ragscale.evaluation._prompt_files import load_prompts, save_prompts

pytest.importorskip("torch")


def cut(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_every_done_job_holds_the_digests_of_its_outputs(done):
    for path in done.directory.glob("stages/*/done.json"):
        record = read_json(path, schema="ragscale-job", version=1)
        assert record["outputs"], path
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in record["outputs"].values())


@pytest.mark.parametrize("hurt", [cut, flip, lambda path: path.unlink()], ids=["cut", "flipped bit", "deleted"])
def test_damaged_results_are_refused_and_made_anew(done, tmp_path, hurt):
    study = copy_of(done, tmp_path / "study")
    path = min(study.directory.glob("stages/evaluate-*/results.jsonl"))
    hurt(path)
    with pytest.raises(ResultsError, match=path.parent.name):
        study.results()
    with pytest.warns(StudyWarning, match=rf"damaged, and are made anew: .*{path.parent.name}"):
        study.run(progress=False)
    pd.testing.assert_frame_equal(study.results(), done.results())


@pytest.mark.parametrize(
    "pattern",
    [
        "stages/retrieve-*/prompts/*/tokens.npy",
        "stages/retrieve-*/prompts/*/prompts.json",
        "stages/index-*/index/retriever.json",
    ],
)
def test_damage_in_what_others_build_on_is_found_by_the_next_run(one, tmp_path, pattern):
    study = copy_of(one, tmp_path / "study")
    flip(min(study.directory.glob(pattern)))
    for folder in study.directory.glob("stages/evaluate-*"):
        shutil.rmtree(folder)
    with pytest.warns(StudyWarning, match="damaged, and are made anew"):
        study.run(progress=False)
    assert outputs(study) == outputs(one)


def test_damage_between_a_run_and_a_job_fails_that_job(one, tmp_path):
    from ragscale.study._jobs import do_job, folder_of

    study = copy_of(one, tmp_path / "study")
    (job,) = (job for job in study._jobs() if job.stage == "evaluate")
    shutil.rmtree(folder_of(study.directory, job))
    flip(next(study.directory.glob("stages/retrieve-*/coverage.csv")))
    parents = {name: parent.key for name, parent in job.after.items()}
    assert not do_job(str(study.directory), job.key, job.function, job.inputs, parents)
    assert "coverage.csv is damaged" in (folder_of(study.directory, job) / "failed.json").read_text()


def test_damaged_coverage_is_refused(one, tmp_path):
    study = copy_of(one, tmp_path / "study")
    cut(next(study.directory.glob("stages/retrieve-*/coverage.csv")))
    with pytest.raises(ResultsError, match=r"coverage\.csv"):
        study.coverage()


def test_another_checkpoint_in_the_place_of_the_trained_one_is_not_evaluated(done, tmp_path):
    study = copy_of(done, tmp_path / "study")
    first, second = sorted(study.directory.glob("runs/*/D4000"))
    shutil.rmtree(first)
    shutil.copytree(second, first)
    for folder in study.directory.glob("stages/evaluate-*"):
        shutil.rmtree(folder)
    with pytest.warns(StudyWarning, match="is missing or another checkpoint than this study trained"):
        study.run(progress=False)


def test_no_file_of_a_study_is_a_pickle(done):
    for path in done.directory.rglob("*"):
        if path.is_file():
            assert path.suffix not in {".pickle", ".pkl"}
            assert not path.read_bytes().startswith(b"\x80\x04"), path


def test_a_pickle_in_the_place_of_an_array_is_not_loaded(one, tmp_path):
    class Evil:
        def __reduce__(self):
            return subprocess.run, (["touch", str(tmp_path / "ran")],)

    (prompts,) = one.directory.glob("stages/retrieve-*/prompts")
    shutil.copytree(prompts, tmp_path / "prompts")
    for name in ("tokens.npy", "ends.npy"):
        for path in tmp_path.glob(f"prompts/*/{name}"):
            path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="damaged"):
        load_prompts(tmp_path / "prompts")
    assert not (tmp_path / "ran").exists()


def prepared() -> PreparedPrompts:
    """Prompts of every kind of task, with a text of several windows and choices that share a context."""
    import torch

    from ragscale.splitting import train_tokenizer

    tokenizer = train_tokenizer(["red fish blue fish one sky two skies", "a long text about the sea " * 30], 300)
    choices = Example(id="c", question="Which?", choices=("red", "blue"), answer_index=1)
    tasks = [
        Task(name="choices/odd name", kind="multiple_choice", examples=(choices,)),
        Task(name="written", kind="generate", examples=(Example(id="g", question="Who?", answers=("é", "b")),)),
        Task(name="text", kind="text", examples=(Example(id="t", question="a long text about the sea " * 9),)),
    ]
    reader = TorchModel(torch.nn.Identity(), tokenizer, max_length=64)
    return prepare_prompts(tasks, reader, condition=["closed-book"], pmi=True)


def test_prompts_are_what_was_saved(tmp_path):
    made = prepared()
    save_prompts(made, tmp_path / "prompts")
    again = load_prompts(tmp_path / "prompts")
    assert again.cells == made.cells
    assert dict(again.prompts) == dict(made.prompts)
    assert (again.settings, again.tokenizer, again.max_length) == (made.settings, made.tokenizer, made.max_length)
    assert again.scored == made.scored
    assert isinstance(again.prompts._parts[0]._tokens, np.memmap)


def test_prompts_of_other_files_do_not_pass(tmp_path):
    save_prompts(prepared(), tmp_path / "prompts")
    folders = sorted(path for path in (tmp_path / "prompts").iterdir())
    shutil.copy(folders[0] / "tokens.npy", folders[1] / "tokens.npy")
    with pytest.raises(CheckpointError, match=r"tokens\.npy is damaged"):
        load_prompts(tmp_path / "prompts")


def test_prompts_are_saved_over_older_ones_and_what_is_the_users_stays(tmp_path):
    made = prepared()
    made.save(tmp_path / "prompts")
    (tmp_path / "prompts" / "notes.txt").write_text("mine")
    fewer = dataclasses.replace(made, cells=made.cells[:1])
    fewer.save(tmp_path / "prompts")
    assert PreparedPrompts.load(tmp_path / "prompts").cells == made.cells[:1]
    assert PreparedPrompts.load(tmp_path / "prompts", store_tokens=[77]).cells == ()
    assert (tmp_path / "prompts" / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["prompts"]
    with pytest.raises(FileNotFoundError):
        PreparedPrompts.load(tmp_path / "nowhere")
