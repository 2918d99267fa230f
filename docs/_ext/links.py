"""What names in docstrings link to, so that ``nitpicky`` builds hold only for names that should be somewhere.

Types in numpydoc docstrings are words for people: "array-like", "str to float", "(n_runs,)". Names of this library are
found by their last part, private homes included; names of NumPy, pandas, torch and others link to their own pages.
Nothing is fetched.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.util.nodes import make_refnode

_PYTHON = "https://docs.python.org/3/library/"
_NUMPY = "https://numpy.org/doc/stable/reference/"
_PANDAS = "https://pandas.pydata.org/docs/reference/api/"
_TORCH = "https://docs.pytorch.org/docs/stable/"
FOREIGN = {
    "abc.ABC": f"{_PYTHON}abc.html#abc.ABC",
    "collections.abc.Mapping": f"{_PYTHON}collections.abc.html#collections.abc.Mapping",
    "collections.abc.Sequence": f"{_PYTHON}collections.abc.html#collections.abc.Sequence",
    "numpy.ndarray": f"{_NUMPY}generated/numpy.ndarray.html",
    "numpy.random.Generator": f"{_NUMPY}random/generator.html",
    "numpy.random.SeedSequence": f"{_NUMPY}random/bit_generators/generated/numpy.random.SeedSequence.html",
    "numpy.argpartition": f"{_NUMPY}generated/numpy.argpartition.html",
    "numpy.random.default_rng": f"{_NUMPY}random/generator.html#numpy.random.default_rng",
    "numpy.lib.mixins.NDArrayOperatorsMixin": f"{_NUMPY}generated/numpy.lib.mixins.NDArrayOperatorsMixin.html",
    "pandas.DataFrame": f"{_PANDAS}pandas.DataFrame.html",
    "pandas.Series": f"{_PANDAS}pandas.Series.html",
    "matplotlib.axes.Axes": "https://matplotlib.org/stable/api/_as_gen/matplotlib.axes.Axes.html",
    "plotly.graph_objects.Figure": "https://plotly.com/python-api-reference/generated/plotly.graph_objects.Figure.html",
    "torch.nn.Module": f"{_TORCH}generated/torch.nn.Module.html",
    "torch.Tensor": f"{_TORCH}tensors.html",
    "tokenizers.Tokenizer": "https://huggingface.co/docs/tokenizers/api/tokenizer",
    "pathlib.Path": f"{_PYTHON}pathlib.html#pathlib.Path",
    "sentence_transformers.SentenceTransformer": "https://sbert.net",
    "transformers.PreTrainedModel": "https://huggingface.co/docs/transformers/main_classes/model",
    "transformers.PreTrainedTokenizerFast": "https://huggingface.co/docs/transformers/main_classes/tokenizer",
    "lm_eval.api.model.LM": "https://github.com/EleutherAI/lm-evaluation-harness/blob/main/docs/model_guide.md",
    "lmfit.Minimizer": "https://lmfit.github.io/lmfit-py/fitting.html#lmfit.minimizer.Minimizer",
}
_SHORT = {name.rpartition(".")[2]: url for name, url in FOREIGN.items()}
_WORDS = {"Arrow", "None", "True", "False", "Cut", "Parameters", "SeenPassages", "Size", "Tokens", "Weights"}


def resolve(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Find what a reference of the Python domain that Sphinx could not resolve stands for."""
    if node.get("refdomain") != "py":
        return None
    target, kind = node["reftarget"], node.get("reftype")
    if (kind == "class" and _is_words(target)) or _is_hook(target):
        return contnode
    url = FOREIGN.get(target) or (_SHORT.get(target) if kind in ("class", "obj") else None)
    if url:
        return nodes.reference("", "", contnode, internal=False, refuri=url, reftitle=target)
    objects = env.get_domain("py").objects
    last = target.rpartition(".")[2]
    ours = {
        name: entry
        for name, entry in objects.items()
        if not entry.aliased and (name.endswith(f".{target}") or _same(name, target, last))
    }
    if not ours:
        return contnode if target.startswith("ragscale.") and _is_private(target) else None
    name = min(ours, key=len)
    return make_refnode(app.builder, node["refdoc"], ours[name].docname, ours[name].node_id, contnode, name)


def _same(name: str, target: str, last: str) -> bool:
    """Say whether a documented name is the public one of a private home: ``ragscale.a._b.C`` is ``ragscale.a.C``."""
    if not target.startswith("ragscale."):
        return False
    if target.count(".") == 1:  # of the package itself, which shows names of its rooms
        return name.startswith("ragscale.") and name.rpartition(".")[2] == last and name.count(".") == 2
    return name.endswith(f".{last}") and _public(target) == _public(name)


def _public(name: str) -> str:
    parts = name.split(".")
    return ".".join([*(part for part in parts[:-1] if not part.startswith("_")), parts[-1]])


def _is_private(name: str) -> bool:
    """Say whether a name is not for users: a private base class, shown in "Bases" without a page of its own."""
    return name.rpartition(".")[2].startswith("_") or "._" in name


def _is_hook(target: str) -> bool:
    """Say whether a name is a method that authors of a subclass write: its page is the guide, not the reference."""
    return target.rpartition(".")[2].startswith("_")


def _is_words(target: str) -> bool:
    """Say whether the type of a parameter is words: no name of a class, which begin with a capital or have dots."""
    if target in _WORDS or not re.fullmatch(r"[A-Za-z_][\w.]*", target):
        return True
    return "." not in target and (target[0].islower() or len(target) == 1)


def setup(app: Any) -> dict[str, Any]:
    """Resolve names before Sphinx complains."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
