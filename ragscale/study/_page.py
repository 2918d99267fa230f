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
from ragscale.results._metric_words import metric_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1c2430"
"""The colour of text on the page; in pictures it becomes that of the reader's setting."""
_STYLE = """
:root{--ink:#1c2430;--soft:#5b6675;--paper:#fff;--line:#d9dee5;--band:#f4f6f9;--link:#0b5cad}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ee;--soft:#9aa6b5;--paper:#14181e;--line:#333c48;--band:#1d232b;--link:#7cb8ff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem clamp(1rem,4vw,3rem) 4rem;max-width:72rem;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:1.8rem;line-height:1.2;margin:.5rem 0 1rem}h2{font-size:1.3rem;margin:2.2rem 0 .6rem;padding-top:.6rem;
border-top:1px solid var(--line)}h3{font-size:1.05rem;margin:1.4rem 0 .4rem}
p,ul{max-width:46rem}a{color:var(--link)}figure{margin:1rem 0;padding:.8rem;border:1px solid var(--line);
border-radius:8px}.panels{display:flex;flex-wrap:wrap;gap:.6rem;justify-content:center}
.panels svg{flex:1 1 20rem;min-width:min(20rem,100%);max-width:36rem;width:100%;height:auto}
figcaption{color:var(--soft);font-size:.9rem;margin-top:.5rem}
details{margin:.5rem 0}summary{color:var(--soft);font-size:.9rem;cursor:pointer}
.answer{font-size:1.08rem;max-width:50rem}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:8px;margin:.6rem 0}
table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .7rem;text-align:right;white-space:nowrap}th{background:var(--band);font-weight:600}

td.words{text-align:left;white-space:normal;min-width:15rem}
tr+tr td{border-top:1px solid var(--line)}td:first-child,th:first-child{text-align:left}
@media(max-width:640px){
body{padding:1rem .8rem 3rem}figure{padding:.4rem}h1{font-size:1.4rem}nav{display:none}}
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

    def code(self, text: str, *, caption: str = "") -> None:
        """Add fixed-width text, such as a summary; in HTML folded up under a caption if there is one."""
        self._parts.append(_Part("pre", text, caption))

    def table(
        self, frame: pd.DataFrame, name: str, *, caption: str = "", max_rows: int = 40, shown: bool = False
    ) -> None:
        """Add a table; all its rows can be downloaded as ``name``.csv, the first ``max_rows`` are on the page.

        In HTML it is folded up under its caption unless ``shown``. Columns are headed in words; the file keeps names.
        """
        self._parts.append(_Part("table", (frame.reset_index(drop=True), name, max_rows, shown), caption))

    def figure(self, figure: Figure | list[Figure], name: str, *, caption: str) -> None:
        """Add a matplotlib figure, or several side by side, drawn now.

        In HTML they are SVG, in which text and axes follow the reader's light or dark setting; in Markdown PNG.
        """
        panels = figure if isinstance(figure, list) else [figure]
        drawn = [(_svg(panel, f"{name}-{i}"), _png(panel)) for i, panel in enumerate(panels)]
        self._parts.append(_Part("figure", (drawn, name), caption))

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
            frame, name, max_rows, _ = part.content
            with atomic_write(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
                file.write(_csv(frame))
            rows = [[column_words(column) for column in frame.columns], *_cells(frame.head(max_rows))]
            lines = ["| " + " | ".join(markdown(cell) for cell in row) + " |" for row in rows]
            lines.insert(1, "| " + " | ".join(["---"] * len(frame.columns)) + " |")
            link = f"[{markdown(name)}.csv](<{folder.name}/{name}.csv>)"
            more = f" First {max_rows} of {len(frame)} rows." if len(frame) > max_rows else ""
            return "\n".join([*lines, "", f"{link}. {markdown(part.caption)}{more}".strip()])
        if part.kind == "figure":
            drawn, name = part.content
            links = []
            for i, (_, data) in enumerate(drawn):
                file_name = f"{name}.png" if i == 0 else f"{name}-{i + 1}.png"
                with atomic_write(folder / file_name) as file:
                    file.write(data)
                links.append(f"![{markdown(name)}](<{folder.name}/{file_name}>)")
            return "\n".join(links) + f"\n\n*{markdown(part.caption)}*"
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
        text = f"<pre>{html.escape(content)}</pre>"
        return f"<details><summary>{html.escape(part.caption)}</summary>{text}</details>" if part.caption else text
    if part.kind == "figure":
        drawn, name = content
        caption = html.escape(part.caption)
        panels = "".join(svg for svg, _ in drawn)
        label = html.escape(f"{name}: {part.caption}", quote=True)
        return (
            f'<figure><div class="panels" role="img" aria-label="{label}">{panels}</div>'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    if part.kind == "table":
        frame, name, max_rows, shown = content
        return _html_table(frame, name, max_rows, shown, part.caption)
    return f'<p class="note">{html.escape(content)}</p>' if part.kind == "note" else f"<p>{html.escape(content)}</p>"


def _html_table(frame: pd.DataFrame, name: str, max_rows: int, shown: bool, caption: str) -> str:
    head = "".join(f"<th>{html.escape(column_words(column))}</th>" for column in frame.columns)
    rows = "".join("<tr>" + "".join(_html_cell(cell) for cell in row) + "</tr>" for row in _cells(frame.head(max_rows)))
    data = base64.b64encode(_csv(frame).encode()).decode()
    more = f" First {max_rows} of {len(frame)} rows." if len(frame) > max_rows else ""
    link = f'<a download="{html.escape(name)}.csv" href="data:text/csv;base64,{data}">{html.escape(name)}.csv</a>'
    return (
        f"<details{' open' if shown else ''}><summary>{html.escape(caption) or html.escape(name)}{more}</summary>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="note">Download: {link}</p></details>'
    )


def _html_cell(text: str) -> str:
    """Return a cell; one that holds a sentence wraps."""
    kind = ' class="words"' if len(text) > 40 else ""
    return f"<td{kind}>{html.escape(text)}</td>"


def _svg(figure: Figure, salt: str) -> str:
    """Return a figure as SVG to be put into a page: always the same bytes, its ink that of the page."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor").replace("xlink:href", "href")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)  # which HTML does not need
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{_anchor(salt)}-", text)
    return re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Software": None}
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white", metadata=metadata)
    return buffer.getvalue()


