"""
Evaluate with and without retrieval
===================================

A small random OLMo-2, a store of made-up facts, and questions about them: what the closed book, the retrieved
passages, the gold passage and unrelated passages do to the likelihood of the right answer. The model knows nothing, so
nothing is gained here; the tables are those of a real run.
"""

# %%
# A world
# -------
# Every passage states one fact; every question asks for one.

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Olmo2Config, Olmo2ForCausalLM, PreTrainedTokenizerFast

import ragscale as rs
from ragscale.evaluation import (
    Example,
    Task,
    TorchModel,
    compare_conditions,
    decompose_gain,
    prepare_prompts,
)
from ragscale.passages import Passage
from ragscale.retrieval import BM25Retriever

rng = np.random.default_rng(0)
syllables = [
    "ba",
    "do",
    "fi",
    "ka",
    "lem",
    "mor",
    "nu",
    "ro",
    "sil",
    "tan",
    "vu",
    "zor",
]
names = list(
    dict.fromkeys("".join(rng.choice(syllables, 3)).capitalize() for _ in range(300))
)
towns, makers = names[:100], names[100:200]
story = (
    "The bell of {} was made by {}. "
    "People come from far away to hear it on the first day of every spring."
)
facts = [story.format(town, maker) for town, maker in zip(towns, makers, strict=True)]

bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
bpe.decoder = decoders.ByteLevel()
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
trainer = trainers.BpeTrainer(
    vocab_size=800,
    special_tokens=["<eos>"],
    initial_alphabet=alphabet,
    show_progress=False,
)
bpe.train_from_iterator(facts, trainer)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>")

passages = [
    Passage(f"p{i}", fact, len(tokenizer.encode(fact)), f"d{i}")
    for i, fact in enumerate(facts)
]
retriever = BM25Retriever().index(passages)

examples = []
for i in range(0, 100, 4):
    wrong = [makers[j] for j in rng.permutation(100)[:4] if j != i][:3]
    index = int(rng.integers(4))
    choices = [*wrong[:index], makers[i], *wrong[index:]]
    examples.append(
        Example(
            id=f"bell-{i}",
            question=f"Who made the bell of {towns[i]}?",
            choices=tuple(choices),
            answer_index=index,
            answers=(makers[i],),
            gold_passages=(f"p{i}",),
        )
    )
task = Task(name="bells", kind="multiple_choice", examples=tuple(examples))

# %%
# Two checkpoints, one set of prompts
# -----------------------------------
# Retrieval, prompts and tokens are made once. The stores are nested, so one search serves all sizes, and a question
# whose best passages do not change from one store to the next is scored once.


def random_model(seed: int, width: int) -> TorchModel:
    torch.manual_seed(seed)
    config = Olmo2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=0,
    )
    return TorchModel(Olmo2ForCausalLM(config), tokenizer)


small, large = random_model(0, 16), random_model(1, 64)
prompts = prepare_prompts(
    task,
    small,
    retriever=retriever,
    store_tokens=[0, 1000, retriever.n_tokens],
    k=2,
    condition=["retrieved", "random", "oracle"],
)
print(prompts)
evaluations = {
    name: rs.evaluate(lm, prompts, D=1e6)
    for name, lm in (("small", small), ("large", large))
}

# %%
# Rows of the results table
# -------------------------
# ``hit_rate`` is the share of questions whose answer stands in the prompt, ``answer_in_store`` the share whose answer
# stands anywhere in the store.

results = evaluations["large"].results
columns = [
    "R",
    "condition",
    "metric",
    "value",
    "stderr",
    "chance",
    "hit_rate",
    "answer_in_store",
]
results[results["metric"].isin(["nll_per_byte", "accuracy"])][columns].round(3)

# %%
# What a condition changed
# ------------------------
# Differences are taken question by question, with a paired bootstrap.

compare_conditions(evaluations["large"].samples, "nll_per_byte", rng=0).round(3)

# %%
# Finding and reading
# -------------------
# The gain is the hit rate times the gain where the answer was found, plus the rest times the gain where it was not.

decompose_gain(evaluations["large"].samples, "nll_per_byte").round(3).T
