"""The benchmarks run, and the page of speeds says what they found."""
import json
import pickle
import re
import runpy
import shutil
import subprocess
import sys
from types import SimpleNamespace
import pytest
import torch
from clusterlab import runs, speedrun
from packaging.requirements import Requirement
from conftest import ROOT, command, records, start

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
def test_rehearsal(run, monkeypatch, name):
    "Each runs at a toy size, tells all that the page needs, and leaves the results as they are."
    import rivals
    report, kept, speed = rivals.report, [], runpy.run_path(str(BENCH/"speed.py"))
    monkeypatch.setattr(rivals, "report", lambda *given, **told: (report(*given, **told), kept.append(told)))
    before, said = {path: path.read_bytes() for path in RESULTS.glob("*.json")}, run(name, "--toy")
    lines = [cells for told in kept for cells in speed["compared"](told)]
    assert lines and all(len(cells) == len(speed["COLUMNS"]) for cells in lines) and all(len([*speed["checks"](told)]) == len(told["checks"]) for told in kept)
    for told in (json.loads("{" + part) for part in ("\n" + said).split("\n{")[1:]):
        assert told["ours"] in told["rows"] and all(row["ratio"] > 0 and len(row["seconds"]) == len(row["within"]) == 3 for row in told["rows"].values())
    assert before == {path: path.read_bytes() for path in RESULTS.glob("*.json")}
    if name != "photos": return
    assert all({*told["rows"]} == {told["ours"], *told["reasons"]} for told in kept), "whoever may be quicker needs a reason"


@pytest.mark.parametrize("call", ["import runpy; sys.argv[1:] = ['--toy']; runpy.run_path('bench/gpu.py', run_name='__main__')",
                                  "from clusterlab.cli import main; main(['run', 'pipcdr', '--budget', 'smoke', '--runs_root', sys.argv[1]])",
                                  "from clusterlab.cli import main; main(['reproduce', 'pipcdr/fig_4', '--budget', 'smoke', '--seeds', '1', '--runs_root', sys.argv[1], '--out', sys.argv[1]])"], ids=["gpu", "run", "reproduce"])
def test_bare(call, tmp_path):
    "All do without what a GPU machine without network lacks and `make wheels` does not bring, and without openTSNE."
    lacks = "faiss papermill execnb nbdev IPython openTSNE".split()
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
    "Speed is not bought with wrong neighbours, worse clusters or worse maps."
    knn, kmeans, unions, tsne = (json.loads((RESULTS/f"{name}.json").read_text())["checks"] for name in ("knn", "kmeans", "unions", "tsne"))
    assert min(knn["same neighbour in the same place"].values()) > .9999
    assert kmeans["objective over that of scikit-learn"]["clusterlab, all restarts at once"] < 1.001
    ours = json.loads((RESULTS/"tsne.json").read_text())["ours"]
    map_of = tsne["divergence over that of scikit-learn"]
    assert map_of[ours] < 1.02*min(map_of[name] for name in map_of if name != ours)
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


def test_verdict(monkeypatch):
    "A goal is met with its spread, by the median alone, or not; upper bounds turn it round; and no speed makes up for an answer that is not as good as the goal asks."
    monkeypatch.syspath_prepend(str(BENCH))
    speed = runpy.run_path(str(BENCH/"speed.py"))
    verdict, miss = speed["verdict"], "**not met**"
    assert [verdict(x, 2, 3, (x - .1, x, x + .1)) for x in (1.9, 2., 2.2, 3., 3.2)] == [miss, "within the spread", "met", "met", "stretch met"]
    assert [verdict(x, 300, 150, (x - 9, x, x + 9), most=True) for x in (301, 299, 200, 149, 99)] == [miss, "within the spread", "met", "met", "stretch met"]
    assert verdict(9, None) == "" and verdict(9, 2, 3, lacks="wrong") == f"{miss}: wrong" and verdict(.6, .55, .7) == "met"
    told = json.loads((RESULTS/"five.json").read_text())
    told["rows"][told["ours"]]["seconds"] = [149.]*3
    fine = told | dict(checks={"as accurate as expected": {"connr": True, "unic": True}})
    assert [[*speed["compared"](one)][0][-3:] for one in (fine, fine | dict(checks={"as accurate as expected": {"connr": True, "unic": False}}))] == [["300 s", "150 s", "stretch met"], ["300 s", "150 s", f"{miss}: unic not as accurate as expected"]]
    assert speed["lacking"](dict(needs=["exact", "small"], checks={"exact": False, "small": True})) == "not so: exact"


