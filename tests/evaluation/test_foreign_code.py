"""What other people's files may not do here: run code, ask on the terminal, loop for ever, end a text."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

import ragscale as rs
from ragscale import Document
from ragscale._extras import from_pretrained, text_backend
from ragscale.errors import CheckpointError, ConfigError, TaskError
from ragscale.evaluation import TorchModel, _jinja, load_task
from ragscale.passages import chunk
from ragscale.retrieval import CrossEncoder, SentenceTransformerEncoder, TransformerEncoder
from ragscale.retrieval._encoder_transformer import tokenize

ASK = """
import sys, ragscale as rs
folder = sys.argv[1]
from ragscale.retrieval import CrossEncoder, SentenceTransformerEncoder, TransformerEncoder
passage = rs.Passage("a", "fox", 1, "a")
calls = {
    "model": lambda: rs.evaluation.load_language_model(folder),
    "encoder": lambda: TransformerEncoder(folder).encode("fox"),
    "sentence": lambda: SentenceTransformerEncoder(folder).encode("fox"),
    "cross": lambda: CrossEncoder(folder)("fox", [passage]),
    "tokenizer": lambda: rs.split_corpus([rs.Document("a", "fox")], folder + "/split", tokenizer=folder),
}
for kind, call in calls.items():
    try:
        call()
    except rs.RagscaleError as error:
        print("REFUSED", kind, error)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, module, tokenizer):
    """A model, its tokenizer and code that leaves a mark when it runs."""
    folder = tmp_path_factory.mktemp("evil") / "model"
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    mark = folder.parent / "ran"
    (folder / "evil.py").write_text(
        f"open({str(mark)!r}, 'w').write('x')\n"
        "from transformers import Olmo2Config as C, Olmo2ForCausalLM as M, PreTrainedTokenizerFast as T\n"
    )
    kinds = ("AutoModelForCausalLM", "AutoModel", "AutoModelForSequenceClassification")
    auto_map = {"AutoConfig": "evil.C", **dict.fromkeys(kinds, "evil.M")}
    for name, changes in (
        ("config.json", {"model_type": "unheard-of", "auto_map": auto_map}),
        ("tokenizer_config.json", {"tokenizer_class": "Unheard", "auto_map": {"AutoTokenizer": [None, "evil.T"]}}),
    ):
        content = json.loads((folder / name).read_text()) | changes
        (folder / name).write_text(json.dumps(content))
    (folder / "tokenizer.json").rename(folder / "hidden.json")  # nothing to fall back on
    return folder


def test_code_of_a_model_folder_never_runs_and_nobody_is_asked(folder):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK, str(folder)],
        input="y\n" * 9,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    refused = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("REFUSED")]
    assert refused == ["model", "encoder", "sentence", "cross", "tokenizer"], done.stdout + done.stderr[-2000:]
    assert "[y/N]" not in done.stdout + done.stderr
    assert not (folder.parent / "ran").exists()
    assert done.stdout.count("never run from here") >= 2


def test_a_failure_to_load_is_one_error_whatever_it_was(tmp_path):
    class Fails:
        def __init__(self, name, **options):
            assert options["trust_remote_code"] is False
            raise KeyError("weights")

    with pytest.raises(CheckpointError, match=r"no model could be loaded from 'x': KeyError: 'weights'"):
        from_pretrained(Fails, "x")
    (tmp_path / "config.json").write_text("{")
    for make in (TransformerEncoder, CrossEncoder):
        encoder = make(str(tmp_path))
        with pytest.raises(CheckpointError, match="no model could be loaded"):
            encoder.encode("x") if make is TransformerEncoder else encoder("x", [rs.Passage("a", "x", 1, "a")])
    assert SentenceTransformerEncoder("x").normalize


# ------------------------------------------------------------------------------------------------- special tokens


def test_text_never_makes_a_special_token(module, tokenizer):
    text = "It ends with <eos> and goes on."
    [ids] = TorchModel(module, tokenizer).encode([text])
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id in tokenizer.encode(text)  # the tokenizer itself is as it was
    assert text_backend(tokenizer) is text_backend(tokenizer)
    plain = "It ends with a bell."
    assert TorchModel(module, tokenizer).encode([plain]) == [tokenizer.encode(plain)]
    assert text_backend(object()) is None


