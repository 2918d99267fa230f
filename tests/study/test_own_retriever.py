"""A retriever of the user's own, from the first look at it to a study that goes on after it was mended."""

import importlib
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tiny_study import ONE, begun

from ragscale.errors import ConfigError, StudyWarning
from ragscale.retrieval import BM25Retriever, DenseRetriever, HybridRetriever, LsaEncoder
from ragscale.study import Needs, Study, StudyConfig, executors
from ragscale.study._own_code import digest_of, import_own, own_code
from ragscale.study._retrievers import RetrieverSpec

pytest.importorskip("torch")

WORDS = """
import re
def words(text):
    return set(re.findall(r"\\\\w+", text.lower()))
"""
MINE = """
import numpy as np
import ragscale as rs
from {helper} import words

class Mine(rs.Retriever):
    def __init__(self, weight=1.0, *, note="x"):
        self.weight, self.note = weight, note

    def _index(self, passages):
        self.words = [words(p.text) for p in passages]

    def _search(self, queries, k):
        rows, scores = np.full((len(queries), k), -1), np.full((len(queries), k), -np.inf)
        for i, query in enumerate(queries):
            overlap = self.weight * np.array([len(have & words(query)) for have in self.words], float)
            best = np.lexsort((np.arange(len(overlap)), -overlap))[:k]
            rows[i, : len(best)], scores[i, : len(best)] = best, overlap[best]
        return rows, scores

def make(weight=3.0) -> rs.Retriever:
    return Mine(weight)

def unmarked(weight=3.0):
    return Mine(weight)
"""
NOTHING = MINE.replace("return rows, scores", "return np.full_like(rows, -1), np.full_like(scores, -np.inf)")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Write a module of a name of its own, with a helper beside it; return (its name, a function that writes it)."""
    name = f"mine_{abs(hash(str(tmp_path))) % 10**9}"
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / f"{name}_words.py").write_text(WORDS.replace("\\\\", "\\"))
    monkeypatch.syspath_prepend(str(folder))

    def write(source: str = MINE) -> None:
        (folder / f"{name}.py").write_text(source.replace("{helper}", f"{name}_words"))
        importlib.invalidate_caches()

    write()
    yield name, write
    for module in (name, f"{name}_words"):
        sys.modules.pop(module, None)


def hits(study: Study) -> float:
    return study.coverage().query("condition == 'retrieved'")["hit_rate"].mean()


def test_objects_classes_and_dotted_paths_are_one_retriever(mine):
    name, _ = mine
    module = importlib.import_module(name)
    given = [module.Mine(), module.Mine, f"{name}:Mine", {"factory": f"{name}:Mine"}, {"factory": module.Mine}]
    configs = [ONE.replace(retriever=value) for value in given]
    assert len({config.digest for config in configs}) == 1
    two = [module.Mine(2.0), module.Mine(weight=2.0), {"factory": f"{name}:Mine", "weight": 2.0}]
    assert len({ONE.replace(retriever=value).digest for value in two}) == 1
    assert ONE.replace(retriever=two[0]).retriever.build().weight == 2.0
    assert ONE.replace(retriever=module.make).retriever.build().weight == 3.0


@pytest.mark.parametrize(
    "retriever",
    [
        BM25Retriever(k1=1.2),
        DenseRetriever(LsaEncoder(16)),
        HybridRetriever(BM25Retriever(b=0.1), DenseRetriever(LsaEncoder()), depth=30),
    ],
    ids=lambda retriever: type(retriever).__name__,
)
def test_objects_of_the_library_are_stored_with_their_arguments(retriever):
    spec = RetrieverSpec.of(retriever)
    again = StudyConfig.from_dict(json.loads(json.dumps(ONE.replace(retriever=retriever).to_dict()))).retriever
    assert again == spec
    built = spec.build()
    assert type(built) is type(retriever)
    assert str(built.__dict__.get("depth", getattr(built, "k1", 0))) == str(
        retriever.__dict__.get("depth", getattr(retriever, "k1", 0))
    )


def test_every_job_in_a_process_of_its_own(mine, one, tmp_path):
    """As on Slurm, or after a restart of the notebook: each process knows the study's directory and nothing else."""
    name, _ = mine
    study = begun(one, tmp_path / "study", ONE.replace(retriever=f"{name}:Mine"))
    executor = executors.slurm(tmp_path / "logs", cluster="local", device="CPU-core", timeout_min=10)

    class Alone:  # has no needs, so that no two jobs share a process
        submit = staticmethod(executor.with_needs(Needs()).submit)
        fresh_process = False

    status = study.run(Alone(), until="retrieve", progress=False)
    executor.shutdown()
    assert status["state"].tolist() == ["done"] * 4
    assert status["stage"].tolist() == ["split", "check", "index", "retrieve"]
    assert hits(study) > 0