def test_machines(monkeypatch, tmp_path):
    "Each machine has a section of its own, with the column of the roofline where somebody knows it, and shares have verdicts."
    monkeypatch.syspath_prepend(str(BENCH))
    speed, here = runpy.run_path(str(BENCH/"speed.py")), json.loads((RESULTS/"step.json").read_text())
    there = here | dict(receipt=here["receipt"] | dict(device="a GPU"), roofline={"BYOL": .61, "ConNR": .5}, shares={"of the roofline": dict(goal="G2", value=.61, must=.55, stretch=.7, most=False), "views": dict(goal="G9", value=.06, must=.05, stretch=.02, most=True)})
    for name,told in dict(here=here, there=there).items(): (tmp_path/f"{name}.json").write_text(json.dumps(told))
    first, second = speed["page"](tmp_path).split("\n## ")[1:]
    assert first.startswith("CPU, 2 cores") and "| of the roofline |" not in first and "share" not in first
    assert second.startswith("a GPU") and f"| {here['rows'][here['ours']]['seconds'][1]:.3g} | 0.61, the other 0.5 | ConNR |" in second
    assert "| share of the roofline | 61 % | 55 % | 70 % | met |" in second and "| share views | 6 % | at most 5 % | 2 % | **not met** |" in second


def test_receipt(monkeypatch, tmp_path, capsys):
    "A result is written whole, and its receipt has the threads and the memory of this process."
    monkeypatch.syspath_prepend(str(BENCH))
    import rivals
    monkeypatch.setattr(rivals, "RESULTS", tmp_path)
    held = torch.ones(2**26) # 256 MB
    for threads in (None, 7): rivals.report("race", 0., False, threads=threads, what="a race", ours="ours", rows={}, checks={})
    told = json.loads((tmp_path/"race.json").read_text())["receipt"]
    assert [path.name for path in tmp_path.iterdir()] == ["race.json"] and told["threads"] == 7
    assert len(held)*4/2**20 < told["peak_memory_mb"] < 2**20 and told["peak_memory_mb"] == round(rivals.peak_mb())
    rivals.report("race", 0., False, what="a race", ours="ours", rows={}, checks={})
    assert json.loads((tmp_path/"race.json").read_text())["receipt"]["threads"] == torch.get_num_threads()


def test_pickled(monkeypatch):
    "What a data loader is handed goes through pickle, as processes from a fork server need it."
    monkeypatch.syspath_prepend(str(BENCH))
    import peers
    pictures = pickle.loads(pickle.dumps(peers.Pictures(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), peers.Twice(peers.by_torchvision()))))
    (a, b), i = pictures[3]
    assert a.shape == b.shape == (3, 32, 32) and i == 3


def test_gpu_clock(monkeypatch, capsys):
    "When the time is up no part begins, and those that did not are named."
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setattr(sys, "argv", ["gpu", "--toy", "--minutes", "0"])
    runpy.run_path(str(BENCH/"gpu.py"), run_name="__main__")
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("The 0 minutes are over; not begun: step_part, lightly_part") and "photos_part" in said.err


def test_work(monkeypatch):
    "Operations and bytes of a step are those that are counted by hand, and three times as many where it goes back."
    monkeypatch.syspath_prepend(str(BENCH))
    work = runpy.run_path(str(BENCH/"gpu.py"))["work"]
    layer, norm, x = torch.nn.Linear(8, 4, bias=False), torch.nn.BatchNorm1d(4), torch.ones(16, 8)
    once = work(torch.no_grad()(lambda: norm(layer(x))), [])
    assert once == (2*16*8*4, 4*(16*8 + 16*4 + 3*16*4))
    assert work(lambda: norm(layer(x.requires_grad_())).sum().backward(), layer.parameters()) == (3*once[0], 3*once[1] + 4*5*8*4)