def _cells(frame: pd.DataFrame) -> list[list[str]]:
    return [[_words(value) for value in row] for row in frame.itertuples(index=False)]


def _words(value: Any) -> str:
    """Write a cell for people: yes and no, three digits."""
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return "yes" if value else "no"
    return format_cell(value, digits=3)


_COLUMNS = {
    "N": "parameters",
    "D": "pretraining tokens",
    "R": "store tokens",
    "budget": "budget (tokens)",
    "error_percent": "error (%)",
    "from_here": "helps from here on",
    "low": "95 % low",
    "high": "95 % high",
    "n": "models",
    "n_questions": "questions",
    "n_examples": "questions",
    "hit_rate": "answers shown",
    "answer_in_store": "answers in the store",
    "stderr": "standard error",
    "D_over_N": "pretraining tokens per parameter",
}


def column_words(name: Any) -> str:
    """Return the name of a table's column in words.

    Examples
    --------
    >>> column_words("D"), column_words("from_here"), column_words("exchange rate")
    ('pretraining tokens', 'helps from here on', 'exchange rate')
    """
    text = str(name)
    return _COLUMNS.get(text) or metric_words(text)


def format_cell(value: Any, *, digits: int = 4) -> str:
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
    for scale, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (10.0**digits, "k")):  # below, digits say it whole
        if 1e17 > abs(number) >= scale:
            return f"{number / (1e3 if suffix == 'k' else scale):.{digits}g}{suffix}"
    return f"{number:.{digits}g}"
