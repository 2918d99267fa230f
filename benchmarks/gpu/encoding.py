"""Sentences per second of an encoder of MiniLM's shape (random weights), against sentence-transformers."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpu.clock import seconds
from gpu.jobs import Measure
from ragscale.retrieval import TransformerEncoder


def make_model(folder: Path, tiny: bool) -> None:
    """Save a BERT of 6 layers and 384 dimensions with a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3} | {f"w{i}": 4 + i for i in range(5000)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    width, layers = (32, 1) if tiny else (384, 6)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32 if tiny else 12,
        intermediate_size=4 * width,
    )
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)


def prepare(device: str, tiny: bool) -> Measure:
    rng = np.random.default_rng(0)
    texts = [
        " ".join(f"w{i}" for i in rng.integers(0, 5000, size)) for size in rng.integers(40, 128, 8 if tiny else 4096)
    ]
    folder = tempfile.TemporaryDirectory()
    make_model(Path(folder.name), tiny)
    ours = {kind: TransformerEncoder(folder.name, device=device, dtype=kind) for kind in ("float32", "bfloat16")}
    theirs: Any = None
    if importlib.util.find_spec("sentence_transformers") and not tiny:
        from sentence_transformers import SentenceTransformer, models

        body = models.Transformer(folder.name, max_seq_length=256)
        theirs = SentenceTransformer(modules=[body, models.Pooling(384)], device=device)

    def measure() -> Iterator[dict[str, Any]]:
        with folder:
            runs: dict[str, Any] = {
                f"TransformerEncoder, {name}": lambda encoder=encoder: encoder.encode(texts, kind="passage")
                for name, encoder in ours.items()
            }
            if theirs is not None:
                runs["sentence-transformers, float32"] = lambda: theirs.encode(texts, batch_size=256)
            for name, run in runs.items():
                run()
                took = seconds(run, device, rounds=2, times=1)
                yield {"what": name, "texts": len(texts), "seconds": took, "texts_per_second": len(texts) / took}
            if theirs is not None:
                half = theirs.bfloat16()
                took = seconds(lambda: half.encode(texts, batch_size=256), device, rounds=2, times=1)
                yield {
                    "what": "sentence-transformers, bfloat16",
                    "texts": len(texts),
                    "seconds": took,
                    "texts_per_second": len(texts) / took,
                }

    return measure
