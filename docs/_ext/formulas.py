"""Formulas drawn by a KaTeX that is shipped with the pages: nothing is fetched from the internet."""

from __future__ import annotations

import html
import re
from typing import Any

from docutils.nodes import SkipNode

_ROWS = re.compile(r"\\(begin|end)\{(align|gather|equation|multline)\*?\}")


def _tex(node: Any) -> str:
    """Return the LaTeX of one formula: rows stand inside of one display, without numbers."""
    text = _ROWS.sub(r"\\\1{aligned}", node.astext().strip())
    if "\\\\" in text and "\\begin" not in text:
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    return text


def _element(tag: str, node: Any) -> str:
    tex = html.escape(_tex(node))
    return f'<{tag} class="math notranslate nohighlight" data-tex="{tex}">{tex}</{tag}>'


def _inline(self: Any, node: Any) -> None:
    self.body.append(_element("span", node))
    raise SkipNode


def _block(self: Any, node: Any) -> None:
    self.body.append(_element("div", node))
    raise SkipNode


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer under the name ``katex``."""
    app.add_html_math_renderer("katex", (_inline, None), (_block, None))
    app.add_css_file("katex/katex.min.css")
    app.add_js_file("katex/katex.min.js", loading_method="defer")
    app.add_js_file("katex/pages.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
