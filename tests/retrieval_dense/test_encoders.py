"""Encoders: equal to sentence-transformers, right under either padding, blind to the batch; the embedding cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ragscale.errors import CheckpointError, ConfigError, TruncationWarning
from ragscale.passages import Passage
from ragscale.retrieval import (
    CheckpointEncoder,
    DenseRetriever,
    Encoder,
    LsaEncoder,
    SentenceTransformerEncoder,
    TransformerEncoder,
    Truncation,
)
from ragscale.retrieval._embeddings import embed
from ragscale.retrieval._encoder_transformer import pool
from ragscale.testing import check_encoder

TEXTS = [
    "A fox crosses the old bridge.",
    "",
    "Ünïcode ☃ 漢字",
    "the winter market " * 150,
    "short",
    "Every comet remembers the harbour, and every harbour forgets its comet after a while.",
]


@pytest.fixture(scope="module")
def sentence_model(minilm):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(minilm), device="cpu")


def test_mean_pooling_equals_sentence_transformers(minilm, sentence_model):
    expected = sentence_model.encode(TEXTS)
    encoder = TransformerEncoder(minilm, max_length=256)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(SentenceTransformerEncoder(sentence_model).encode(TEXTS), expected, atol=1e-5)
    tokens = len(encoder._parts[1](TEXTS[3])["input_ids"])
    cut = encoder.truncation("passage")
    assert (cut.n_texts, cut.n_truncated, cut.n_tokens_lost) == (6, 1, tokens - 256)


def test_bfloat16_is_close_and_prompts_count(minilm):
    plain = TransformerEncoder(minilm)
    half = TransformerEncoder(minilm, dtype="bfloat16")
    texts = [TEXTS[0], TEXTS[5]]
    assert ((plain.encode(texts) * half.encode(texts)).sum(1) > 0.995).all()
    prompted = TransformerEncoder(minilm, query_prompt="query: ")
    np.testing.assert_array_equal(prompted.encode(texts, "query"), plain.encode(["query: " + text for text in texts]))
    np.testing.assert_array_equal(prompted.encode(texts, "passage"), plain.encode(texts))
    assert len({encoder.digest for encoder in (plain, half, prompted)}) == 3


def test_transformers_keep_the_contract(minilm, sentence_model):
    plain = TransformerEncoder(minilm)
    assert "batch_independence" in check_encoder(lambda: plain)
    wrapped = SentenceTransformerEncoder(sentence_model, query_prompt="q: ")
    assert "batch_independence" in check_encoder(lambda: wrapped)


def test_an_index_that_cuts_passages_says_so(minilm):
    encoder = TransformerEncoder(minilm, max_length=12)
    store = [Passage(str(i), text, 9, "d") for i, text in enumerate(TEXTS[:3] + ["a b c d e f g h i j k l m n"])]
    with pytest.warns(TruncationWarning, match=r"1 of 4 passages .* never saw 4 of"):
        retriever = DenseRetriever(encoder).index(store)
    assert retriever.describe()["truncation"]["n_tokens_lost"] == 4


@pytest.mark.parametrize("how", ["mean", "cls", "last"])
def test_pooling_does_not_depend_on_the_side_of_the_padding(how):
    generator = torch.Generator().manual_seed(0)
    lengths = [3, 5, 1]
    own = [torch.randn(length, 4, generator=generator) for length in lengths]
    expected = torch.stack([{"mean": one.mean(0), "cls": one[0], "last": one[-1]}[how] for one in own])
    for left in (False, True):
        hidden, mask = torch.full((3, 5, 4), 99.0), torch.zeros(3, 5, dtype=torch.long)
        for row, one in enumerate(own):
            place = slice(5 - len(one), 5) if left else slice(0, len(one))
            hidden[row, place], mask[row, place] = one, 1
        torch.testing.assert_close(pool(hidden, mask, how), expected)


@pytest.fixture(scope="module")
def causal_checkpoint(tmp_path_factory):
    """A small causal language model as a Hugging Face directory, with random weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import Olmo2Config, Olmo2ForCausalLM, PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", "the", "fox", "old", "bridge", "market", "crosses", "every", "comet", "a"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=64
    )
    torch.manual_seed(0)
    config = Olmo2Config(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
    )
    path = tmp_path_factory.mktemp("checkpoint")
    Olmo2ForCausalLM(config).save_pretrained(path)
    fast.save_pretrained(path)
    return path


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_last_token_of_a_causal_model_is_the_last_token(causal_checkpoint, side, pooling):
    from transformers import AutoTokenizer, Olmo2Model

    tokenizer = AutoTokenizer.from_pretrained(causal_checkpoint, padding_side=side)
    model = Olmo2Model.from_pretrained(causal_checkpoint)
    encoder = TransformerEncoder(model, tokenizer=tokenizer, pooling=pooling, normalize=False, max_length=64)
    texts = ["the fox", "every comet crosses the old bridge a fox", "market"]
    for text, vector in zip(texts, encoder.encode(texts), strict=True):
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).last_hidden_state[0]
        alone = {"last": hidden[-1], "mean": hidden.mean(0), "cls": hidden[0]}[pooling]
        np.testing.assert_allclose(vector, alone.numpy(), atol=1e-5)


