"""Every method, the same demands: it runs from the command line and by papermill, refuses what it does not know, and stands on record."""
import json
import math
from concurrent.futures import ThreadPoolExecutor
import pytest
from clusterlab import planner, reproduce
from conftest import ROOT, command, records, sandbox

METHODS = reproduce.method_names()
FEW = ["limit=192", "batch=48"]


def words(method, **more):
    "Options that make a run of seconds, those that the method has."
    kept = [word for word in FEW if word.split("=")[0] in reproduce.options(method)]
    return ["--set", *kept, *(f"{n}={v}" for n,v in more.items())]


def test_enough():
    assert len(METHODS) >= 20
    told = command("list", "methods").out
    assert all(name in told for name in METHODS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory): return tmp_path_factory.mktemp("methods")


@pytest.mark.parametrize("method", METHODS)
def test_runs(method, folder):
    "From the command line, budget smoke: finished, every number a number, one cluster for each image."
    said = command("run", method, "--seed", "3", *words(method), *sandbox(folder/"runs"))
    assert said.code == 0, said.err
    record = [r for r in records(folder/"runs").values() if r["spec"]["method"] == method and r["spec"]["config"].get("stop") == r["spec"]["config"].get("epochs")][-1]
    assert record["status"] == "finished" and sum(record["sizes"]) == 192 and len(record["sizes"]) == record["spec"]["k"] == 10
    assert all(math.isfinite(v) for v in record["scores"].values()), record["scores"]
    assert {"acc", "nmi", "ari", "used", "std"} <= set(record["scores"])
    assert record["history"]["epoch"][-1] == record["spec"]["config"].get("stop", 0)


@pytest.mark.parametrize("method", METHODS)
def test_answers_do_not_depend_on_labels(method):
    "Nothing but category discovery is ever handed a label."
    assert hasattr(reproduce.method_class(method), "know") == ("old" in reproduce.options(method))


@pytest.mark.parametrize("method", METHODS)
def test_refuses(method, tmp_path):
    "A wrong name and a wrong value, from the command line and from the notebook."
    for wrong, told in (("nonsense=1", f"option of {method}"), ("limit=1.5", "limit is 1.5"), ("k=-1", "k is -1"), ("k=100000", "k is 100000")):
        said = command("run", method, "--set", wrong, *sandbox(tmp_path))
        assert said.code == 2 and told in said.err, (wrong, said.err)
    with pytest.raises(ValueError, match=f"parameter of {method}.ipynb: 'nonsense'"): reproduce.from_notebook(method, dict(budget="smoke", runs=str(tmp_path), nonsense=1))
    assert not list(tmp_path.iterdir())


def test_papermill(folder, tmp_path):
    "papermill runs every method and gives the record that the command line gave; two at a time, in forks of a warm process."
    def run(method):
        given = {"budget": "smoke", "seed": 3, "runs": str(tmp_path/"runs"), **{w.split("=")[0]: int(w.split("=")[1]) for w in words(method)[1:]}}
        return planner.in_process(str(planner.notebook_of(method)), str(tmp_path/f"{method}.ipynb"), given, 1, float("inf"))
    with ThreadPoolExecutor(2) as pool: said = dict(zip(METHODS, pool.map(run, METHODS)))
    assert not {method: told for method,told in said.items() if told}
    here, there = ({p.name: r["scores"] for p,r in records(root).items()} for root in (folder/"runs", tmp_path/"runs"))
    assert set(METHODS) <= {p.parent.parent.name for p in records(tmp_path/"runs")}
    assert all(there[name] == here[name] for name in there if name in here)


OPEN = set() # Methods that run, but whose laptop runs are not on record yet


@pytest.mark.parametrize("method", [m for m in METHODS if m not in OPEN])
def test_on_record(method):
    "Three seeds at budget laptop, on digits, are committed."
    found = [json.loads(p.read_text()) for p in sorted((ROOT/"runs"/method/"digits").glob("*.json"))]
    seeds = {r["spec"]["seed"] for r in found if r["spec"]["budget"] == "laptop" and r["status"] == "finished"}
    assert {0, 1, 2} <= seeds
