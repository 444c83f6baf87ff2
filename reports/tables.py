"""One table, three formats: terminal, Markdown, LaTeX; the page's template makes the HTML.

Labels, prompts and reasons come from users: each writer escapes them.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from magbench.reports.grids import Grid, Item

LABEL, LABEL_LINE = 60, 30
"""Characters of a label in a terminal; of a longer one, a file's name perhaps, the middle is left out. One that is
longer than a line is broken between its parameters."""


def terminal(grid: Grid, width: int = 120) -> Table:
    """A rich table; print it with a rich console, then `footnotes(grid)`.

    Args:
        grid: The table.
        width: Characters it may take. Optional columns that don't fit are left out, and named in the caption.
    """
    headers = [_fold([_one_line(text) for text in lines]) for lines in grid.header]
    groups = [[(_cell(label, _label), *map(_cell, items)) for label, *items in group] for group in grid.groups]
    widths = [max(map(len, lines)) for lines in headers]
    for line in (line for group in groups for line in group):
        for index, cell in enumerate(line):
            widths[index] = max(widths[index], *(len(part) for part in cell.plain.split("\n")))
    left_out: list[int] = []
    for index in grid.optional:
        if sum(w + 3 for i, w in enumerate(widths) if i not in left_out) > width:
            left_out.append(index)
    shown = [index for index in range(len(headers)) if index not in left_out]
    caption = f"too wide for here, see the files: {', '.join(grid.header[i][0] for i in sorted(left_out))}"
    table = Table(
        title=Text(_one_line(grid.title)), title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False,
        show_edge=False, caption=Text(caption) if left_out else None, caption_justify="left",
    )  # fmt: skip
    for index in shown:
        justify: Literal["left", "right"] = "right" if index else "left"
        table.add_column(Text("\n".join(headers[index])), justify=justify, vertical="top", no_wrap=not index)
    for group in groups:
        for line in group:
            table.add_row(*(line[index] for index in shown))
        table.add_section()
    return table


def _label(text: str) -> Text:
    half = LABEL // 2
    text = text if len(text) <= LABEL else f"{text[: half - 1]}…{text[-half:]}"
    return Text("\n".join(_fold([text], LABEL_LINE, r"[^:,]+[:,]*|[:,]+")), style="bold")


def _cell(item: Item, look: Callable[[str], Text] = Text) -> Text:
    text = look(_one_line(item.text))
    text.append(f" {item.mark}" if item.mark else "", style=_MARK_STYLES.get(item.mark.strip("()"), "dim"))
    text.append(f" [{_numbers(item)}]" if item.notes else "", style="dim")
    text.append(f"\n{_one_line(item.detail)}" if item.detail else "", style="not bold dim")
    return text


_MARK_STYLES = {"+": "green", "-": "red", "≠": "yellow", "~": "dim", "!": "bold red", "*": "cyan", "x": "magenta"}


def _fold(lines: Sequence[str], width: int = 14, parts: str = r"@?[^_@\s]+_?|[_@]|\s+") -> list[str]:
    """Break long names between their parts, after an underscore or before an at-sign, so that columns stay narrow."""
    folded: list[str] = []
    for line in lines:
        current = ""
        for part in re.findall(parts, line):
            if current and len(current) + len(part) > width:
                folded.append(current.rstrip())
                current = part.lstrip()
            else:
                current += part
        folded.append(current)
    return folded


def footnotes(grid: Grid) -> list[str]:
    """The legend and the numbered notes, one line each, for a terminal."""
    return [*grid.legend, *(f"[{index}] {_one_line(text)}" for index, text in enumerate(grid.notes, 1))]


def markdown(grid: Grid) -> str:
    """GitHub Markdown."""

    def row(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |\n"

    out = [f"### {escape(grid.title)}\n\n", row("<br>".join(map(escape, lines)) for lines in grid.header)]
    out.append(row(["---"] + ["---:"] * (len(grid.header) - 1)))
    for group in grid.groups:
        for line in group:
            cells = []
            for item in line:
                note = f"<sup>{_numbers(item)}</sup>" if item.notes else ""
                detail = f"<br><sub>{escape(item.detail)}</sub>" if item.detail else ""
                cells.append(f"{escape(item.text)}{' ' + escape(item.mark) if item.mark else ''}{note}{detail}")
            out.append(row(cells))
    out += ["\n", *(f"{escape(text)}  \n" for text in grid.legend)]
    out += [f"<sup>{index}</sup> {escape(text)}  \n" for index, text in enumerate(grid.notes, 1)]
    return "".join(out)


def latex(grid: Grid) -> str:
    """A booktabs table; the package booktabs is all it needs."""
    columns = "l" + "r" * (len(grid.header) - 1)
    depth = max(len(lines) for lines in grid.header)
    padded = [[""] * (depth - len(lines)) + [_tex(line) for line in lines] for lines in grid.header]
    out = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering\\footnotesize",
        f"\\caption{{{_tex(grid.title)}}}",
    ]
    out += [f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}", "\\toprule"]
    out += [" & ".join(lines[level] for lines in padded) + r" \\" for level in range(depth)]
    for group in grid.groups:
        out.append("\\midrule")
        for line in group:
            out.append(" & ".join(_tex_item(item) for item in line) + r" \\")
            if any(item.detail for item in line):
                out.append(
                    " & ".join(f"{{\\tiny {_tex(item.detail)}}}" if item.detail else "" for item in line) + r" \\"
                )
    out += ["\\bottomrule", "\\end{tabular}", "", "\\raggedright\\scriptsize"]
    out += [f"{_tex(text)}\\par" for text in grid.legend]
    out += [f"\\textsuperscript{{{index}}} {_tex(text)}\\par" for index, text in enumerate(grid.notes, 1)]
    return "\n".join([*out, "\\end{table}", ""])


def _tex_item(item: Item) -> str:
    raised = " ".join(filter(None, (item.mark, _numbers(item))))
    return _tex(item.text) + (f"\\textsuperscript{{{_tex(raised)}}}" if raised else "")


def _numbers(item: Item) -> str:
    return ",".join(map(str, item.notes))


_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "[": "{[}",
    "]": "{]}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≠": r"$\neq$",
    "Δ": r"$\Delta$",
    "−": "$-$",
    "ₐ": r"\textsubscript{a}",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "–": r"\textendash{}",
}


def _tex(text: str) -> str:
    escaped = "".join(_TEX.get(character, character) for character in _one_line(text))
    return re.sub(r"(?<![\w$])-(?=\d)", "$-$", escaped)


def escape(text: str) -> str:
    """Escape Markdown and HTML; one line."""
    text = _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~!#$])", r"\\\1", text)


def _one_line(text: str) -> str:
    """Collapse white space and drop control characters."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())