def test_a_checkpoint_encodes_with_any_layer(causal_checkpoint, tmp_path):
    encoder = CheckpointEncoder(causal_checkpoint, layer=1)
    assert encoder.dim == 16
    assert "save_and_load" in check_encoder(lambda: CheckpointEncoder(causal_checkpoint, layer=1))
    assert not np.allclose(encoder.encode("the fox"), CheckpointEncoder(causal_checkpoint).encode("the fox"))
    encoder.save(tmp_path)
    description = (tmp_path / "encoder.json").read_text()
    (tmp_path / "encoder.json").write_text(description.replace(str(causal_checkpoint), str(causal_checkpoint) + "0"))
    with pytest.raises(CheckpointError, match="no model could be loaded"):
        Encoder.load(tmp_path)


def test_changed_weights_no_longer_belong_to_an_index(causal_checkpoint, tmp_path):
    import shutil

    from transformers import Olmo2ForCausalLM

    copy = tmp_path / "model"
    shutil.copytree(causal_checkpoint, copy)
    encoder = CheckpointEncoder(copy)
    DenseRetriever(encoder).index([Passage("a", "the fox", 2, "a")]).save(tmp_path / "index")
    model = Olmo2ForCausalLM.from_pretrained(copy)
    torch.nn.init.ones_(model.model.layers[0].mlp.up_proj.weight)
    model.save_pretrained(copy)
    with pytest.raises(CheckpointError, match="encoder has changed"):
        DenseRetriever.load(tmp_path / "index")


def test_lsa_keeps_the_contract_and_finds_synonyms():
    assert "fitting_first" in check_encoder(lambda: LsaEncoder(n_components=6))
    texts = ["car engine repair", "automobile engine repair", "car road trip", "automobile road trip"] * 3
    texts += ["bread oven flour", "baker bread flour", "oven baker dough"] * 3
    encoder = LsaEncoder(3).fit(texts)
    car, automobile, bread = encoder.encode(["car", "automobile", "bread"])
    assert car @ automobile > 0.8
    assert abs(car @ bread) < 0.3
    with pytest.raises(ConfigError, match="nothing can be learned from these 2 texts"):
        LsaEncoder().fit(["", "☃"])


def test_lsa_is_the_truncated_svd_of_sklearn():
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(60)]
    texts = [" ".join(rng.choice(words, 12)) for _ in range(80)]
    encoder = LsaEncoder(5, stop_words=None).fit(texts)
    tfidf = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b").fit_transform(texts)
    reference = TruncatedSVD(5, random_state=0).fit_transform(tfidf)
    reference /= np.linalg.norm(reference, axis=1, keepdims=True)
    vectors = encoder.encode(texts)
    np.testing.assert_allclose(vectors @ vectors.T, reference @ reference.T, atol=1e-5)


class Counting(Encoder):
    """Counts the texts that it is asked for, and can fail after some."""

    dim = 2
    asked = 0
    left: float = np.inf

    def _encode(self, texts, kind):
        if type(self).left < len(texts):
            raise KeyboardInterrupt
        type(self).left -= len(texts)
        type(self).asked += len(texts)
        return [[len(text), kind == "query"] for text in texts]

    def truncation(self, kind="passage"):
        return Truncation(type(self).asked, 0, 0, type(self).asked)


