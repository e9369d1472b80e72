"""A run from the command line and by papermill: the same twice, refused in time, never lost, never overwritten."""
import json
import os
import signal
import sys
import time
from pathlib import Path
import pytest
from papermill import inspect_notebook
from clusterlab import fit, planner, reproduce, runs
from conftest import ROOT, command, records, sandbox, start

METHODS = reproduce.method_names()
FEW = ["--set", "limit=128"]
COMMITTED = sorted((ROOT/"runs"/"pipcdr"/"digits").glob("*.json"))


def only(root):
    "The single record of a method below a folder."
    found = list(records(root).values())
    assert len(found) == 1, [r["id"] for r in found]
    return found[0]


# What a method consists of

@pytest.mark.parametrize("method", METHODS)
def test_parameters_are_options(method):
    "The parameters cell lists what there is to change: nothing missing, nothing invented."
    assert set(inspect_notebook(str(ROOT/"nbs"/"runs"/f"{method}.ipynb"))) == {*reproduce.GENERAL, *reproduce.options(method)}


@pytest.mark.parametrize("method", METHODS)
def test_defaults_leave_everything_open(method):
    "An option that nobody sets is None in the notebook, so that budget and data set decide."
    told = inspect_notebook(str(ROOT/"nbs"/"runs"/f"{method}.ipynb"))
    assert {n: p["default"] for n,p in told.items() if n in reproduce.GENERAL} == {n: f'"{v}"' if isinstance(v, str) else str(v) for n,v in reproduce.GENERAL.items()}
    assert {p["default"] for n,p in told.items() if n in reproduce.options(method)} == {"None"}


@pytest.mark.parametrize("method", METHODS)
def test_lesson(method):
    assert (ROOT/"nbs"/"methods"/f"{method}.ipynb").exists()


@pytest.mark.parametrize("folder", ["methods", "runs"])
def test_no_notebook_without_a_method(folder):
    assert sorted(p.stem for p in (ROOT/"nbs"/folder).glob("*.ipynb")) == METHODS


@pytest.mark.parametrize("method", METHODS)
def test_answers(method):
    "Every method answers the same questions."
    made = reproduce.build(reproduce.settle(method, budget="smoke", **({"limit": 64})))
    fit.check_method(made)


# The command line

@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    "The same run twice, in two folders, and once with another seed."
    os.chdir(ROOT)
    folder = tmp_path_factory.mktemp("pair")
    said = [command("run", "byol", "--seed", seed, *FEW, *sandbox(folder/name), "--set", "start=0.") for name,seed in (("a", 0), ("b", 0), ("c", 1))]
    assert [s.code for s in said] == [0, 0, 0], said[0].err
    return [only(folder/name) for name in "abc"], folder, said


def test_same_seed(pair):
    (one, again, _), _, _ = pair
    assert one == again


def test_other_seed(pair):
    (one, _, other), _, _ = pair
    assert one["id"] != other["id"]
    assert one["history"]["loss"] != other["history"]["loss"]
    assert one["history"]["std"][0] != other["history"]["std"][0], "the first weights do not depend on the seed"


def test_record_is_whole(pair):
    "What a record must say, checked by its own rules and by hand."
    (one, _, _), folder, _ = pair
    path = next(iter(records(folder/"a")))
    whole = runs.read_record(path)
    assert path == folder/"a"/"byol"/"digits"/f"{one['id']}.json"
    assert whole["status"] == "finished" and whole["reason"] is None
    assert whole["spec"]["dataset"]["n"] == 128 and "128 evenly spaced" in whole["spec"]["dataset"]["protocol"]
    assert set(whole["scores"]) == {"acc", "nmi", "ari", "ami", "jsd", "imbalance", "used", "std", "silhouette"}
    assert whole["history"]["epoch"] == [0, 1, 2]
    assert whole["scores"]["acc"] == whole["history"]["acc"][-1], "the last epoch is what counts"
    assert {"commit", "versions", "device", "seconds", "peak_memory_mb", "threads", "finished"} <= set(whole["receipt"])


def test_finished_is_read(pair):
    "A second call says so and leaves the record as it is."
    _, folder, first = pair
    path = next(iter(records(folder/"a")))
    was = path.stat().st_mtime_ns, path.read_bytes()
    said = command("run", "byol", *FEW, *sandbox(folder/"a"), "--set", "start=0.")
    assert said.code == 0 and "(from its record)" in said.out and said.out.startswith("skip")
    assert (path.stat().st_mtime_ns, path.read_bytes()) == was
    assert first[0].out.startswith("run ") and "(from its record)" not in first[0].out


