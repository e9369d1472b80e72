"""The house: floors, notebooks that can be read, functions that say what they take."""
import ast
import inspect
import json
import re
import tomllib
from importlib import import_module
import pytest
from fastcore.docments import docments
from conftest import ROOT

CELL, BODY = 25, 20 # Lines, not counting parameters, which stand one on a line
PARTS = "data views nets losses targets metrics maps fit runs artefacts claims".split()
PAGES = {"08_figures": "artefacts", "08_pictures": "artefacts"} # Further pages of a part, which add to its module
DESKS = "reproduce manifest planner verdicts speedrun cluster cli".split()
MODULES = sorted(p for p in (ROOT/"clusterlab").rglob("*.py") if not p.name.startswith("_"))
NAMES = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in MODULES]
BOOKS = sorted(p for p in (ROOT/"nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
THIN = [p for p in BOOKS if p.parent.name in ("runs", "papers")]
LESSONS = [p for p in BOOKS if p.parent.name == "methods"]


def short(path): return path.relative_to(ROOT/"nbs").as_posix()
def book(path): return json.loads(path.read_text(encoding="utf-8"))
def text(cell): return "".join(cell["source"])
def code(path): return [c for c in book(path)["cells"] if c["cell_type"] == "code"]
def every(books): return pytest.mark.parametrize("path", books, ids=short)


# Floors

def floor(name):
    "0: part, 1: method, 2: desk."
    room = name.removeprefix("clusterlab.")
    if room.startswith("methods."): return 1
    if room in PARTS: return 0
    if room in DESKS: return 2
    raise ValueError(f"{name} is not in the house: add it to PARTS or DESKS, or put it into methods")


def imported(path, name):
    "Modules of ours that a module imports, as absolute names."
    found, home = set(), name.split(".")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import): found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(home[:len(home) - node.level] + ([node.module] if node.module else [])) if node.level else node.module
            found |= {base} | {f"{base}.{a.name}" for a in node.names}
    return sorted(found & set(NAMES))


@pytest.mark.parametrize("path, name", list(zip(MODULES, NAMES)), ids=NAMES)
def test_floors(path, name):
    "A part imports nothing of ours, a method parts and methods, a desk anything but the command line."
    for other in imported(path, name):
        fine = {0: False, 1: floor(other) <= 1, 2: other != "clusterlab.cli"}[floor(name)]
        assert fine, f"{name} imports {other}: floor {floor(name)} may not"


def test_floors_are_seen():
    "The walk sees relative imports, else the test above is worth nothing."
    assert "clusterlab.methods.byol" in imported(ROOT/"clusterlab"/"methods"/"pipcdr.py", "clusterlab.methods.pipcdr")
    assert "clusterlab.data" in imported(ROOT/"clusterlab"/"reproduce.py", "clusterlab.reproduce")


def test_no_loops():
    "No two modules import each other, however far apart."
    wants = {name: imported(path, name) for path,name in zip(MODULES, NAMES)}
    def below(name, above=()):
        assert name not in above, " imports ".join((*above, name))
        for other in wants[name]: below(other, (*above, name))
    for name in NAMES: below(name)


def test_no_rooms_without_a_name():
    "Nothing is called utils, helpers, common or core."
    assert not {"utils", "helpers", "common", "core"} & {name.split(".")[-1] for name in NAMES}


# Notebooks

@every(BOOKS)
def test_kernel(path):
    "Without name and language of a kernel papermill cannot run a notebook."
    spec = book(path)["metadata"].get("kernelspec", {})
    assert (spec.get("name"), spec.get("language")) == ("python3", "python")


@every(BOOKS)
def test_imports(path):
    "Names come from somewhere one can see; annotations stay objects, since shapes are checked at run time."
    for n,cell in enumerate(code(path)):
        for line in text(cell).splitlines():
            assert not re.match(r"\s*from\s+\S+\s+import\s+\*", line), f"code cell {n}: {line}"
            assert not re.match(r"\s*from\s+__future__\s+import\s+annotations", line), f"code cell {n}: {line}"


@every(BOOKS)
def test_size(path):
    "Notebooks stay small enough to read as a difference."
    assert path.stat().st_size <= 400_000
    for n,cell in enumerate(code(path)):
        assert len(json.dumps(cell["outputs"])) <= 100_000, f"outputs of code cell {n}"


@every(BOOKS)
def test_no_place(path):
    "No folder of the machine that a notebook was written on."
    found = re.findall(r"(?:/home/|/root/|/tmp/|/Users/|/work\b|[A-Z]:\\\\)[^\s\"']*", re.sub(r'"image/png": "[^"]*"', "", path.read_text(encoding="utf-8")))
    assert not found, found


def length(source):
    "Lines of a cell without those of its signatures."
    source = re.sub(r"^\s*[%!].*$", "pass", source, flags=re.M)
    signatures = [(n.lineno, n.body[0].lineno) for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef) and n.body[0].lineno > n.lineno + 1]
    return len(source.strip().splitlines()) - sum(end - begin - 1 for begin,end in signatures)