def test_same_mathematics(monkeypatch):
    "The re-statements of the official loops have our losses, and the check beside the time would see if they had not."
    monkeypatch.syspath_prepend(str(BENCH))
    import peers
    images = torch.zeros(64, 3, 32, 32, dtype=torch.uint8)
    for cls,way in peers.WAYS.items():
        torch.manual_seed(0)
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
    import photos
    assert photos.by_lightly(None) == {} and photos.by_albumentations([]) is None
    assert list(json.loads(run("views", "--toy"))["rows"]) == ["clusterlab, a batch at once", "torchvision on PIL images", "torchvision on tensors"]


def test_photos(monkeypatch, tmp_path):
    "Made-up photos are as large as real ones, and ours are read from a file that holds them decoded, more names of one file alike."
    monkeypatch.syspath_prepend(str(BENCH))
    import photos
    folder = photos.folder_of(tmp_path, 2, 5)
    assert all(80_000 < file.stat().st_size < 130_000 for file in folder.rglob("*.jpg"))
    found, once = photos.decoded(folder, tmp_path, 1)
    assert found.images.shape == (5, 3, photos.KEPT, photos.KEPT) and once > 0 and [*tmp_path.glob("root0/decoded/*/images.npy")]
    assert found.images[0].equal(found.images[4]) and not found.images[0].equal(found.images[1])


def test_peers_are_no_requirement():
    "Only the benchmarks install other people's libraries to race against, within bounds, and from one place."
    asked = [Requirement(text) for text in re.search(r"^PEERS := (.*)", (ROOT/"Makefile").read_text(), re.M)[1].split()]
    assert {r.name for r in asked} == {"kornia", "lightly", "albumentations"} and all({s.operator for s in r.specifier} == {">=", "<"} for r in asked)
    assert not any(r.name in (ROOT/name).read_text() for r in asked for name in ("settings.ini", "setup.py", "environment.yml"))


# The speedrun

@pytest.fixture(scope="module")
def toy_race(tmp_path_factory):
    "A toy speedrun from the command line, cut off in its second level and taken up again; its folder, its result, what it said."
    folder = tmp_path_factory.mktemp("race")
    def go(*words): return command("bench", "speedrun", "--recipe", "toy", "--runs-root", folder/"runs", "--out", folder, *words)
    first = go("--level", "0.15")
    late = next(lap for lap in speedrun.laps(speedrun.recipes()["toy"], folder/"runs"/"toy") if lap.level == .999)
    speedrun.race(late, until=1.) # a time of day long ago: it ends with its first epoch
    cut = runs.standing(late.run.before.path)[0]
    return SimpleNamespace(folder=folder, first=first, cut=cut, second=go(), told=json.loads((folder/"speedrun_toy.json").read_text()), laps=speedrun.laps(speedrun.recipes()["toy"], folder/"runs"/"toy"))


def test_speedrun(toy_race):
    "Both levels are run, each from nothing; what was done is not done again, what was cut off goes on, and all its processes count."
    assert (toy_race.first.code, toy_race.second.code, toy_race.cut) == (0, 0, "cut off")
    low, high = (toy_race.told["levels"][acc]["runs"]["0"] for acc in ("0.15", "0.999"))
    assert (low["reached"], low["processes"], high["reached"], high["processes"], high["first"]) == (True, 1, False, 2, None)
    assert toy_race.first.out.splitlines()[0] == toy_race.second.out.splitlines()[0]
    for lap,run in zip(toy_race.laps, (low, high)):
        record = runs.read_record(lap.run.path)
        assert runs.short(run["acc"]) == record["scores"]["acc"] and run["id"] == record["id"] and run["epochs"] == record["history"]["epoch"][-1] == run["curve"]["epoch"][-1]
        assert run["curve"]["acc"] == record["history"]["acc"][1:] and run["curve"]["seconds"] == sorted(run["curve"]["seconds"])
        assert record["receipt"]["seconds"] > 0 and abs(run["curve"]["seconds"][-1] - run["seconds"]) < .02


