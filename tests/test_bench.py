"""The benchmarks run, and the page of speeds says what they found."""
import json
import runpy
import subprocess
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


@pytest.mark.parametrize("call", ["import runpy; sys.argv[1:] = ['--toy']; runpy.run_path('bench/gpu.py', run_name='__main__')",
                                  "from clusterlab.cli import main; main(['run', 'pipcdr', '--budget', 'smoke', '--runs_root', sys.argv[1]])"], ids=["gpu", "run"])
def test_bare(call, tmp_path):
    "Both do without what a GPU machine without network lacks and `make wheels` does not bring; the rehearsal does without openTSNE too."
    lacks = "faiss papermill execnb nbdev IPython".split() + ["openTSNE"]*("bench" in call)
    begin = f"import sys; sys.modules.update(dict.fromkeys({lacks})); sys.path.insert(0, 'bench'); "
    said = subprocess.run([sys.executable, "-c", begin + call, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr[-2000:]
    assert "k-means of 2,000 rows" in said.stdout or [*tmp_path.glob("pipcdr/digits/*.json")]


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
