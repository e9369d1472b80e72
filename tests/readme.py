"""README.md from nbs/index.ipynb: `python tests/readme.py README.md` writes it, a test compares."""
import re
import sys
from pathlib import Path
import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]


def from_top(match):
    "A link of nbs/ as seen from the folder above; other links stay."
    before, target, after = match.groups()
    if re.match(r"[a-z]+:|#|/", target): return match[0]
    return before + (target.removeprefix("../") if target.startswith("../") else f"nbs/{target}") + after


def told(cell):
    "A cell that shows Markdown without its code becomes that Markdown."
    cell.update(cell_type="markdown", source="\n".join(o["data"]["text/markdown"] for o in cell.pop("outputs")))


def render(notebook=ROOT/"nbs"/"index.ipynb"):
    "Markdown without hidden cells and directives; links start from the top."
    book = nbformat.read(notebook, 4)
    book.cells = [c for c in book.cells if not re.search(r"^#\|\s*(hide|default_exp)\b", c.source, re.M)]
    for cell in book.cells:
        if cell.cell_type == "code" and "#| echo: false" in cell.source: told(cell)
        if cell.cell_type == "code": cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M)
        else: cell.source = re.sub(r'(\]\(|src=")([^)"\s]+)([)"])', from_top, cell.source)
    text, more = MarkdownExporter().from_notebook_node(book)
    if more["outputs"]: raise ValueError(f"{notebook} shows pictures as output, which README.md cannot hold: link to files in figures/ instead")
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.M)).strip() + "\n"


if __name__ == "__main__": Path(sys.argv[1]).write_text(render(), encoding="utf-8")