def test_interrupted_encoding_goes_on_where_it_stopped(tmp_path):
    Counting.asked, Counting.left = 0, 25
    texts = ["x" * (i % 7 + 1) for i in range(43)]
    with pytest.raises(KeyboardInterrupt):
        embed(Counting(), texts, cache=tmp_path, block_size=10)
    assert Counting.asked == 20
    Counting.left = np.inf
    vectors, cut = embed(Counting(), texts, cache=tmp_path, block_size=10)
    assert Counting.asked == 43
    assert cut.n_tokens_lost == 43  # counted once, whether encoded now or then
    np.testing.assert_array_equal(vectors, embed(Counting(), texts)[0])
    Counting.asked = 0
    embed(Counting(), texts[:35], cache=tmp_path, block_size=10)
    assert Counting.asked == 5  # a prefix reuses every full block
    embed(Counting(), texts, "query", cache=tmp_path, block_size=10)
    assert Counting.asked == 48  # queries are not passages


def test_a_damaged_block_is_encoded_anew(tmp_path):
    Counting.asked, Counting.left = 0, np.inf
    texts = ["a", "bb", "ccc"]
    embed(Counting(), texts, cache=tmp_path)
    (path,) = tmp_path.rglob("*.npz")
    path.write_bytes(path.read_bytes()[:-5])
    vectors, _ = embed(Counting(), texts, cache=tmp_path)
    assert Counting.asked == 6
    np.testing.assert_array_equal(vectors[:, 0], [1, 2, 3])
    embed(Counting(), texts, cache=tmp_path)
    assert Counting.asked == 6


def test_an_index_uses_the_cache(tmp_path, noise):
    Counting.asked, Counting.left = 0, np.inf
    store = [Passage(str(i), f"text {i}", 2, "d") for i in range(30)]
    for _ in range(2):
        DenseRetriever(Counting(), cache=tmp_path, block_size=8).index(store)
    assert Counting.asked == 30


class Careless(Encoder):
    """Breaks one promise at a time."""

    dim = 3

    def __init__(self, fault: str = "none") -> None:
        self.fault = fault

    def _encode(self, texts, kind):
        vectors = np.array([[len(text), text.count("e"), 1.0] for text in texts], dtype=np.float64)
        if self.fault == "batch":
            vectors += 1e-6 * len(texts)
        if self.fault == "order":
            vectors = vectors[::-1]
        if self.fault == "random":
            vectors += np.random.default_rng().standard_normal(vectors.shape)
        if self.fault == "empty" and "" in texts:
            vectors[:] = np.nan
        return vectors[:, :2] if self.fault == "shape" else vectors


def test_the_check_accepts_a_good_encoder_and_names_each_fault():
    assert len(check_encoder(Careless)) == 7
    for fault, message in {
        "batch": "batch_independence: ",
        "order": "determinism: the same text twice",
        "random": "determinism: ",
    }.items():
        with pytest.raises(AssertionError, match=message):
            check_encoder(lambda fault=fault: Careless(fault))
    for fault, message in {"shape": r"shape \(9, 2\), expected \(9, 3\)", "empty": "not finite for ''"}.items():
        with pytest.raises(ConfigError, match=message):
            check_encoder(lambda fault=fault: Careless(fault))


def test_an_encoder_that_cannot_be_named_is_not_cached(tmp_path):
    class Holding(Careless):
        def __init__(self, model: object) -> None:
            super().__init__()

    with pytest.raises(ConfigError, match=r"holds model, which cannot be written as JSON: define _fingerprint"):
        embed(Holding(object()), ["a"], cache=tmp_path)
    with pytest.raises(ConfigError, match="model object comes without its tokenizer"):
        TransformerEncoder(object())
    with pytest.raises(ConfigError, match=r"pooling must be.*'max'; .*batch_size must be at least 1, got 0"):
        TransformerEncoder("name", pooling="max", batch_size=0)  # type: ignore[arg-type]