def test_finished_is_never_overwritten(pair):
    _, folder, _ = pair
    path = next(iter(records(folder/"b")))
    was = path.read_bytes()
    with pytest.raises(FileExistsError, match="never overwritten"): runs.write_record(path, runs.read_record(path) | {"label": "other"})
    assert path.read_bytes() == was


def test_only_what_decides_makes_the_name(pair):
    "Any fact of a run changes its name; the machine is none of them."
    (one, _, _), _, _ = pair
    spec = one["spec"]
    other = [spec | {"seed": 7}, spec | {"budget": "laptop"}, spec | {"k": 11}, spec | {"config": spec["config"] | {"lr": .1}}, spec | {"dataset": spec["dataset"] | {"checksum": "0"}}]
    assert len({runs.run_id(s) for s in [spec, *other]}) == 6
    assert not {"device", "threads", "versions", "host"} & set(json.dumps(spec).replace('"', " ").split())


@pytest.mark.parametrize("words, told", [
    (["run", "pipcdr", "--set", "sigam=1"], "did you mean 'sigma'"),
    (["run", "pipcdr", "--set", "sigma=hot"], "sigma is 'hot'"),
    (["run", "pipcdr", "--set", "w=1.5"], "w is 1.5"),
    (["run", "pipcdr", "--set", "tau=0"], "tau is 0"),
    (["run", "pipcdr", "--set", "epochs=-1"], "epochs is -1"),
    (["run", "pipcdr", "--set", "batch=100000"], "batch is 100000"),
    (["run", "pipcdr", "--seed", "-1"], "seed is -1"),
    (["run", "pipcrd"], "did you mean 'pipcdr'"),
    (["run", "pipcdr", "--dataset", "digitz"], "digits"),
    (["run", "pipcdr", "--dataset", "./no/such/folder"], "no such folder"),
    (["run", "pipcdr", "--set", "sigma"], "sigma"),
    (["list", "pipcrd"], "did you mean 'pipcdr'"),
    (["data", "eat"], "verify or get"),
    (["rum"], "'rum' is not a command"),
], ids=lambda x: " ".join(x[-1:]) if isinstance(x, list) else None)
def test_refused(tmp_path, words, told):
    "Whatever is wrong is named before anything runs, and no record, not even a failed one, is left."
    said = command(*words, *(sandbox(tmp_path) if words[0] == "run" else []))
    assert said.code == 2
    assert told in said.err
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("what", ["methods", "data", "budgets", "artefacts", "runs", *METHODS])
def test_list(what, pair):
    said = command("list", what, *(["--root", pair[1]/"a"] if what == "runs" else []))
    assert said.code == 0, said.err
    needed = dict(methods=METHODS, data=["digits", "cifar10"], budgets=["smoke", "laptop", "gpu", "paper"], artefacts=["pipcdr/table_7"], runs=["byol/digits/"])
    for name in needed.get(what, ["split"]): assert name in said.out


def test_data_verify():
    said = command("data", "verify", "digits")
    assert said.code == 0, said.err
    assert said.out.startswith("ok ")


def test_data_absent(tmp_path):
    "What is missing comes with the command that gets it."
    said = command("run", "byol", "--dataset", "cifar10", "--root", tmp_path, *sandbox(tmp_path/"runs"))
    assert said.code == 2
    assert "clusterlab data get cifar10" in said.err


def test_disk_fails(monkeypatch):
    "What the system refuses is told in one line too."
    def refuse(*given, **more): raise OSError(28, "No space left on device", "journal")
    monkeypatch.setattr("clusterlab.data.verify", refuse)
    said = command("data", "verify", "digits")
    assert (said.code, said.err) == (1, "clusterlab: [Errno 28] No space left on device: 'journal'\n")


# What goes wrong on the way

LONG = ["run", "byol", "--set", "limit=128", "epochs=8", "start=0."]
SLOWLY = """
import sys, time
from functools import partial
from clusterlab import cli, fit, reproduce
reproduce.options("byol")
look, plain = fit.look, fit.fit
def slow(*args): time.sleep(.4); return look(*args)
fit.look, fit.fit = slow, partial(plain, save_s=0.)
cli.main(sys.argv[1:])
"""


