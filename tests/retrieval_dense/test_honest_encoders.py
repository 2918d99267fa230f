"""What an encoder did not read is said in numbers, and an index keeps to the weights it was made with."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from ragscale import Passage
from ragscale.errors import ConfigError, TruncationWarning
from ragscale.retrieval import DenseRetriever, HybridRetriever, LsaEncoder, ShardedDenseRetriever, TransformerEncoder


@pytest.fixture
def encoder():
    """A small BERT that reads 16 tokens, and can be changed."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "text", "number", "fox", *map(str, range(30))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=16, **names)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    return TransformerEncoder(BertModel(config).eval(), tokenizer=fast)


def store(n=8, *, longest=3):
    return [Passage(str(i), f"text number {i} " + "fox " * (longest if i % 2 else 1), 4, str(i)) for i in range(n)]


def test_passages_and_queries_that_do_not_fit_are_counted_and_said(encoder):
    with pytest.warns(TruncationWarning, match=r"4 of 8 passages are longer .* never saw \d+ of \d+ tokens"):
        retriever = DenseRetriever(encoder).index(store(longest=40))
    with pytest.warns(TruncationWarning, match="1 of 2 queries are longer than the encoder reads: it never saw 27 of"):
        retriever.search(["fox", "fox " * 41], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        retriever.search(["fox", "text number 3"], 1, store_tokens=[8, 16])
    with pytest.warns(TruncationWarning, match="1 of 1 queries"):
        retriever.measure_recall("fox " * 41)
    sharded = ShardedDenseRetriever(DenseRetriever(encoder), shard_size=3).index(store())
    with pytest.warns(TruncationWarning, match="1 of 1 queries"):
        sharded.search("fox " * 41, 1)


@pytest.mark.parametrize("change", ["add", "data", "load", "one layer"])
def test_weights_that_changed_since_indexing_are_refused(encoder, change):
    retrievers = [
        DenseRetriever(encoder).index(store()),
        ShardedDenseRetriever(DenseRetriever(encoder), shard_size=3).index(store()),
        HybridRetriever(DenseRetriever(encoder)).index(store()),
    ]
    before = [retriever.search("fox 3", 2).ids.tolist() for retriever in retrievers]
    body, digest = encoder._parts[0], encoder.digest
    with torch.no_grad():
        if change == "add":
            body.embeddings.word_embeddings.weight.add_(0.1)
        elif change == "data":
            body.embeddings.word_embeddings.weight.data.mul_(1.5)
        elif change == "load":
            body.load_state_dict({name: value * 1.1 for name, value in body.state_dict().items()})
        else:
            body.encoder.layer[0].output.dense.weight.data.add_(0.5)
    assert encoder.digest != digest
    for retriever in retrievers:
        with pytest.raises(ConfigError, match="weights of this TransformerEncoder have changed since"):
            retriever.search("fox 3", 2)
    again = [retriever.index(store()).search("fox 3", 2).ids.shape for retriever in retrievers[:2]]
    assert again == [np.shape(one) for one in before[:2]]


def test_an_index_that_could_not_learn_says_how_much_it_needs():
    texts = [f"word{i} word{i % 7} word{i % 3}" for i in range(40)]
    for options in ({"train": texts[:2]}, {"train_size": 2}):
        with pytest.raises(ConfigError, match=r"IVF16,Flat.* learns 16 lists .* on 2 vectors: give .* at least 16"):
            DenseRetriever(LsaEncoder(4), "IVF16,Flat", **options).index(texts)
    with pytest.raises(ConfigError, match="increments\\[1\\] must be a whole number"):
        DenseRetriever(LsaEncoder(4), "HNSW8", increments=[5, 2.5])
    one = DenseRetriever(LsaEncoder(4), "IVF2,Flat", train="word1 word2 word3", train_size=None)
    with pytest.raises(ConfigError, match="on 1 vectors"):
        one.index(texts)
