"""Encoders that run a neural network over tokens.

B texts of a batch, L tokens of the padded length, W width of a hidden state.

Every batch has a shape that its texts decide one by one: a text is padded to the next multiple of eight tokens and
run among a fixed number of rows, the missing ones filled up. On one machine a text's vector then has the same bits
whatever it was encoded with, which is what lets stores of every size and queries in any batch agree exactly.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ragscale._extras import from_pretrained, require
from ragscale._files import canonical_json
from ragscale.errors import ConfigError
from ragscale.retrieval._encoder import Encoder, Kind, Truncation, Vectors, unit_length

if TYPE_CHECKING:
    import torch

    from ragscale._typing import InFolder, Tokenizer

Pooling = Literal["mean", "cls", "last"]

_LENGTH_STEP = 8
_PROBES = 64
_ROWS = {"cpu": 8, "cuda": 64}


def pool(hidden: torch.Tensor, mask: torch.Tensor, how: Pooling) -> torch.Tensor:
    """Reduce the hidden states of each text to one, whichever side it is padded on.

    Parameters
    ----------
    hidden : tensor, shape (B, L, W)
        Hidden states.
    mask : tensor, shape (B, L)
        1 at the text's own tokens, 0 at padding.
    how : {"mean", "cls", "last"}
        The average over the text's tokens, its first token, or its last token. Taking position -1 for "last" is
        right only under left padding, the mask's sum less one only under right padding; the mask says which.

    Returns
    -------
    tensor, shape (B, W)
    """
    import torch

    if how == "mean":
        weight_BL1 = mask.to(hidden.dtype).unsqueeze(-1)
        return (hidden * weight_BL1).sum(1) / weight_BL1.sum(1).clamp(min=1e-9)
    if how == "cls":
        position_B = mask.int().argmax(dim=1)
    elif how == "last":
        position_B = mask.shape[1] - 1 - mask.int().flip(1).argmax(dim=1)
    else:
        raise ConfigError(f"pooling must be 'mean', 'cls' or 'last', got {how!r}")
    return hidden[torch.arange(len(hidden), device=hidden.device), position_B]


class _TokenEncoder(Encoder):
    """What encoders over tokens share: prompts, truncation that is counted, batches of fixed shape."""

    batch_size: int | None = None
    max_length: int | None = None
    normalize: bool = True

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_loaded", "_weights", "_weights_state")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    @abstractmethod
    def _load_model(self) -> tuple[Any, Any, int]:
        """Return (model on its device in evaluation mode, tokenizer, most tokens)."""

    @abstractmethod
    def _forward(self, model: Any, ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """Return one vector per text, shape (B, dim)."""

    @abstractmethod
    def _prompt(self, kind: Kind) -> str:
        """Return what is put before a text."""

    @property
    def _parts(self) -> tuple[Any, Any, int]:
        if "_loaded" not in vars(self):
            self._loaded = self._load_model()
        return self._loaded

    def truncation(self, kind: Kind = "passage") -> Truncation:
        """Return how much of all texts of this kind encoded so far was cut off."""
        return self._cut().get(kind, Truncation())

    def _cut(self) -> dict[Kind, Truncation]:
        return vars(self).setdefault("_truncation", {})

    def describe(self) -> dict[str, Any]:
        """Return the encoder's kind, dimensions, window, arguments and how much text was cut off."""
        cut = {kind: asdict(self.truncation(kind)) for kind in ("passage", "query")}
        return {**super().describe(), "max_length": self._parts[2], "truncation": cut}

    def _encode(self, texts: Sequence[str], kind: Kind) -> Vectors:
        import torch

        model, tokenizer, most = self._parts
        ids, lengths = tokenize(tokenizer, [self._prompt(kind) + text for text in texts], most)
        device = next(model.parameters()).device
        n_rows = self.batch_size or _ROWS.get(device.type, 8)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        vectors = np.empty((len(texts), self.dim), np.float32)
        with torch.inference_mode():
            for members, length in fixed_batches([len(one) for one in ids], n_rows, most):
                rows = [ids[i] for i in members] + [ids[members[0]]] * (n_rows - len(members))
                ids_BL = torch.tensor([row + [pad] * (length - len(row)) for row in rows], device=device)
                mask_BL = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=device)
                vectors[members] = self._forward(model, ids_BL, mask_BL)[: len(members)].float().cpu().numpy()
        cut = Truncation(
            n_texts=len(texts),
            n_truncated=sum(full > len(kept) for full, kept in zip(lengths, ids, strict=True)),
            n_tokens=sum(lengths),
            n_tokens_lost=sum(full - len(kept) for full, kept in zip(lengths, ids, strict=True)),
        )
        self._cut()[kind] = self.truncation(kind) + cut
        return unit_length(vectors) if self.normalize else vectors

    def state(self) -> Any:
        """Return versions and samples of the weights: a few milliseconds, where their digest takes seconds."""
        import torch

        tensors = [tensor for _, tensor in sorted(self._parts[0].state_dict().items()) if tensor.is_floating_point()]
        with torch.no_grad():
            sums = [_sample(tensor).double().sum() for tensor in tensors]
            return torch.stack(sums).cpu().numpy().tobytes() if sums else b""

    def _weights_digest(self) -> str:
        state = self.state()
        if vars(self).get("_weights_state") != state:
            self._weights_state = state
            model, tokenizer, _ = self._parts
            digest = hashlib.sha256(_tokenizer_text(tokenizer).encode())
            for name, tensor in sorted(model.state_dict().items()):
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(_bytes(tensor))
            self._weights = digest.hexdigest()
        return self._weights

    def _fingerprint(self) -> dict[str, Any]:
        prompts = {kind: self._prompt(kind) for kind in ("passage", "query")}
        return {
            "weights": self._weights_digest(),
            "prompts": prompts,
            "max_length": self._parts[2],
            "normalize": self.normalize,
        }