def test_killed_and_resumed(tmp_path):
    "Killed after a checkpoint, the run takes its stale lock back, goes on, and ends as if nothing had happened."
    process = start(sys.executable, "-c", SLOWLY, *LONG, *sandbox(tmp_path/"cut"))
    state, until = None, time.monotonic() + 120
    while not state and process.poll() is None and time.monotonic() < until:
        state = next((tmp_path/"cut").glob("byol/digits/*/state.safetensors"), None)
        time.sleep(.02)
    process.send_signal(signal.SIGKILL)
    told = process.communicate()[0]
    assert state, told
    assert 0 < fit.read_checkpoint(state)[1] < 8 and (state.parent/"lock").exists() and not records(tmp_path/"cut")
    said = command(*LONG, *sandbox(tmp_path/"cut"))
    assert said.code == 0, said.err
    assert said.out.startswith("go on")
    assert not (state.parent/"lock").exists()
    assert command(*LONG, *sandbox(tmp_path/"whole")).code == 0
    assert only(tmp_path/"cut") == only(tmp_path/"whole")


def test_held_by_another(tmp_path):
    "A run that a living process makes is left to it."
    wish = reproduce.settle("pixels", budget="smoke", root=tmp_path)
    lock = runs.claim(wish.path)
    said = command("run", "pixels", *sandbox(tmp_path))
    assert said.code == 2
    assert str(os.getpid()) in said.err and str(lock) in said.err
    assert not records(tmp_path)


def test_broken_run(tmp_path, monkeypatch):
    "A run that breaks leaves its reason, and may be tried again."
    def burst(*args): raise fit.Diverged("loss term 'pip' is nan in epoch 1, step 1 of 2")
    with monkeypatch.context() as m:
        m.setattr(fit, "train_epoch", burst)
        said = command("run", "byol", *FEW, *sandbox(tmp_path), "--set", "start=0.")
    assert said.code == 1 and "'pip' is nan in epoch 1" in said.err
    assert only(tmp_path)["status"] == "failed" and "'pip' is nan" in only(tmp_path)["reason"]
    said = command("run", "byol", *FEW, *sandbox(tmp_path), "--set", "start=0.")
    assert said.code == 0 and said.out.startswith("again")
    assert only(tmp_path)["status"] == "finished"


@pytest.mark.parametrize("field, value, told", [
    ("scores", None, "field 'scores'"), ("id", "000000000000", "field 'id'"), ("status", "fine", "field 'status'"), ("sizes", [1, 2], "field 'sizes'"), ("extra", 1, "field 'extra'"), (None, None, "not JSON")])
def test_damaged_record(tmp_path, pair, field, value, told):
    "A damaged record is named with its file and its field; no table is made beside it."
    source = next(iter(records(pair[1]/"a")))
    path = tmp_path/"byol"/"digits"/source.name
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(json.loads(source.read_text()) | {field: value}) if field else source.read_text()[:300])
    said = command("report", "pipcdr", "--runs_root", tmp_path, "--out", tmp_path/"out")
    assert said.code == 2
    assert source.name in said.err and told in said.err
    assert not (tmp_path/"out").exists()


@pytest.mark.parametrize("change, told", [
    (lambda r: r["scores"].update(acc=7.97), "'scores.acc' is 7.97, but must lie from 0 to 1"), (lambda r: r["scores"].update(nmi=-3), "'scores.nmi' is -3"), (lambda r: r["history"]["acc"].__setitem__(0, 9.9), "'history.acc' is 9.9"),
    (lambda r: r["scores"].update(acc=.5), "'scores.acc' is 0.5, but the last look"), (lambda r: r["scores"].update(silhouette=.5), "'scores' has the checksum"),
    (lambda r: (r["scores"].update(acc=.5), r["history"]["acc"].__setitem__(-1, .5)), "'scores' has the checksum"), (lambda r: r["history"]["acc"].__setitem__(0, .5), "'history' has the checksum"),
    (lambda r: r["history"]["loss"].__setitem__(3, "low"), "'history.loss' is"), (lambda r: r.update(sizes=[s + 1 for s in r["sizes"]]), "'sizes' adds up"), (lambda r: r.update(sizes=r["sizes"][::-1]), "'sizes' has the checksum"),
    (lambda r: r["receipt"].update(seconds=1.), "'receipt' has the checksum"), (lambda r: r.pop("checksum"), "'checksum' is missing"), (lambda r: r.update(checksum="note=0 " + r["checksum"]), "'note' has the checksum None")], ids=range(13))
