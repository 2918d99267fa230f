"""A self-contained page: headings, words, pictures and tables in order, written as HTML or as Markdown.

The HTML needs no network and no script: pictures are embedded, every table can be downloaded as CSV from the page
itself, and the colours follow the reader's light or dark setting.
"""

from __future__ import annotations

import base64
import html
import io
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ragscale._files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
:root{--ink:#1c2430;--soft:#5b6675;--paper:#fff;--line:#d9dee5;--band:#f4f6f9;--link:#0b5cad}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ee;--soft:#9aa6b5;--paper:#14181e;--line:#333c48;--band:#1d232b;--link:#7cb8ff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem clamp(1rem,4vw,3rem) 4rem;max-width:72rem;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:1.8rem;line-height:1.2;margin:.5rem 0 1rem}h2{font-size:1.3rem;margin:2.2rem 0 .6rem;padding-top:.6rem;
border-top:1px solid var(--line)}h3{font-size:1.05rem;margin:1.4rem 0 .4rem}
p,ul{max-width:46rem}a{color:var(--link)}figure{margin:1rem 0;padding:.8rem;border:1px solid var(--line);
border-radius:8px;background:#fff}figure img{display:block;max-width:100%;height:auto;margin:auto}
figcaption{color:#5b6675;font-size:.9rem;margin-top:.5rem}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:8px;margin:.6rem 0}
table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .7rem;text-align:right;white-space:nowrap}th{background:var(--band);font-weight:600}
tr+tr td{border-top:1px solid var(--line)}td:first-child,th:first-child{text-align:left}
@media(max-width:640px){figure{overflow-x:auto}figure img{max-width:none;width:44rem}}
.note{color:var(--soft);font-size:.9rem}pre{background:var(--band);padding:.8rem;border-radius:8px;overflow-x:auto;font-size:.85rem}
nav{font-size:.92rem;columns:16rem}nav a{display:block;padding:.1rem 0}
"""


@dataclass(frozen=True, slots=True)
class _Part:
    kind: str
    content: Any
    caption: str = ""


@dataclass(slots=True)
class Page:
    """Collects parts in order; `write` makes the file.

    Parameters
    ----------
    title : str
        Title of the page.
    """

    title: str
    _parts: list[_Part] = field(default_factory=list)

    def heading(self, text: str, *, level: int = 2) -> None:
        """Begin a section (level 2) or a part of it (level 3)."""
        self._parts.append(_Part(f"h{level}", text))

    def text(self, text: str, *, note: bool = False) -> None:
        """Add a paragraph; ``note`` makes it small."""
        self._parts.append(_Part("note" if note else "p", text))

    def bullets(self, lines: list[str]) -> None:
        """Add a list."""
        self._parts.append(_Part("ul", list(lines)))

    def code(self, text: str) -> None:
        """Add fixed-width text, such as a summary."""
        self._parts.append(_Part("pre", text))

    def table(self, frame: pd.DataFrame, name: str, *, caption: str = "", max_rows: int = 40) -> None:
        """Add a table; all its rows can be downloaded as ``name``.csv, the first ``max_rows`` are shown."""
        self._parts.append(_Part("table", (frame.reset_index(drop=True), name, max_rows), caption))

    def figure(self, figure: Figure, name: str, *, caption: str) -> None:
        """Add a matplotlib figure, drawn now at twice the screen's resolution."""
        buffer = io.BytesIO()
        figure.savefig(
            buffer, format="png", dpi=130, bbox_inches="tight", facecolor="white", metadata={"Software": None}
        )
        self._parts.append(_Part("figure", (buffer.getvalue(), name), caption))

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page: Markdown with pictures beside it for ``.md``, else one HTML file."""
        path = Path(path)
        if path.suffix == ".md":
            folder = path.with_name(f"{path.stem}-files")
            parts = (self._markdown(part, folder) for part in self._parts)
            text = "\n\n".join([f"# {markdown(self.title)}", *parts]) + "\n"
        else:
            text = self._html()
        with atomic_write(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def _html(self) -> str:
        sections = [part.content for part in self._parts if part.kind == "h2"]
        links = "".join(f'<a href="#{_anchor(text)}">{html.escape(text)}</a>' for text in sections)
        body = "\n".join(_html_part(part) for part in self._parts)
        title = html.escape(self.title)
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta name="color-scheme" content="light dark">\n<title>{title}</title>\n'
            f"<style>{_STYLE}</style>\n</head>\n"
            f'<body>\n<h1>{title}</h1>\n<nav aria-label="Sections">{links}</nav>\n{body}\n</body>\n</html>\n'
        )

    def _markdown(self, part: _Part, folder: Path) -> str:
        if part.kind == "table":
            frame, name, max_rows = part.content
            with atomic_write(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
                file.write(_csv(frame))
            rows = [frame.columns, *_cells(frame.head(max_rows))]
            lines = ["| " + " | ".join(markdown(cell) for cell in row) + " |" for row in rows]
            lines.insert(1, "| " + " | ".join(["---"] * len(frame.columns)) + " |")
            link = f"[{markdown(name)}.csv](<{folder.name}/{name}.csv>)"
            more = f" First {max_rows} of {len(frame)} rows." if len(frame) > max_rows else ""
            return "\n".join([*lines, "", f"{link}. {markdown(part.caption)}{more}".strip()])
        if part.kind == "figure":
            data, name = part.content
            with atomic_write(folder / f"{name}.png") as file:
                file.write(data)
            return f"![{markdown(name)}](<{folder.name}/{name}.png>)\n\n*{markdown(part.caption)}*"
        if part.kind == "ul":
            return "\n".join(f"- {markdown(line)}" for line in part.content)
        if part.kind == "pre":
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", part.content)), default=0))
            return f"{fence}text\n{part.content}\n{fence}"
        return {"h2": "## ", "h3": "### "}.get(part.kind, "") + markdown(part.content)


def markdown(text: Any) -> str:
    """Return text that Markdown shows as it stands: no HTML, link, emphasis or end of a table's cell comes of it.

    Examples
    --------
    >>> print(markdown("<b> [x](y) a|b"))
    &lt;b&gt; \\[x\\](y) a\\|b
    """
    escaped = re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(str(text), quote=False))
    return re.sub(r"\s*[\r\n\u2028\u2029]+\s*", "<br>", escaped)


def _csv(frame: pd.DataFrame) -> str:
    """Return a table as CSV in which no text is a formula to a spreadsheet."""

    def quiet(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value

    texts = [name for name in frame.columns if not pd.api.types.is_numeric_dtype(frame[name])]
    safe = frame.assign(**{str(name): frame[name].map(quiet) for name in texts})
    return safe.rename(columns=lambda name: quiet(str(name))).to_csv(index=False)


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _html_part(part: _Part) -> str:
    content = part.content
    if part.kind in {"h2", "h3"}:
        return f'<{part.kind} id="{_anchor(content)}">{html.escape(content)}</{part.kind}>'
    if part.kind == "ul":
        return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in content) + "</ul>"
    if part.kind == "pre":
        return f"<pre>{html.escape(content)}</pre>"
    if part.kind == "figure":
        data, name = content
        source = base64.b64encode(data).decode()
        caption = html.escape(part.caption)
        return (
            f'<figure><img alt="{html.escape(name)}: {caption}" src="data:image/png;base64,{source}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    if part.kind == "table":
        frame, name, max_rows = content
        return _html_table(frame, name, max_rows, part.caption)
    return f'<p class="note">{html.escape(content)}</p>' if part.kind == "note" else f"<p>{html.escape(content)}</p>"


def _html_table(frame: pd.DataFrame, name: str, max_rows: int, caption: str) -> str:
    head = "".join(f"<th>{html.escape(str(column))}</th>" for column in frame.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in _cells(frame.head(max_rows))
    )
    data = base64.b64encode(_csv(frame).encode()).decode()
    more = f" First {max_rows} of {len(frame)} rows." if len(frame) > max_rows else ""
    link = f'<a download="{html.escape(name)}.csv" href="data:text/csv;base64,{data}">{html.escape(name)}.csv</a>'
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="note">{html.escape(caption)}{more} Download: {link}</p>'
    )


def _cells(frame: pd.DataFrame) -> list[list[str]]:
    return [[format_cell(value) for value in row] for row in frame.itertuples(index=False)]


def format_cell(value: Any) -> str:
    """Write a value for people: four significant digits, SI-like suffixes for large counts.

    Examples
    --------
    >>> [format_cell(value) for value in (1.23456, 31_000_000, 7, float("nan"), "bm25", 1e-5)]
    ['1.235', '31M', '7', '', 'bm25', '1e-05']
    """
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):  # NumPy's strings have a __float__ too
        return str(value)
    number = float(value)
    if number != number:  # noqa: PLR0124 - the test for NaN
        return ""
    for scale, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if 1e17 > abs(number) >= scale:
            return f"{number / (1e3 if suffix == 'k' else scale):.4g}{suffix}"
    return f"{number:.4g}"