def test_speedrun_is_an_ordinary_run(toy_race, tmp_path):
    "The same run by hand ends with the same scores: the clock, and being cut off, change nothing."
    lap = toy_race.laps[1]
    words = [str(tmp_path) if word == str(lap.run.root) else word for word in lap.words]
    assert command(*words).code == 0
    by_hand, ours = (next(r for r in records(root).values() if r["spec"]["method"] == "pipcdr") for root in (tmp_path, lap.run.root))
    assert by_hand == ours


def test_speedrun_refuses(tmp_path):
    "What is not there is named, with what is; and nobody waits for CIFAR-10 on a CPU by mistake."
    for words,why in ((["sprint"], "is not one of speedrun"), (["speedrun", "--recipe", "cifar"], "did you mean 'cifar10'"), (["speedrun", "--recipe", "toy", "--level", ".5"], "0.15, 0.999"), (["speedrun", "--recipe", "toy", "--seeds", "0"], "at least 1")):
        done = command("bench", *words, "--out", tmp_path)
        assert done.code == 2 and why in done.err, done.err
    if not torch.cuda.is_available(): assert re.search(r"about [\d,]+ hours\. `--recipe digits`", command("bench", "speedrun", "--out", tmp_path).err)
    assert not list(tmp_path.iterdir())
    said = command("--help").out, start(sys.executable, "-c", "from clusterlab.cli import main; main()", "bench", "--help").communicate()[0]
    assert "bench " in said[0] and all(word in said[1] for word in ("--recipe", "--minutes", "--dry_run", "stand-in"))


def test_speedrun_page(toy_race, tmp_path, monkeypatch):
    "The page says what a result holds, seeds that missed a level too; a rehearsal is not on it, and without a result there is no section."
    monkeypatch.syspath_prepend(str(BENCH))
    speed = runpy.run_path(str(BENCH/"speed.py"))
    shutil.copy(toy_race.folder/"speedrun_toy.json", tmp_path)
    assert speed["page"](tmp_path) == speed["HEAD"]
    told = toy_race.told | {"made": toy_race.told["made"] | {"budget": "laptop", "what": "made up", "seeds": [0, 1]}}
    run = told["levels"]["0.15"]["runs"]["0"]
    told["levels"]["0.15"] |= {"must": 1., "runs": {"0": run | {"acc": .2, "seconds": 30., "first": {"epoch": 1, "seconds": 6., "acc": .3}}, "1": run | {"acc": .3, "seconds": 54., "first": {"epoch": 2, "seconds": 12., "acc": .3}}}}
    told["levels"]["0.999"] |= {"stretch": 1.}
    (tmp_path/"speedrun_made.json").write_text(json.dumps(told))
    page = speed["page"](tmp_path)
    assert "| made up | 0.15 | 2 | 0.2500 (0.2000 to 0.3000) | 2 of 2 | 0.70 (0.50 to 0.90) | 0.15 (0.10 to 0.20), 2 of 2 | 1 min | met |" in page
    assert re.search(r"\| made up \| 0.999 \| 4 \| 0\.\d{4} \| 0 of 1 \| [\d.]+ \| never \| 1 min \| open, 1 of 2 seeds \|", page)
    told["levels"]["0.15"]["runs"]["1"] |= {"reached": False}
    (tmp_path/"speedrun_made.json").write_text(json.dumps(told))
    assert "| 1 of 2 | 0.70 (0.50 to 0.90) |" in speed["page"](tmp_path) and "| 1 min | **not met** |" in speed["page"](tmp_path)
    told["levels"]["0.15"]["runs"]["1"] |= {"acc": None, "seconds": None, "first": None}
    (tmp_path/"speedrun_made.json").write_text(json.dumps(told))
    assert "| 1 of 2 | 0.50 |" in speed["page"](tmp_path), "a run that broke has missed its level"