def test_changed_number(tmp_path, change, told):
    "A number of a committed record that was changed by hand is found, be it impossible or likely."
    if not COMMITTED: pytest.skip("no records are committed yet")
    record, path = json.loads(COMMITTED[0].read_text()), tmp_path/COMMITTED[0].name
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError) as why: runs.read_record(path)
    assert path.name in str(why.value) and told in str(why.value)


def test_any_digit(tmp_path):
    "Whichever digit of a record changes, it is found."
    if not COMMITTED: pytest.skip("no records are committed yet")
    text, path = COMMITTED[0].read_text(), tmp_path/COMMITTED[0].name
    places = [at for at,sign in enumerate(text) if sign.isdigit()][::31]
    for at in places:
        path.write_text(text[:at] + str((int(text[at]) + 1)%10) + text[at + 1:])
        with pytest.raises(ValueError, match=path.name): runs.read_record(path)
    assert len(places) > 200


# papermill by hand

@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    "A good call and a bad one, one after the other: kernels that start together may choose the same port."
    folder = tmp_path_factory.mktemp("papermill")
    def call(name, *more):
        process = start(sys.executable, "-m", "papermill", ROOT/"nbs"/"runs"/"pipcdr.ipynb", folder/f"{name}.ipynb", "--no-progress-bar", "-p", "dataset", "digits", "-p", "budget", "smoke",
                     "-p", "limit", "128", "-p", "epochs", "2", "-p", "seed", "1", "-p", "runs", folder/name, *more)
        return process.communicate()[0], process.returncode
    return {"good": call("good"), "sigam": call("sigam", "-p", "sigam", "1")}, folder


def test_papermill(by_hand):
    told, folder = by_hand
    assert told["good"][1] == 0, told["good"][0]
    found = [r for r in records(folder/"good").values() if r["spec"]["method"] == "pipcdr"]
    assert len(found) == 1 and found[0]["status"] == "finished"
    assert (found[0]["spec"]["seed"], found[0]["spec"]["dataset"]["n"], found[0]["spec"]["config"]["epochs"]) == (1, 128, 2)


def test_papermill_is_the_command_line(by_hand, tmp_path):
    "The same run by notebook and by command gives the same record."
    _, folder = by_hand
    said = command("run", "pipcdr", "--seed", "1", "--set", "limit=128", "epochs=2", *sandbox(tmp_path))
    assert said.code == 0, said.err
    mine, theirs = ({p.name: r["spec"] | r["scores"] for p,r in records(root).items()} for root in (tmp_path, folder/"good"))
    assert mine == theirs


def test_papermill_refuses_a_name(by_hand):
    "papermill itself would only warn about a wrong name."
    told, folder = by_hand
    assert told["sigam"][1] != 0
    assert "did you mean 'sigma'" in told["sigam"][0]
    assert not (folder/"sigam").exists()


@pytest.mark.parametrize("name, value, message", [("sigma", "hot", "sigma is 'hot'"), ("r", 1.5, "r is 1.5"), ("align", 1, "align is 1"), ("seed", "0", "seed is '0'"), ("budget", "labtop", "did you mean 'laptop'"), ("epoch", 2, "did you mean 'epochs'")])
def test_notebook_refuses_a_value(tmp_path, name, value, message):
    "What papermill hands over is checked by the first cell of ours."
    with pytest.raises(ValueError, match=message): reproduce.from_notebook("pipcdr", dict(dataset="digits", budget="smoke", runs=str(tmp_path)) | {name: value})
    assert not list(tmp_path.iterdir())


def test_notebook_needs_its_tag(tmp_path):
    "A notebook without the tag would run its defaults in silence."
    import nbformat
    book = nbformat.read(ROOT/"nbs"/"runs"/"pixels.ipynb", 4)
    for cell in book.cells: cell.metadata.pop("tags", None)
    nbformat.write(book, tmp_path/"pixels.ipynb")
    with pytest.raises(ValueError, match="no cell tagged 'parameters'"): planner.parameters_of(tmp_path/"pixels.ipynb")