def test_prompts_chunks_and_splits_read_a_text_alike(tmp_path):
    trained = rs.splitting.train_tokenizer(["Models end a text with a token."] * 9, 300)
    text = "They spell <|endoftext|> out."
    split = rs.split_corpus([Document("a", text)], tmp_path / "s", tokenizer=trained)
    ids = split.pretraining(split.n_tokens)[:].tolist()
    assert ids.count(split.eos_id) == 1
    assert ids[:-1] == text_backend(split.tokenizer).encode(text, add_special_tokens=False).ids
    assert chunk(Document("a", text), trained, size=1000)[0].n_tokens == len(ids)


def test_encoders_read_special_tokens_as_text(tokenizer):
    ids, lengths = tokenize(tokenizer, ["a <eos> b", "plain"], 50)
    assert tokenizer.eos_token_id not in ids[0]
    assert lengths == [len(one) for one in ids]
    cut, _ = tokenize(tokenizer, ["a <eos> b"], 3)
    assert cut[0] == ids[0][:3]


def test_a_tokenizer_that_grows_is_read_anew(tokenizer):
    import copy

    grown = copy.deepcopy(tokenizer)
    before = text_backend(grown).encode("zzz").ids
    grown.add_tokens(["zzz"])
    assert len(text_backend(grown).encode("zzz").ids) == 1 < len(before)


# ------------------------------------------------------------------------------------------------------- templates


def task_file(folder, **fields):
    rows = [{"q": "1?", "choices": ["a", "b"], "label": 1, "when": "now"}] * 3
    (folder / "data.json").write_text(json.dumps(rows))
    config = {
        "task": "mine",
        "output_type": "multiple_choice",
        "test_split": "test",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "data.json"}},
        "doc_to_text": "q",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
    }
    (folder / "t.yaml").write_text(json.dumps(config | fields))
    return folder / "t.yaml"


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
        "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{{ 'a' * 10 ** 11 }}",
        "{{ 'a' | center(10 ** 10) }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ range(10 ** 9) | list }}",
        "{{ lipsum(n=10 ** 7) }}",
        "{{ q.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ missing }}",
        "{% if %}",
    ],
)
def test_a_template_can_neither_hang_nor_fill_memory_nor_look_around(tmp_path, template, monkeypatch):
    monkeypatch.setattr(_jinja, "SECONDS", 3.0)
    start = time.monotonic()
    with pytest.raises(TaskError, match=r"(?s)t\.yaml has \d+ problem.*record 0"):
        load_task(task_file(tmp_path, doc_to_text=template))
    assert time.monotonic() - start < 60


def test_templates_that_mean_well_work(tmp_path):
    pytest.importorskip("jinja2")
    text = "{{ q.strip() }} {% if label %}yes{% else %}no{% endif %} {{ choices | join('/') }}\n"
    task = load_task(task_file(tmp_path, doc_to_text=text, doc_to_target="{{ choices.index('b') }}"))
    assert task.examples[0].question == "1? yes a/b\n"
    assert [e.answer_index for e in task.examples] == [1, 1, 1]
    replaced = load_task(task_file(tmp_path, doc_to_text="{{ q | regex_replace('[?]', '!') }}"))
    assert replaced.examples[0].question == "1!"
    asked = load_task(
        task_file(tmp_path, dataset_kwargs={"data_files": {"test": "data.json"}, "trust_remote_code": True})
    )
    assert len(asked) == 3


def test_the_process_for_templates_is_not_started_for_plain_fields(tmp_path, monkeypatch):
    monkeypatch.setattr(_jinja, "_run", None)
    assert load_task(task_file(tmp_path, doc_to_text="q")).examples[0].question == "1?"
    assert load_task(task_file(tmp_path, doc_to_text="Which one?")).examples[0].question == "Which one?"


def test_a_data_set_that_needs_code_or_is_not_there_is_named(tmp_path):
    (tmp_path / "scripted").mkdir()
    (tmp_path / "scripted" / "scripted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    path = task_file(tmp_path, dataset_path=str(tmp_path / "scripted"), dataset_kwargs={"trust_remote_code": True})
    with pytest.raises(TaskError, match=r"the data set .*scripted.* cannot be loaded"):
        load_task(path)
    assert not (tmp_path / "ran").exists()
    (tmp_path / "deep.yaml").write_text("[" * 3000)
    with pytest.raises(ConfigError, match="not YAML"):
        load_task(tmp_path / "deep.yaml")
