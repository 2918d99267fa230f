"""Formulas as MathML, made when the pages are built: browsers draw it, without a script and without the internet."""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

_ENVIRONMENTS = ("align", "gather", "multline", "equation")


def _latex(text: str) -> str:
    """Return LaTeX of one formula as latex2mathml reads it: aligned rows stand inside, without numbers."""
    text = text.strip()
    for name in _ENVIRONMENTS:
        text = re.sub(rf"\\(begin|end)\{{{name}\*?\}}", r"\\\1{aligned}", text)
    if "\\\\" in text and "\\begin" not in text:
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    text = re.sub(r"\\[bB]igg?[lr]?(\\[lr]vert|\\[lr]Vert)", r"\1", text)
    return text.replace(r"\tfrac", r"\frac").replace(r"\operatorname*", r"\operatorname")


def _inline(self: Any, node: Any) -> None:
    self.body.append(convert(_latex(node.astext())))
    raise _skip()


def _block(self: Any, node: Any) -> None:
    self.body.append(f'<div class="math">{convert(_latex(node.astext()), display="block")}</div>')
    raise _skip()


def _skip() -> Exception:
    from docutils.nodes import SkipNode

    return SkipNode()


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer under the name ``mathml``."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
