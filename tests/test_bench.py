"""The benchmarks run, and the page of speeds says what they found."""
import json
import runpy
import sys
import pytest
import torch
from conftest import ROOT

BENCH, RESULTS = ROOT/"bench", ROOT/"bench"/"results"
SCRIPTS = sorted(path.stem for path in BENCH.glob("*.py") if path.stem not in ("rivals", "speed"))


@pytest.fixture
def run(monkeypatch, capsys):
    "A script of `bench`, by name, as the command line runs it."
    monkeypatch.syspath_prepend(str(BENCH))
    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *words])
        try: runpy.run_path(str(BENCH/f"{name}.py"), run_name="__main__")
        finally: torch.set_num_threads(1)
        return capsys.readouterr().out
    return run


@pytest.mark.parametrize("name", SCRIPTS)
def test_rehearsal(run, name):
    "Each runs at a toy size, tells all that the page needs, and leaves the results as they are."
    before, said = {path: path.read_bytes() for path in RESULTS.glob("*.json")}, run(name, "--toy")
    for told in (json.loads("{" + part) for part in ("\n" + said).split("\n{")[1:]):
        assert told["ours"] in told["rows"] and all(row["ratio"] > 0 and len(row["seconds"]) == len(row["within"]) == 3 for row in told["rows"].values())
    assert before == {path: path.read_bytes() for path in RESULTS.glob("*.json")}


def test_page(monkeypatch):
    "The committed page is what the committed results give, and every script for a CPU has a result."
    monkeypatch.syspath_prepend(str(BENCH))
    assert (ROOT/"tables"/"speed.md").read_text() == runpy.run_path(str(BENCH/"speed.py"))["page"]()
    assert {*SCRIPTS} - {"gpu"} <= {path.stem for path in RESULTS.glob("*.json")}


def test_exact():
    "Speed is not bought with wrong neighbours, worse clusters or worse maps."
    knn, kmeans, unions, tsne = (json.loads((RESULTS/f"{name}.json").read_text())["checks"] for name in ("knn", "kmeans", "unions", "tsne"))
    assert min(knn["same neighbour in the same place"].values()) > .9999
    assert kmeans["objective over that of scikit-learn"]["clusterlab, all restarts at once"] < 1.001
    assert max(tsne["divergence over that of scikit-learn"].values()) < 1.02
    assert set(unions.values()) == {0}