def test_a_new_session_goes_on_with_the_index_that_is_there(mine, one, tmp_path):
    name, _ = mine
    config = ONE.replace(retriever={"factory": f"{name}:Mine"})
    study = begun(one, tmp_path / "study", config)
    study.run(until="index", progress=False)
    before = next(study.directory.glob("stages/index-*/done.json")).stat().st_mtime_ns
    code = f"""
        import sys
        sys.path.insert(0, {str(tmp_path / "code")!r})
        from ragscale.study import Study
        print(Study.open({str(tmp_path / "study")!r}).run(until="retrieve", progress=False)["state"].tolist())
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == str(["done"] * 4)
    assert next(study.directory.glob("stages/index-*/done.json")).stat().st_mtime_ns == before


def test_a_retriever_that_finds_nothing_stops_the_study_before_a_model_is_trained_and_mended_it_goes_on(
    mine, one, tmp_path
):
    name, write = mine
    write(NOTHING)
    config = ONE.replace(retriever=f"{name}:Mine")
    study = begun(one, tmp_path / "study", config)
    with pytest.warns(StudyWarning, match=r"check .*Mine.*returned no passage for any of 15 questions"):
        status = study.run(progress=False)
    assert not list(study.directory.glob("runs/*"))
    assert set(status.query("stage == 'train'")["state"]) == {"blocked"}
    write()
    again = Study(config, study.directory)  # the same session: the module was imported before
    assert set(again.run(until="retrieve", progress=False)["state"]) == {"done"}
    assert hits(again) > 0


@pytest.mark.parametrize("where", ["the module", "the helper beside it"])
def test_a_change_in_the_code_makes_a_new_index_and_one_back_finds_the_old(mine, tmp_path, where):
    name, write = mine
    spec = RetrieverSpec.of(f"{name}:Mine")
    first = digest_of(own_code(spec))
    helper = tmp_path / "code" / f"{name}_words.py"
    if where == "the module":
        write(MINE.replace("self.weight * np", "2 * self.weight * np"))
    else:
        helper.write_text(helper.read_text().replace("text.lower()", "text"))
    changed = digest_of(own_code(spec))
    assert changed != first
    assert own_code(spec)[0]["module"] == name
    retriever = spec.build()
    assert (retriever._search.__code__.co_consts.count(2) > 0) == (where == "the module"), "what runs is what is keyed"
    write()
    helper.write_text(WORDS.replace("\\\\", "\\"))
    assert digest_of(own_code(spec)) == first


def test_a_comment_further_up_does_not_make_what_is_imported_wrong(mine):
    name, write = mine
    spec = RetrieverSpec.of(f"{name}:Mine")
    own_code(spec)
    write("# one line more\n" + MINE)
    assert len(own_code(spec)) == 2
    assert spec.build()


def test_a_worker_with_another_source_of_the_same_name_refuses(mine, tmp_path):
    name, _ = mine
    code = own_code(RetrieverSpec.of(f"{name}:Mine"))
    wrong = [{**entry, "digest": "0" * 64} for entry in code]
    with pytest.raises(ConfigError, match="another one here"):
        import_own(wrong)
    gone = [{**code[0], "module": f"{name}_gone", "file": str(tmp_path / "nowhere.py")}]
    with pytest.raises(ConfigError, match="neither importable here nor at"):
        import_own(gone)


def test_a_module_that_is_not_on_the_path_is_loaded_from_its_file(mine, tmp_path, monkeypatch):
    name, _ = mine
    code = own_code(RetrieverSpec.of(f"{name}:Mine"))
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path / "code")])
    for module in (name, f"{name}_words"):
        sys.modules.pop(module)
    import_own(code)
    assert sys.modules[name].Mine


def test_a_class_of_a_notebook_works_in_its_session_and_elsewhere_says_what_to_do(one, tmp_path):
    """A script stands for the notebook: both define the class in __main__."""
    script = tmp_path / "notebook.py"
    source = MINE.replace("from {helper} import words", WORDS.replace("\\\\", "\\"))
    script.write_text(
        source
        + textwrap.dedent(
            f"""
            sys_path = {str(Path(__file__).parent / "jobs")!r}
            import sys
            sys.path.insert(0, sys_path)
            from tiny_study import ONE
            from ragscale.study import Study, executors
            study = Study(ONE.replace(retriever=Mine(2.0)), {str(tmp_path / "study")!r})
            if len(sys.argv) > 1:
                study.run(executors.processes(1), until="index", progress=False)
            print(study.run(until="retrieve", progress=False)["state"].tolist())
            """
        )
    )
    begun(one, tmp_path / "study", ONE)
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == str(["done"] * 4), ended.stderr[-2000:]
    shutil.rmtree(tmp_path / "study" / "stages" / next((tmp_path / "study" / "stages").glob("index-*")).name)
    ended = subprocess.run([sys.executable, str(script), "elsewhere"], capture_output=True, text=True, check=False)
    assert "%%writefile" in ended.stderr
    assert "Mine is defined in a notebook or in the running script" in ended.stderr


@pytest.mark.parametrize(
    ("retriever", "match"),
    [
        ("os:system", "no class of a ragscale.Retriever"),
        ({"factory": "os:system", "command": "touch ran"}, "no class of a ragscale.Retriever"),
        ("shutil:rmtree", "no class of a ragscale.Retriever"),
        ("builtins:eval", "no class of a ragscale.Retriever"),
        ("subprocess:Popen", "no class of a ragscale.Retriever"),
        ("ragscale.retrieval:Nothing", "cannot be imported"),
        ("no.such.module:Mine", "cannot be imported"),
        ({"factory": "ragscale.retrieval:DenseRetriever", "encoder": {"factory": "os:system"}}, "no class of"),
        ({"factory": "ragscale.retrieval:HybridRetriever", "fusion": {"name": "os:system"}}, "no function that"),
    ],
)
def test_what_is_no_retriever_is_refused_without_being_called(tmp_path, monkeypatch, retriever, match):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=match):
        Study(ONE.replace(retriever=retriever), tmp_path / "study").run(until="index")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("retriever", "match"),
    [
        ({"kind": "bm25", "k2": 1}, "k2"),
        ({"kind": "bm25", "k1": -1}, "k1 must be at least 0"),
        ({"kind": "colbert"}, "colbert"),
        ({"kind": "bm25", "factory": "a:b"}, "either 'kind' or 'factory'"),
        ({"factory": "mine.Mine"}, "must be written 'package.module:Class'"),
        (3, "must be a Retriever"),
        (lambda: None, "defined inside a function"),
        (object, "no class of a ragscale.Retriever"),
    ],
)
def test_settings_that_cannot_work_are_named_when_the_configuration_is_made(retriever, match):
    with pytest.raises(ConfigError, match=match):
        ONE.replace(retriever=retriever)


def test_a_function_must_say_that_it_makes_a_retriever(mine):
    name, _ = mine
    with pytest.raises(ConfigError, match="annotate the function with '-> Retriever'"):
        RetrieverSpec.of(f"{name}:unmarked").build()


def test_a_study_says_which_code_it_imports(mine, one, tmp_path, caplog):
    name, _ = mine
    begun(one, tmp_path / "study", ONE.replace(retriever=f"{name}:Mine")).run(until="split", progress=False)
    assert f"this study imports and runs {name}:Mine" in caplog.text