class TransformerEncoder(_TokenEncoder):
    """Encode with any Hugging Face model: pool its last hidden states.

    Parameters
    ----------
    model : str, path or PreTrainedModel
        A name on the hub, a directory, or a model already loaded: then also give ``tokenizer``; its dtype and, under
        ``device="auto"``, its device stay as they are, and it is put into evaluation mode.
    tokenizer : str, path or tokenizer, optional
        Of the model by default.
    pooling : {"mean", "cls", "last"}
        The average over tokens, the first, or the last token.
    query_prompt, passage_prompt : str
        Put before each text, as the model was trained, e.g. ``"query: "`` for E5.
    normalize : bool
        Scale vectors to length 1, so that the inner product is the cosine.
    max_length : int, optional
        Most tokens of a text, special tokens included; the model's own limit by default.
    batch_size : int, optional
        Texts of one batch: 8 on a CPU, 64 on a GPU by default.
    dtype : {"float32", "bfloat16", "float16"}
        Of the weights. Pooling and the vectors stay in float32.
    device : str
        ``"auto"`` takes a GPU where there is one.
    layer : int
        Which hidden state; -1 is the last.

    Examples
    --------
    >>> encoder = TransformerEncoder("intfloat/e5-base-v2", query_prompt="query: ", passage_prompt="passage: ")
    >>> encoder.pooling
    'mean'
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | torch.nn.Module,
        *,
        tokenizer: str | os.PathLike[str] | Tokenizer | None = None,
        pooling: Pooling = "mean",
        query_prompt: str = "",
        passage_prompt: str = "",
        normalize: bool = True,
        max_length: int | None = None,
        batch_size: int | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        device: str = "auto",
        layer: int = -1,
    ) -> None:
        _check_options(pooling=pooling, dtype=dtype, batch_size=batch_size, max_length=max_length)
        self.model, self.tokenizer = (_as_name(value) for value in (model, tokenizer))
        self._arguments.update(model=self.model, tokenizer=self.tokenizer)
        if self.tokenizer is None and not isinstance(self.model, str):
            raise ConfigError("a model object comes without its tokenizer: TransformerEncoder(model, tokenizer=...)")
        self.pooling: Pooling = pooling
        self.layer = layer
        self.query_prompt, self.passage_prompt = query_prompt, passage_prompt
        self.normalize, self.max_length, self.batch_size = normalize, max_length, batch_size
        self.dtype, self.device = dtype, device

    @property
    def dim(self) -> int:
        """Width of the model's hidden states."""
        config = self._parts[0].config
        return int(config.hidden_size)

    def _prompt(self, kind: Kind) -> str:
        return self.query_prompt if kind == "query" else self.passage_prompt

    def _load_model(self) -> tuple[Any, Any, int]:
        torch, transformers = require("torch", "dense"), require("transformers", "dense")
        tokenizer, model = self.tokenizer, self.model
        if tokenizer is None or isinstance(tokenizer, str):
            tokenizer = from_pretrained(transformers.AutoTokenizer, tokenizer or model)
        device = None if self.device == "auto" else self.device
        if isinstance(model, str):
            model = from_pretrained(transformers.AutoModel, model, dtype=getattr(torch, self.dtype))
            device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
        model = getattr(model, "base_model", model)  # a causal LM's trunk: its hidden states, not its logits
        model = (model if device is None else model.to(device)).eval()
        limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None), self.max_length]
        known = [int(limit) for limit in limits if limit and limit < 1_000_000]
        if not known:
            raise ConfigError(
                f"neither {self.model!r} nor its tokenizer states how long a text may be: give max_length"
            )
        return model, tokenizer, min(known)

    def _forward(self, model: Any, ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        if self.layer == -1:
            hidden_BLW = model(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        else:
            hidden_BLW = model(input_ids=ids_BL, attention_mask=mask_BL, output_hidden_states=True).hidden_states[
                self.layer
            ]
        return pool(hidden_BLW.float(), mask_BL, self.pooling)

    def _fingerprint(self) -> dict[str, Any]:
        return {**super()._fingerprint(), "pooling": self.pooling, "layer": self.layer, "dtype": self.dtype}


class CheckpointEncoder(TransformerEncoder):
    """Encode with the hidden states of a language model that was trained here, so that no other text is involved.

    Parameters
    ----------
    checkpoint : str, path or Checkpoint
        A checkpoint's directory, or the `Checkpoint` itself.
    pooling : {"mean", "cls", "last"}
        The average is the better choice for a causal model that was never trained to embed.
    layer : int
        Which hidden state: the middle layers often carry more meaning than the last.
    normalize, max_length, batch_size, dtype, device
        As for `TransformerEncoder`.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str] | InFolder,
        *,
        pooling: Pooling = "mean",
        layer: int = -1,
        normalize: bool = True,
        max_length: int | None = None,
        batch_size: int | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        device: str = "auto",
    ) -> None:
        where: Any = getattr(checkpoint, "path", checkpoint)
        self.checkpoint: str = os.fspath(where)
        super().__init__(
            self.checkpoint,
            pooling=pooling,
            layer=layer,
            normalize=normalize,
            max_length=max_length,
            batch_size=batch_size,
            dtype=dtype,
            device=device,
        )
        for name in ("model", "tokenizer"):
            self._arguments.pop(name, None)
        self._arguments["checkpoint"] = self.checkpoint


class SentenceTransformerEncoder(_TokenEncoder):
    """Encode with a SentenceTransformer, its own pooling, prompts and normalisation included.

    Parameters
    ----------
    model : str, path or SentenceTransformer
        A name on the hub, a directory, or a model already loaded.
    query_prompt, passage_prompt : str, optional
        Put before each text; by default the model's prompts named ``query`` and ``document`` (or ``passage``).
    normalize : bool
        Scale vectors to length 1.
    max_length, batch_size, device
        As for `TransformerEncoder`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | torch.nn.Module,
        *,
        query_prompt: str | None = None,
        passage_prompt: str | None = None,
        normalize: bool = True,
        max_length: int | None = None,
        batch_size: int | None = None,
        device: str = "auto",
    ) -> None:
        _check_options(batch_size=batch_size, max_length=max_length)
        self.model = _as_name(model)
        self._arguments["model"] = self.model
        self.query_prompt, self.passage_prompt = query_prompt, passage_prompt
        self.normalize, self.max_length, self.batch_size, self.device = normalize, max_length, batch_size, device

    @property
    def dim(self) -> int:
        """Length of the model's sentence embeddings."""
        model = self._parts[0]
        modern = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
        return int(modern())

    def _prompt(self, kind: Kind) -> str:
        given = self.query_prompt if kind == "query" else self.passage_prompt
        if given is not None:
            return given
        prompts = self._parts[0].prompts or {}
        names = ("query",) if kind == "query" else ("document", "passage")
        return next((prompts[name] for name in names if prompts.get(name)), "")

    def _load_model(self) -> tuple[Any, Any, int]:
        model = self.model
        if isinstance(model, str):
            library = require("sentence_transformers", "all")
            device = None if self.device == "auto" else self.device
            model = from_pretrained(library.SentenceTransformer, model, device=device)
        tokenizer = getattr(model, "tokenizer", None)
        if not hasattr(tokenizer, "pad_token_id"):
            raise ConfigError(f"{self.model!r} does not read tokens: wrap its encode() in an Encoder of your own")
        limits = [limit for limit in (model.max_seq_length, self.max_length) if limit]
        if not limits:
            raise ConfigError(f"{self.model!r} does not state how long a text may be: give max_length")
        return model.eval(), tokenizer, min(limits)

    def _forward(self, model: Any, ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        return model({"input_ids": ids_BL, "attention_mask": mask_BL})["sentence_embedding"]


def tokenize(tokenizer: Any, texts: Sequence[str], most: int) -> tuple[list[list[int]], list[int]]:
    """Return each text's tokens, cut to at most ``most``, and how many there were before cutting."""
    plain = {"padding": False, "split_special_tokens": True}  # a text that spells [SEP] holds those characters
    ids = tokenizer(list(texts), truncation=False, verbose=False, **plain)["input_ids"]
    lengths = [len(one) for one in ids]
    long = [i for i, length in enumerate(lengths) if length > most]
    if long:
        cut = tokenizer([texts[i] for i in long], truncation=True, max_length=most, **plain)["input_ids"]
        for i, one in zip(long, cut, strict=True):
            ids[i] = one
    empty = next(
        (i for i in (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id) if i is not None), 0
    )
    return [list(one) if len(one) else [empty] for one in ids], lengths


def fixed_batches(lengths: Sequence[int], n_rows: int, most: int) -> Iterator[tuple[list[int], int]]:
    """Yield (members, padded length), shortest first; a text's padded length depends on its own length alone."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, length in enumerate(lengths):
        by_length[min(-(-length // _LENGTH_STEP) * _LENGTH_STEP, max(most, length))].append(i)
    for length in sorted(by_length):
        members = by_length[length]
        for start in range(0, len(members), n_rows):
            yield members[start : start + n_rows], length


def _check_options(**options: Any) -> None:
    problems = []
    if options.get("pooling", "mean") not in {"mean", "cls", "last"}:
        problems.append(f"pooling must be 'mean', 'cls' or 'last', got {options['pooling']!r}")
    if options.get("dtype", "float32") not in {"float32", "bfloat16", "float16"}:
        problems.append(f"dtype must be 'float32', 'bfloat16' or 'float16', got {options['dtype']!r}")
    problems += [
        f"{name} must be at least 1, got {options[name]}"
        for name in ("batch_size", "max_length")
        if options.get(name) is not None and options[name] < 1
    ]
    if problems:
        raise ConfigError("; ".join(problems))


def _as_name(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _tokenizer_text(tokenizer: Any) -> str:
    """Return what decides a tokenizer's output, without the truncation that its last call left behind."""
    if not hasattr(tokenizer, "backend_tokenizer"):
        return canonical_json(tokenizer.get_vocab())
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    return canonical_json({name: value for name, value in described.items() if name not in {"truncation", "padding"}})


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // _PROBES)]


def _bytes(tensor: torch.Tensor) -> bytes:
    import torch

    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
