"""The benchmarks run, and the page of speeds says what they found."""
import json
import re
import runpy
import sys
import pytest
import torch
from packaging.requirements import Requirement
from conftest import ROOT

BENCH, RESULTS = ROOT/"bench", ROOT/"bench"/"results"
SCRIPTS = sorted(path.stem for path in BENCH.glob("*.py") if path.stem not in ("rivals", "peers", "speed"))


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
    "Speed is not bought with wrong neighbours or worse clusters."
    knn, kmeans, unions = (json.loads((RESULTS/f"{name}.json").read_text())["checks"] for name in ("knn", "kmeans", "unions"))
    assert min(knn["same neighbour in the same place"].values()) > .9999
    assert kmeans["objective over that of scikit-learn"]["clusterlab, all restarts at once"] < 1.001
    assert set(unions.values()) == {0}


def test_slower(monkeypatch):
    "Whoever is quicker than we are stands on the page with a reason; what is ours as well is no rival."
    monkeypatch.syspath_prepend(str(BENCH))
    speed = runpy.run_path(str(BENCH/"speed.py"))
    rows = {name: dict(ratio=ratio) for name,ratio in dict(ours=1., quick=.9, slow=1.1, engine=.5, load=.5).items()}
    told = dict(what="a race", ours="ours", rows=rows, own=["engine"], most={"load": .6})
    assert speed["slower"](told) == [f"- a race: quick takes 0.9 times as long: {speed['UNTOLD']}."]
    assert speed["slower"](told | dict(reasons={"quick": "it has wings"})) == ["- a race: quick takes 0.9 times as long: it has wings."]
    assert speed["UNTOLD"] not in speed["page"](), "tell the reason in the script: report(..., reasons={rival: why})"


def test_same_mathematics(monkeypatch):
    "The re-statements of the official loops have our losses, and the check beside the time would see if they had not."
    monkeypatch.syspath_prepend(str(BENCH))
    import peers
    images = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    for cls,way in peers.WAYS.items():
        method = peers.build(cls, images, "small", 64)
        assert peers.apart(method, 48) < 1e-5
        with monkeypatch.context() as other:
            other.setitem(peers.WAYS, cls, lambda *given: 1.01*way(*given))
            assert peers.apart(method, 48) > 1e-3


def test_left_out(run, monkeypatch, capsys):
    "A library that is not installed is named in one line, and its rivals are left out."
    monkeypatch.syspath_prepend(str(BENCH))
    import peers
    for name in ("kornia.augmentation", "albumentations", "lightly"): monkeypatch.setitem(sys.modules, name, None)
    assert peers.against_lightly(None, 0, "small", 0, 0, 0) is None
    said = capsys.readouterr().err
    assert said.startswith("lightly is left out") and said.count("\n") == 1
    assert list(json.loads(run("views", "--toy"))["rows"]) == ["clusterlab, a batch at once", "torchvision on PIL images", "torchvision on tensors"]


def test_peers_are_no_requirement():
    "Only the benchmarks install other people's libraries to race against, within bounds, and from one place."
    asked = [Requirement(text) for text in re.search(r"^PEERS := (.*)", (ROOT/"Makefile").read_text(), re.M)[1].split()]
    assert {r.name for r in asked} == {"kornia", "lightly", "albumentations"} and all({s.operator for s in r.specifier} == {">=", "<"} for r in asked)
    assert not any(r.name in (ROOT/name).read_text() for r in asked for name in ("settings.ini", "setup.py", "environment.yml"))