@every(BOOKS)
def test_cells(path):
    "A cell fits on a screen; only a cell of parameters may be longer."
    for n,cell in enumerate(code(path)):
        if "parameters" in cell["metadata"].get("tags", []): continue
        assert length(text(cell)) <= CELL, f"code cell {n} has {length(text(cell))} lines: {text(cell)[:80]!r}"


@every(BOOKS)
def test_imports_stand_alone(path):
    "An exported cell that imports does nothing else: building the documentation executes such cells."
    for n,cell in enumerate(code(path)):
        if not re.search(r"^#\| *exporti?\b", text(cell), re.M): continue
        kinds = {type(node) in (ast.Import, ast.ImportFrom) for node in ast.parse(text(cell)).body}
        assert len(kinds) < 2, f"code cell {n} mixes imports with code"


@every(THIN)
def test_parameters(path):
    "Papermill needs the tag, and executed copies never come back."
    tagged = [c for c in code(path) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    assert not any(c["outputs"] or c["execution_count"] for c in code(path))
    assert all(isinstance(node, ast.Assign) for node in ast.parse(text(tagged[0])).body), "a parameters cell only sets names"


@every(LESSONS)
def test_where_we_differ(path):
    "The last thing that a lesson says, even when it is: nowhere."
    heads = [line.lstrip("# ").strip() for c in book(path)["cells"] if c["cell_type"] == "markdown" for line in text(c).splitlines() if line.startswith("## ")]
    assert [h for h in heads if not h.startswith("Export")][-1] == "Where we differ from the document"


@every([p for p in BOOKS if p not in THIN and p.name != "index.ipynb"])
def test_exports_itself(path):
    "A lesson names its module and ends by exporting it; a further page of a lesson names that lesson's module in each cell that it adds."
    said = "\n".join(text(c) for c in code(path))
    name, added = re.search(r"#\| *default_exp +(\S+)", said), set(re.findall(r"^#\| *exporti?\b *(\S*)", said, re.M))
    if path.stem in PAGES: assert not name and added == {PAGES[path.stem]}
    else:
        assert name and added == {""}, "no default_exp, or a cell goes elsewhere"
        assert name[1].split(".")[-1] == re.sub(r"^\d+_", "", path.stem)
    assert f"clusterlab.{name[1] if name else PAGES[path.stem]}" in NAMES
    assert "nbdev.nbdev_export()" in text(code(path)[-1])


@pytest.mark.parametrize("stem, room", PAGES.items())
def test_pages(stem, room):
    "A page that adds to a module comes after the lesson that begins it, for notebooks are exported in the order of their names, and all of its names arrive."
    first, = [p for p in BOOKS if re.search(rf"^#\| *default_exp +{room}$", "\n".join(text(c) for c in code(p)), re.M)]
    assert first.name < f"{stem}.ipynb"
    cells = [text(c) for c in code(ROOT/"nbs"/f"{stem}.ipynb") if text(c).startswith("#| export ")]
    made = {node.name for source in cells for node in ast.parse(source).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    names = import_module(f"clusterlab.{room}").__all__
    assert made and made <= set(names) and len(names) == len(set(names))


# Functions

def functions(module):
    "Public functions and classes of a module, patched methods aside."
    return {n: getattr(module, n) for n in module.__all__ if callable(getattr(module, n)) and getattr(getattr(module, n), "__module__", "") == module.__name__}


@pytest.mark.parametrize("name", NAMES)
def test_docstrings(name):
    "A docstring is one line; prose lives in the notebook."
    said = {n: inspect.getdoc(f) for n,f in functions(import_module(name)).items()}
    assert not [n for n,doc in said.items() if not doc], "without a docstring"
    assert not [n for n,doc in said.items() if len(doc.splitlines()) > 1], "longer than a line"


def mute(function):
    "Parameters of a function that say nothing of themselves, and all that should."
    function = inspect.unwrap(function)
    told, kinds = docments(function, full=True), (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    asked = [p for p,how in inspect.signature(function).parameters.items() if p not in ("self", "cls") and how.kind not in kinds]
    return [p for p in asked if not (told.get(p) or {}).get("docment") and type(function.__annotations__.get(p)).__name__ != "Param"], asked


@pytest.mark.parametrize("path, name", list(zip(MODULES, NAMES)), ids=NAMES)
def test_docments(path, name):
    "Every parameter says what it is. Inner steps, which only their own notebook calls, may leave all of it out."
    elsewhere = "".join(p.read_text(encoding="utf-8") for p in MODULES if p != path)
    for n,function in functions(import_module(name)).items():
        if not inspect.isfunction(inspect.unwrap(function)): continue
        silent, asked = mute(function)
        inner = silent == asked and not re.search(rf"\b\w+\.{n}\(", elsewhere)
        assert inner or not silent, f"{n}: {', '.join(silent)}"


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_length(path):
    "A function can be read at once: its body, without signature and docstring."
    long = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)): continue
        body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
        lines = body[-1].end_lineno - body[0].lineno + 1
        if lines > BODY: long[node.name] = lines
    assert not long


# Pages

@pytest.mark.parametrize("path", sorted((ROOT/"experiments").glob("*.toml")), ids=lambda p: p.name)
def test_pages_parse(path):
    assert tomllib.loads(path.read_text(encoding="utf-8"))
