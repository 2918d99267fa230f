"""A small world of made-up facts, a byte-level BPE tokenizer trained on it, and small random OLMo-2 models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Olmo2Config, Olmo2ForCausalLM, PreTrainedTokenizerFast

from ragscale.evaluation import Example, PromptTemplate, Task, TorchModel
from ragscale.passages import Passage
from ragscale.retrieval import BM25Retriever

torch.set_num_threads(1)  # rows this small gain nothing from threads, and other work shares the cores

SYLLABLES = ("ba", "do", "fi", "gul", "ka", "lem", "mor", "nu", "pes", "ro", "sil", "tan", "vu", "xe", "zor")
MATERIALS = ("amber", "basalt", "copper", "driftwood", "enamel", "flint", "glass", "horn", "iron", "jade")


def made_up_names(n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    names: dict[str, None] = {}
    while len(names) < n:
        names["".join(rng.choice(SYLLABLES, 3)).capitalize()] = None
    return list(names)


TOWNS = made_up_names(40, 0)
MAKERS = made_up_names(40, 1)


def fact(i: int) -> str:
    return (
        f"The town of {TOWNS[i]} lies on a river. Its bell was made by {MAKERS[i]} of {MATERIALS[i % 10]}, and people "
        f"from far away come to hear it on the first day of every year. Nobody in {TOWNS[i]} counts the strokes."
    )


@pytest.fixture(scope="session")
def tokenizer():
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    texts = [fact(i) + f"\n\nQuestion: Who made the bell of {TOWNS[i]}?\nAnswer: {MAKERS[i]}" for i in range(40)]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<eos>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>")


def make_module(tokenizer, *, seed: int = 0, max_length: int = 512, **changes):
    torch.manual_seed(seed)
    config = Olmo2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=max_length,
        initializer_range=0.3,  # large, so that what a token sees moves its prediction
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=0,
        **changes,
    )
    return Olmo2ForCausalLM(config).eval()


@pytest.fixture(scope="session")
def module(tokenizer):
    return make_module(tokenizer)


@pytest.fixture
def lm(module, tokenizer):
    return TorchModel(module, tokenizer)


@pytest.fixture(scope="session")
def passages(tokenizer):
    texts = [fact(i) for i in range(40)]
    return [Passage(f"p{i}", text, len(tokenizer.encode(text)), f"d{i}") for i, text in enumerate(texts)]


@pytest.fixture(scope="session")
def retriever(passages):
    return BM25Retriever().index(passages)


@pytest.fixture(scope="session")
def choice_task():
    examples = []
    for i in range(24):
        rng = np.random.default_rng(i)
        others = [MAKERS[j] for j in rng.permutation(40).tolist() if j != i][:3]
        choices = [*others, MAKERS[i] + " of " + MATERIALS[i % 10]]
        order = rng.permutation(4).tolist()
        examples.append(
            Example(
                id=f"bell-{i}",
                question=f"Who made the bell of {TOWNS[i]}?",
                choices=tuple(choices[j] for j in order),
                answer_index=order.index(3),
                answers=(choices[3],),
                gold_passages=(f"p{i}",),
                gold_doc_ids=(f"d{i}",),
            )
        )
    return Task(name="bells", kind="multiple_choice", examples=tuple(examples))


@pytest.fixture(scope="session")
def answer_task():
    examples = tuple(
        Example(
            id=f"who-{i}",
            question=f"who made the bell of {TOWNS[i]}",
            answers=(MAKERS[i], f"{MAKERS[i]} of {TOWNS[i]}"),
            gold_passages=(f"p{i}",),
        )
        for i in range(12)
    )
    return Task(name="makers", kind="generate", examples=examples, max_new_tokens=6)


@pytest.fixture(scope="session")
def text_task():
    texts = tuple(Example(id=f"text-{i}", question=fact(i) + " " + fact(i + 1)) for i in range(5))
    return Task(name="texts", kind="text", examples=texts, template=PromptTemplate(question="{question}"))


@pytest.fixture(scope="session")
def world():
    """Names and facts of the made-up world, and the maker of random models."""
    from types import SimpleNamespace

    return SimpleNamespace(towns=TOWNS, makers=MAKERS, materials=MATERIALS, fact=fact, make_module=make_module)
