"""From the name of a table to the table: nothing twice, nothing by hand, the same bytes from the same records."""
import csv
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from types import SimpleNamespace
import pytest
from clusterlab import artefacts, data, fit, manifest, planner, reproduce, runs
from conftest import ROOT, command, records, start

DOCUMENTS = reproduce.documents()
PRINTED = sorted((ROOT/"experiments"/"reported").glob("*/*.csv"))
ROWS = {"table_1": 6, "table_2": 238, "table_3": 30, "table_4": 5, "table_5": 36, "table_6": 10, "table_7": 18}
LATER = set() # Methods that a page may name before they are written
COMMITTED = sorted((ROOT/"runs").glob("*/*/*.json"))


def files(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@cache
def without_images(document):
    "Figures of a page that show images which are not on this machine: they are not drawn again here."
    told, known = reproduce.page(document), reproduce.on_record()
    shown = {key: reproduce.matching(told, known, entry["names"], artefact=entry) for key,entry in told["artefact"].items() if entry["kind"] in ("members", "neighbours")}
    return {key for key,rows in shown.items() if not all(data.available(row["dataset"]) for row in rows)}


# The pages

@pytest.mark.parametrize("document", DOCUMENTS)
def test_page_methods(document):
    "A page names methods that are here, or that are known to come."
    used = {entry["method"] for entry in reproduce.page(document)["run"].values()}
    assert used <= {*reproduce.method_names(), *LATER}
    assert not LATER & set(reproduce.method_names()), "written by now: take it out of LATER"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_page_options(document):
    "What a page changes is an option of the method, of the right kind, and is in fact a change."
    for name,entry in reproduce.page(document)["run"].items():
        if entry["method"] in LATER: continue
        for option,value in entry.get("set", {}).items():
            reproduce.checked(entry["method"], option, value)
            usual = {reproduce.configure(entry["method"], "digits", budget)[option] for budget in reproduce.budget_names()} | {reproduce.options(entry["method"])[option][1]}
            assert entry.get("swept") or usual != {value}, f"{name}: {option}={value} is the default"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_page_artefacts(document):
    "Every artefact has a kind that can be drawn, a title, and runs that the page knows."
    told = reproduce.page(document)
    for key,entry in told["artefact"].items():
        assert entry["kind"] in artefacts.KINDS, key
        assert entry["title"], key
        assert set(entry["names"]) <= set(told["run"]), key


@pytest.mark.parametrize("document", DOCUMENTS)
def test_page_budgets(document):
    "Same budgets as everywhere; the document itself is what is called paper."
    assert list(reproduce.page(document)["budget"]) == reproduce.budget_names()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_page_aliases(document):
    "A printed name stands for one of ours, or for a method that we only cite."
    told = reproduce.page(document)
    printed = {row["method"] for p in PRINTED if p.parent.name == document for row in csv.DictReader(p.open(newline="")) if "method" in row}
    for theirs in told.get("aliases", {}): assert theirs.split(",")[0] in printed, theirs


def test_budgets_know_their_keys():
    "A misspelt key in budgets.toml would be passed over in silence."
    every = set(reproduce.every_option())
    for name,layers in reproduce.budgets().items():
        for part,changes in layers.items(): assert set(changes) <= every, f"[{name}.{part}] {sorted(set(changes) - every)}"


NO_SCHEDULE = {"every", "stop"} # `every` is how often a run looks at all images; `stop` is counted out from the epochs


@pytest.mark.parametrize("method", reproduce.method_names())
def test_paper_is_the_document(method):
    "Budget paper is the numbers of the document, which are the defaults of the method."
    told = {name: default for name,(_,default,_) in reproduce.options(method).items()}
    if told.get("weights"): told["pretext"] = "" # weights from elsewhere need no run of ours
    found = reproduce.configure(method, "cifar10", "paper")
    assert {n: v for n,v in found.items() if n not in NO_SCHEDULE} == {n: told[n] for n in found if n not in NO_SCHEDULE}
    if "epochs" in found: assert found["stop"] == (told["stop"] or told["epochs"])


@pytest.mark.parametrize("budget, method, second", [(budget, method, epoch) for method,epochs in dict(connr=(160, 800), simsiam_connr=(160, 800), moco_connr=(160, 800), snscc_boost=(200, 500),
                                                    propos=(10, 50), pipcdr=(10, 50), mochi=(10, 50)).items() for budget,epoch in zip(("gpu", "paper"), epochs)])
def test_second_stage_keeps_its_share(budget, method, second):
    "The second stage begins at the document's share of the schedule, also where that is shortened, and goes on in the same batches."
    run = reproduce.settle(method, "digits", budget, recipe="digits")
    document, config = {n: o[1] for n,o in reproduce.options(method).items()}, run.spec["config"]
    assert run.init.spec["config"]["stop"] == second == round(document["start"]*config["epochs"])
    assert config["batch"] == run.init.spec["config"]["batch"] == document["batch"] and config["stop"] == config["epochs"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_page_rules(document):
    "Every rule of a page speaks of one of its runs somewhere, and what it sets is an option there."
    told, heard = reproduce.page(document), []
    for budget,plan in told["budget"].items():
        where = {*plan["datasets"], *(d for entry in told["artefact"].values() for d in entry.get("on", {}).get(budget, []))}
        for dataset,name in ((d, n) for d in where for n in told["run"]):
            heard += [rule for rule in reproduce.rules(told, name, dataset, budget) if rule not in heard]
            for option,value in reproduce.changes(told, name, dataset, budget).items(): reproduce.checked(told["run"][name]["method"], option, value)
    assert all(rule in heard for rule in told.get("where", []))


def set_on(document, name, dataset, budget): return reproduce.changes(reproduce.page(document), name, dataset, budget)


def test_unic_trains_on_one_part():
    "On CIFAR-10 clustering is scored on the test part, category discovery on the unlabelled training images; digits are taken whole."
    told = reproduce.page("unic")
    for name in told["run"]:
        found = reproduce.configure(told["run"][name]["method"], "cifar10", "paper", **set_on("unic", name, "cifar10", "paper"))
        discovers = "old classes" in name or name in ("k-means with labels", "SimGCD", "Neighbour laboratory")
        assert (found["split"], found["score"]) == ("train", "" if discovers else "test"), name
        assert not {"split", "score"} & set(set_on("unic", name, "digits", "laptop")), name
    assert [set_on("unic", "UNIC, 5 old classes", *at).get("lr") for at in (("digits", "laptop"), ("cifar10", "gpu"), ("cifar10", "paper"))] == [.004, None, None]
    assert [any(rule.get("skip") for rule in reproduce.rules(told, "tau1=50 = 1500", "cifar10", budget)) for budget in ("laptop", "gpu", "paper")] == [True, False, False]


@pytest.mark.parametrize("budget, network", [("laptop", "small"), ("gpu", "resnet18"), ("paper", "timm/vit_base_patch16_224.dino")])
def test_unic_and_its_rivals_share_features(budget, network):
    "k-means, SCAN of Table 6 and UNIC stand on one backbone; UNIC on the features of others on a network that those trained."
    dataset, named = "digits" if budget == "laptop" else "cifar10", {}
    for name in ("k-means", "SCAN, one head, tuned", "UNIC", "UNIC, 5 old classes", "k-means with labels", "SimGCD", "UNIC on MoCo v2"):
        found = reproduce.configure(reproduce.page("unic")["run"][name]["method"], dataset, budget, **set_on("unic", name, dataset, budget))
        named[name] = found["backbone"], found["pretext"]
    assert named.pop("UNIC on MoCo v2") == ("small" if budget == "laptop" else "resnet18", "moco")
    assert set(named.values()) == {(network, "" if budget == "paper" else "byol")}


def test_uccc_batch_follows_the_clusters():
    "256 for 10 clusters and 512 for 20, at budget paper."
    assert [reproduce.configure("uccc", dataset, "paper", **set_on("uccc", "UCCC", dataset, "paper"))["batch"] for dataset in ("cifar10", "cifar20")] == [256, 512]


def test_snscc_and_boost_share_a_run():
    "SNSCC is the first stage of its boost, at every budget."
    for budget in ("laptop", "gpu", "paper"):
        alone = reproduce.settle("snscc", "digits", budget, **set_on("snscc", "SNSCC", "digits", budget))
        assert reproduce.settle("snscc_boost", "digits", budget, **set_on("snscc", "SNSCC + boost", "digits", budget)).init.id == alone.id
        longer = set_on("snscc", "SNSCC, train stage to the end", "digits", budget)
        assert reproduce.configure("snscc", "digits", budget, **longer)["stop"] == reproduce.configure("snscc_boost", "digits", budget)["stop"]


INVENTORY = dict(connr=("3 4 5", "4 5"), pipcdr=("1 2 3 4 5 6 7", "1 2 3 4 5 6 7 8 9"), snscc=("1 2 3 4 5 6 7", "1 2 3 4 5 6 7 8 9 10 11 12"),
                 uccc=("1 2 3 S1 S2 S3", "1 2 3 4 5 S1 S2 S3 S4 S5 S6 S7 S8 S9 S10 S11 S12"), unic=("1 2 3 4 5 6 7", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16")) # Of the five documents


@pytest.mark.parametrize("document", INVENTORY)
def test_every_table_and_figure(document):
    "All 30 tables have a page, and every figure, but those that are left out with a reason."
    told = reproduce.page(document)
    tables, figures = ({f"{kind}_{n}" for n in numbers.split()} for kind,numbers in zip(("table", "fig"), INVENTORY[document]))
    left = set(told.get("left_out", {}))
    assert tables <= set(told["artefact"]) and not left & set(told["artefact"])
    assert figures == {k for k in told["artefact"] if k.startswith("fig_")} | left
    assert sum(len(t.split()) for t,_ in INVENTORY.values()) == 30
    text = (ROOT/"nbs"/"papers"/f"{document}.ipynb").read_text()
    assert not [key for key in told["artefact"] if f'show(\\"{key}\\")' not in text], "not on the page of the document"


@pytest.mark.parametrize("old, new, told", [('kind = "results"', 'kinnd = "results"', "did you mean 'kind'"), ("metrics = [", "metrics = [[", "experiments"), ('method = "byol"', 'methode = "byol"', "did you mean 'method'"),
                                            ("seeds = [0, 1, 2]", "seed = [0, 1, 2]", "did you mean 'seeds'")])
def test_damaged_page(tmp_path, monkeypatch, old, new, told):
    "A damaged page is refused with its name and the key."
    shutil.copytree(ROOT/"experiments", tmp_path/"experiments")
    (tmp_path/"settings.ini").write_text("")
    page = tmp_path/"experiments"/"pipcdr.toml"
    page.write_text(page.read_text().replace(old, new, 1))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="pipcdr.toml") as why: reproduce.page("pipcdr")
    assert told in str(why.value)


# The printed numbers

def test_printed_tables(): assert {p.stem for p in PRINTED if p.parent.name == "pipcdr"} == set(ROWS)


@pytest.mark.parametrize("key", ROWS)
def test_printed_rows(key):
    "As many rows as were printed, all columns filled that must be, every value a number in its unit, nothing twice."
    rows = artefacts.read_printed(ROOT/"experiments"/"reported"/"pipcdr"/f"{key}.csv")
    assert len(rows) == ROWS[key]
    if key == "table_1":
        assert all(re.fullmatch(r"\d+", row[c]) for row in rows for c in ("n_samples", "n_classes", "image_size"))
        return
    assert [*rows[0]][:7] == "method backbone dataset metric value unit note".split()
    for row in rows:
        assert all(row[c] for c in ("method", "dataset", "metric", "value", "unit")), row
        assert row["unit"] == "fraction" and re.fullmatch(r"0\.\d{3}", row["value"]), row
        assert row["metric"] in ("NMI", "ACC", "ARI", "AMI"), row
    names = [tuple(v for c,v in row.items() if c not in ("value", "unit", "note")) for row in rows]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("key, name, dataset, metric, value", [
    ("table_2", "PIPCDR (Ours)", "CIFAR-10", "ACC", "0.948"), ("table_2", "ProPos", "CIFAR-20", "ACC", "0.614"), ("table_7", "BYOL", "CIFAR-10", "NMI", "0.817"),
    ("table_7", "PIP", "CIFAR-10", "NMI", "0.816"), ("table_5", "PIPCDR", "CIFAR-20-LT", "ARI", "0.294"), ("table_4", "PIPCDR (Ours)", "ImageNet-1k", "AMI", "0.542")])
def test_printed_values(key, name, dataset, metric, value):
    "Digits read off the page by eye."
    found = [r["value"] for r in reproduce.reported("pipcdr", key) if (r["method"], r["dataset"], r["metric"]) == (name, dataset, metric)]
    assert found == [value]


@pytest.mark.parametrize("path", PRINTED, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_printed_checksum(tmp_path, monkeypatch, path):
    "Any digit of a printed table that is changed is found, and the file is named."
    shutil.copytree(ROOT/"experiments", tmp_path/"experiments")
    (tmp_path/"settings.ini").write_text("")
    monkeypatch.chdir(tmp_path)
    copy, text = tmp_path/path.relative_to(ROOT), path.read_text(encoding="utf-8")
    assert reproduce.reported(path.parent.name, path.stem)
    digits = [at for at,sign in enumerate(text) if sign.isdigit()]
    for at in digits[::max(1, len(digits)//10)]:
        copy.write_text(text[:at] + str((int(text[at]) + 1)%10) + text[at + 1:], encoding="utf-8")
        with pytest.raises(ValueError, match=f"^experiments/reported/{path.parent.name}/{path.stem}.csv: differs from its checksum"): reproduce.reported(path.parent.name, path.stem)


# Planning

def test_dry_run(tmp_path):
    "A dry run tells and does nothing."
    said = command("reproduce", "pipcdr/table_7", "--budget", "smoke", "--seeds", "2", "--dry-run", "--runs_root", tmp_path/"runs", "--out", tmp_path/"out")
    assert said.code == 0, said.err
    assert "14 runs needed, 0 on record, 14 to do" in said.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("budget", reproduce.budget_names())
def test_plan_whole(budget, tmp_path):
    "Everything can be asked for at any budget, as far as its images are here: no run has options that its method refuses."
    found = planner.needs("all", budget, root=tmp_path)
    assert len(found) > 50 and (budget not in ("smoke", "laptop") or sum(len(need.runs) for need in found) > 500)


@pytest.mark.parametrize("words", [("report",), ("report", "pipcdr/table_7"), ("reproduce", "pipcdr/fig_4", "--budget", "smoke", "--seeds", "1")], ids=" ".join)
def test_foreign_records(words, tmp_path):
    "The pages of the project are not written from the records of others, nor any page from a folder that is not there."
    said = command(*words, "--runs_root", tmp_path)
    assert said.code == 2 and "a folder for their tables and figures must be given" in said.err and not list(tmp_path.iterdir())
    if words[0] == "report": assert "is no folder: there are no records" in command(*words, "--runs_root", tmp_path/"nope", "--out", tmp_path).err and not list(tmp_path.iterdir())


def test_another_makes_it(tmp_path, monkeypatch):
    "A run that another process makes is waited for; who comes too late for the lock reads the record."
    run, said, naps = reproduce.settle("pixels", "digits", "smoke", 0, root=tmp_path), ["BlockingIOError: made by another", ""], []
    monkeypatch.setattr(planner, "in_process", lambda *given: said.pop(0))
    monkeypatch.setattr(planner, "time", SimpleNamespace(time=lambda: 0., sleep=lambda seconds: (naps.append(seconds), reproduce.execute(run, "cpu"))))
    assert planner.run_notebook(run)["id"] == run.id and naps == [5] and not said
    looks = iter([("missing", ""), ("finished", "")])
    monkeypatch.setattr(reproduce.runs, "standing", lambda path: next(looks))
    monkeypatch.setattr(reproduce, "train", None) # nothing is made
    assert reproduce.execute(run, "cpu")["id"] == run.id and not (runs.heavy_folder(run.path)/"lock").exists()


def test_wanted_first():
    "What the pages want first, in this order."
    told = {f"{d}/{key}": a["value"] for d in DOCUMENTS for key,a in reproduce.page(d)["artefact"].items() if "value" in a}
    assert sorted(told, key=told.get, reverse=True) == ["pipcdr/table_7", "pipcdr/table_2", "connr/table_4", "snscc/table_5"]


def test_plan_lines(tmp_path):
    "The total first, an artefact a line with what is skipped, then a line for each run that is not; method, label and options are told."
    for run in reproduce.wanted("pipcdr/table_7", "smoke", 1, root=tmp_path): # byol and what it starts from
        if run.spec["method"] == "byol": made = [reproduce.execute(r, "cpu").get("id") for r in reproduce.in_order([run])]
    said = command("reproduce", "pipcdr/table_7", "--budget", "smoke", "--seeds", "1", "--dry-run", "--runs_root", tmp_path)
    lines = said.out.splitlines()
    assert lines[0].startswith(f"7 runs needed, {len(made)} on record, {7 - len(made)} to do, about")
    assert lines[1].startswith(f"pipcdr/table_7: 7 runs (0 shared with others), skip {len(made)} on record, {7 - len(made)} to do: about")
    assert len(lines) == 9 - len(made) and not any(id in said.out for id in made)
    assert sum(line.startswith("run    pipcdr: PIP with ") and "align=False, uniform=False" in line for line in lines) == 1, said.out


def test_absent_images(tmp_path, monkeypatch):
    "What is not here is passed over and told; the other images are run."
    monkeypatch.setattr(planner.data, "available", lambda name, root=None: name == "digits")
    entry = {"names": ["BYOL"]}
    assert planner.left_alone(entry, "gpu", ["digits", "stl10"], ("stl10",)) == "" and planner.left_alone(entry, "gpu", ["stl10"], ("stl10",)) == "stl10 is not here"
    assert {n.why for n in planner.needs("uccc", "gpu", 1, tmp_path)} <= {"it needs no runs", "cifar10 is not here", "cifar10, imagenette96 is not here", "imagenette96 is not here"}
    runs_of = lambda **more: {r.spec["dataset"]["name"] for r in reproduce.wanted("pipcdr/table_7", "smoke", 1, root=tmp_path, **more)}
    assert runs_of() == {"digits"} and runs_of(without=("digits",)) == set()


def test_no_time(tmp_path):
    "With no minutes left nothing begins, nothing is lost, and what is on record is drawn."
    said = command("reproduce", "pipcdr/fig_4", "--budget", "smoke", "--seeds", "1", "--minutes", "0", "--runs_root", tmp_path/"runs", "--out", tmp_path/"out")
    assert said.code == 0, said.err
    assert said.out.count("not begun: the time is up") == 4 and not records(tmp_path/"runs")
    assert (tmp_path/"out"/"figures"/"pipcdr"/"fig_4.svg").exists()


@pytest.mark.parametrize("words, told", [(["pipcdr/table7"], "did you mean 'table_7'"), (["pipcrd"], "did you mean 'pipcdr'"), (["pipcdr", "--budget", "labtop"], "did you mean 'laptop'"),
                                         (["pipcdr/table_7", "--budget", "smoke", "--jobs", "0"], "jobs is 0")], ids=lambda w: w[-1] if isinstance(w, list) else None)
def test_reproduce_refuses(tmp_path, words, told):
    said = command("reproduce", *words, "--runs_root", tmp_path/"runs", "--out", tmp_path/"out")
    assert said.code == 2
    assert told in said.err
    assert not list(tmp_path.iterdir())


# A table, end to end

def words(target, folder): return ["reproduce", f"pipcdr/{target}", "--budget", "smoke", "--seeds", "1", "--jobs", "2", "--runs_root", folder/"runs", "--out", folder]


@pytest.fixture(scope="module")
def figure(tmp_path_factory):
    "Fig. 4 by the real command, at the smallest budget: BYOL, ProPos, PIPCDR and their warm-up, each by papermill."
    folder = tmp_path_factory.mktemp("figure")
    process = start(sys.executable, "-c", "from clusterlab.cli import main; main()", *words("fig_4", folder))
    return folder, process.communicate()[0], process.returncode


@pytest.fixture(scope="module")
def table(figure):
    "Table VII on top of it: the four variants, trained here and not by papermill, which takes a quarter of a minute each."
    os.chdir(ROOT)
    folder, first = figure[0], records(figure[0]/"runs")
    needed = reproduce.in_order(reproduce.wanted("pipcdr/table_7", "smoke", 1, root=folder/"runs"))
    for run in needed: reproduce.execute(run, "cpu")
    return folder, first, needed, command(*words("table_7", folder))


def test_reproduce(figure):
    "Every run of the figure is on record, the warm-up first, and the figure is drawn."
    folder, told, code = figure
    assert code == 0, told
    assert "4 runs needed, 0 on record, 4 to do" in told
    found = list(records(folder/"runs").values())
    assert len(found) == 4 and {r["status"] for r in found} == {"finished"}
    assert {"fig_4.svg", "fig_4.png", "fig_4.csv"} <= {p.name for p in (folder/"figures"/"pipcdr").iterdir()}


def test_reproduce_goes_on(table):
    "What the figure left on record is not trained again for the table."
    folder, first, needed, said = table
    assert said.code == 0, said.err
    assert len(needed) == 7 and "7 runs needed, 7 on record, 0 to do" in said.out
    assert {p: r for p,r in records(folder/"runs").items() if p in first} == first
    assert {p.name for p in (folder/"tables"/"pipcdr").iterdir()} == {"table_7.md", "table_7.csv", "table_7.tex"}


def test_one_warm_up(table):
    "All five variants, ProPos and BYOL itself start from one warm-up."
    found = list(records(table[0]/"runs").values())
    first = [r for r in found if r["spec"]["init"] is None]
    assert len(found) == 8 and len(first) == 1 and first[0]["spec"]["method"] == "byol"
    assert {r["spec"]["init"] for r in found if r is not first[0]} == {first[0]["id"]}
    shared = first[0]["history"]["loss"]
    for r in found: assert r["history"]["loss"][:len(shared)] == shared


def test_variants_differ(table):
    "No two rows of the table are the same training under two names; a record rounds too much to tell, the checkpoint does not."
    losses = [fit.read_checkpoint(run.state)[2][-1]["loss"] for run in table[2] if run.init]
    assert len(set(losses)) == len(losses) == 6


def test_second_call(table):
    "A second call runs nothing, touches nothing, and writes the same table."
    folder = table[0]
    was = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    said = command(*words("table_7", folder))
    assert said.code == 0, said.err
    assert "7 runs needed, 7 on record, 0 to do" in said.out and "\nrun " not in said.out
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == was


def test_smoke_is_not_printed(table):
    "Two epochs prove that the code runs and nothing else: their numbers stay out of the table."
    text = (table[0]/"tables"/"pipcdr"/"table_7.md").read_text()
    assert "not run" in text and "0.948" in text
    scores = [f"{r['scores']['acc']:.3f}" for r in records(table[0]/"runs").values()]
    assert not [s for s in scores if s in text]


def test_one_broken_run(tmp_path, monkeypatch):
    "If a run breaks the others go on, and the reason is told at the end."
    needed = reproduce.in_order(reproduce.wanted("pipcdr/table_7", "smoke", 1, root=tmp_path))
    def fake(run, threads=1, until=None):
        if run.label == "PIP": raise RuntimeError("the kernel died")
        return {"scores": {"used": 10}}
    monkeypatch.setattr(planner, "run_notebook", fake)
    lines = []
    broken = planner.run_all(needed, 2, lines.append)
    assert len(lines) == 7 and len(broken) == 1 and "the kernel died" in broken[0] and "pipcdr: PIP with align=False, uniform=False on digits" in broken[0]


# Tables and figures

@pytest.mark.parametrize("document", DOCUMENTS)
def test_report_twice(tmp_path, document):
    "The same bytes from the same records."
    for name in "ab": assert command("report", document, "--out", tmp_path/name).code == 0
    one, two = files(tmp_path/"a"), files(tmp_path/"b")
    assert one and one == two


@pytest.mark.parametrize("document", DOCUMENTS)
def test_report_is_whole(tmp_path, document):
    "Tables in three kinds of files, figures in three, all of them with something inside."
    assert command("report", document, "--out", tmp_path).code == 0
    for key,entry in reproduce.page(document)["artefact"].items():
        if key in without_images(document): continue
        kinds = ("md", "csv", "tex") if entry["kind"] in ("results", "information") else ("svg", "png", "csv")
        folder = tmp_path/("tables" if "md" in kinds else "figures")/reproduce.page(document).get("folder", document)
        assert {p.suffix[1:] for p in folder.glob(f"{key}.*")} >= set(kinds), key
        assert all(p.stat().st_size > 20 for p in folder.glob(f"{key}.*")), key


@pytest.mark.parametrize("document", DOCUMENTS)
def test_committed_artefacts(tmp_path, document):
    "No table or figure of the repository was made, or changed, by hand."
    if not COMMITTED: pytest.skip("no records are committed yet")
    assert command("report", document, "--out", tmp_path).code == 0
    for kind in ("tables", "figures"):
        where = reproduce.page(document).get("folder", document)
        made, kept = files(tmp_path/kind/where), files(ROOT/kind/where)
        kept = {n: content for n,content in kept.items() if n.partition(".")[0] not in without_images(document)}
        if where == ".": kept = {n: content for n,content in kept.items() if "/" not in n and not n.startswith(("claims.", "speed.", "manifest.", "SHA256SUMS"))} # these have tests of their own
        assert sorted(made) == sorted(kept)
        text = [n for n in made if not n.endswith((".png", ".svg"))]
        assert not [n for n in text if made[n] != kept[n]], "run make report"
        assert not [n for n in made if made[n] != kept[n]], "pictures differ: run make report (fonts of another matplotlib?)"


def test_committed_manifest():
    "The manifest speaks of the records and files that are committed, every one of them, as they are."
    if not COMMITTED: pytest.skip("no records are committed yet")
    for name,content in manifest.manifest_files().items(): assert (ROOT/"tables"/name).read_bytes() == content, "run make report"
    told = dict(line.split("  ")[::-1] for line in (ROOT/"tables"/"SHA256SUMS").read_text().splitlines())
    assert told == dict(line.split("  ")[::-1] for line in manifest.sums().splitlines()), "run make report"
    kept = subprocess.run(["git", "ls-files", "tables", "figures", "runs"], cwd=ROOT, capture_output=True, text=True)
    if kept.returncode == 0: assert set(told) == {n for n in kept.stdout.split() if n not in ("tables/speed.md", "tables/SHA256SUMS")}


def test_manifest_names_runs():
    "Behind every table and figure: runs that are on record, with the seeds and images that it shows."
    known = {r["id"]: r["spec"] for r in runs.find_records(ROOT/"runs").values()}
    rows = [row for row in artefacts.read_printed(ROOT/"tables"/"manifest.csv") if row["records"] != "0"]
    assert len(rows) > 70 and {name for row in rows for name in row["runs"].split()} <= set(known)
    for row in rows:
        specs = [known[name] for name in row["runs"].split()]
        assert {*row["seeds"].split()} == {str(spec["seed"]) for spec in specs}, row["artefact"]
        assert {*row["images"].split(", ")} <= {f"{spec['dataset']['name']} ({spec['budget']})" for spec in specs}, row["artefact"]


def test_committed_records():
    "Every committed record reads well and says where it comes from."
    if not COMMITTED: pytest.skip("no records are committed yet")
    for path,record in runs.find_records(ROOT/"runs").items():
        assert record["status"] == "finished", path
        assert record["spec"]["budget"] != "smoke", f"{path}: smoke proves nothing and is not committed"
        assert record["receipt"]["commit"] and record["receipt"]["device"], path
        assert not re.search(r"/(?:home|root|tmp|work|Users)/", path.read_text()), path


def test_committed_warm_ups():
    "What a committed run started from is committed too."
    if not COMMITTED: pytest.skip("no records are committed yet")
    found = [r for r in runs.find_records(ROOT/"runs").values()]
    assert {r["spec"]["init"] for r in found if r["spec"]["init"]} <= {r["id"] for r in found}


def test_laptop_runs_nothing():
    "In a fresh clone `make reproduce` finds every laptop run on record."
    if not COMMITTED: pytest.skip("no records are committed yet")
    said = command("reproduce", "all", "--budget", "laptop", "--dry-run")
    assert said.code == 0, said.err
    assert re.search(r"(\d+) runs needed, \1 on record, 0 to do", said.out), said.out


def test_accuracies():
    "What the laptop table must show: last epoch, three seeds, digits."
    if not COMMITTED: pytest.skip("no records are committed yet")
    told = reproduce.page("pipcdr")
    rows = reproduce.matching(told, list(runs.find_records(ROOT/"runs").values()), ["Pixels", "BYOL", "PIPCDR", "CDR"])
    acc = {n: [r["record"]["scores"]["acc"] for r in rows if (r["name"], r["dataset"], r["budget"]) == (n, "digits", "laptop")] for n in ("Pixels", "BYOL", "PIPCDR", "CDR")}
    assert {n: len(a) for n,a in acc.items()} == {n: 3 for n in acc}
    mean = {n: sum(a)/3 for n,a in acc.items()}
    assert mean["BYOL"] >= .94 and mean["PIPCDR"] >= .95 and mean["CDR"] >= .95 and .75 < mean["Pixels"] < .83, mean
