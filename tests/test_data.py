"""Facts about data sets are counted, not copied; a folder of anybody's images is a data set."""
import csv
import io
import tomllib
from dataclasses import replace
from functools import cache
import numpy as np
import pytest
from PIL import Image
from clusterlab import artefacts, data, reproduce
from conftest import ROOT, command, need, records, sandbox

FACTS = tomllib.loads((ROOT/"experiments"/"data.toml").read_text())

load = cache(data.load) # Two tests look at the same images


@pytest.mark.parametrize("name", FACTS)
def test_facts(name):
    "What experiments/data.toml says is what the images say."
    need(name)
    seen = load(name).describe()
    split = seen["protocol"].split(",")[0].split(" (")[0]
    facts = {**FACTS[name], "names": FACTS[name].get("names", [str(c) for c in range(seen["classes"])])}
    assert facts == {n: seen[n] for n in ("n", "classes", "channels", "size", "checksum")} | {"split": split, "names": list(load(name).classes)}


@pytest.mark.parametrize("name", FACTS)
def test_classes(name):
    "Every class has images, and the labels are those of the classes."
    need(name)
    images = load(name)
    sizes = images.labels.bincount(minlength=len(images.classes))
    assert len(sizes) == len(images.classes) == FACTS[name]["classes"]
    assert sizes.min() > 0
    if name.endswith("-lt"): assert sizes.min()/sizes.max() == pytest.approx(.1, abs=.001)
    if name == "cifar10": assert sizes.unique().tolist() == [6000]


@pytest.mark.parametrize("name", FACTS)
def test_known(name): assert name in data.NAMES


def folder_of(path, labelled):
    "Ten small pictures of two kinds, red ramps and blue checks."
    rng = np.random.default_rng(0)
    for i in range(10):
        picture = rng.integers(0, 60, (40, 48, 3), dtype=np.uint8)
        if i%2: picture[..., 0] += np.linspace(0, 180, 48).astype(np.uint8)
        else: picture[..., 2] += 180*(np.indices((40, 48)).sum(0)//8%2).astype(np.uint8)
        place = path/(("ramps" if i%2 else "checks") if labelled else "")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place/f"{i}.{('png', 'jpg')[i//5]}")
    return path


@pytest.mark.parametrize("method", ["pixels", "pipcdr"])
@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "unlabelled"])
def test_own_images(tmp_path, method, labelled):
    "Ten images from the command line, with and without class folders, one of them corrupt."
    folder = folder_of(tmp_path/"mine", labelled)
    (folder/("checks" if labelled else "")/"broken.png").write_bytes(b"not a picture")
    said = command("run", method, "--dataset", folder, "--k", "2", *(["--set", "batch=4"] if method == "pipcdr" else []), *sandbox(tmp_path/"runs"))
    assert said.code == 0, said.err
    found = [r for r in records(tmp_path/"runs").values() if r["spec"]["method"] == method]
    assert len(found) == 1 and sum(found[0]["sizes"]) == 10 and len(found[0]["sizes"]) == 2
    assert ("acc" in found[0]["scores"]) == labelled
    assert str(tmp_path) not in str(found[0]), "a record names no folder of this machine"
    rows = next((tmp_path/"runs"/method).glob("*/*/clusters.csv")).read_text().split()
    assert "clusters.csv" in said.out and rows[0] == "file,cluster" and [row.split(",")[0] for row in rows[1:]] == list(data.load(str(folder)).files) and {row.split(",")[1] for row in rows[1:]} <= {"0", "1"}


@pytest.mark.parametrize("method", ["pixels", "pipcdr"])
def test_clusters_of_today(tmp_path, method):
    "A finished run on images that have other names since tells these, and what was deleted beside its record comes back, with the same clusters."
    folder = folder_of(tmp_path/"mine", False)
    words = ["run", method, "--dataset", folder, "--k", "2", *(["--set", "batch=4"] if method == "pipcdr" else []), *sandbox(tmp_path/"runs")]
    assert command(*words).code == 0
    table = next((tmp_path/"runs"/method).glob("*/*/clusters.csv"))
    was = table.read_text().split()[1:]
    for path in sorted(folder.iterdir()): path.rename(path.with_name(f"new_{path.name}"))
    reproduce.images_of.cache_clear() # as in a new process
    for gone in ((), ("clusters.csv", "centres.safetensors"), ("clusters.csv", "centres.safetensors", "state.safetensors")):
        for name in gone: table.with_name(name).unlink(missing_ok=True)
        said = command(*words)
        assert said.code == 0 and "(from its record)" in said.out and str(table.name) in said.out, said.err
        assert table.read_text().split()[1:] == [f"new_{row}" for row in was] and table.with_name("centres.safetensors").exists()


def test_own_images_need_k(tmp_path):
    "Without classes nobody can guess how many clusters."
    said = command("run", "pixels", "--dataset", folder_of(tmp_path/"mine", False), *sandbox(tmp_path/"runs"))
    assert said.code == 2
    assert "how many clusters" in said.err


def test_cifar10(tmp_path):
    "Real photos from the command line."
    need("cifar10")
    said = command("run", "pipcdr", "--dataset", "cifar10", *sandbox(tmp_path))
    assert said.code == 0, said.err
    found = {r["spec"]["method"]: r for r in records(tmp_path).values()}
    assert set(found) == {"byol", "pipcdr"} and found["pipcdr"]["spec"]["init"] == found["byol"]["id"]
    assert found["pipcdr"]["spec"]["dataset"]["channels"] == 3


@pytest.fixture
def stl10(tmp_path, monkeypatch):
    "A small STL-10 in its own format: 40 images of ten classes, 24 without labels."
    dice, sizes = np.random.default_rng(0), dict(train=24, test=16, unlabeled=24)
    (tmp_path/"data"/"stl10_binary").mkdir(parents=True)
    for part,n in sizes.items():
        dice.integers(0, 256, n*3*96*96, dtype=np.uint8).tofile(tmp_path/"data"/"stl10_binary"/f"{part}_X.bin")
        (np.arange(n, dtype=np.uint8) % 10 + 1).tofile(tmp_path/"data"/"stl10_binary"/f"{part}_y.bin")
    parts = {p: {f"stl10_binary/{p}_X.bin": n*3*96*96} for p,n in sizes.items()}
    monkeypatch.setitem(data.SOURCES, "stl10", replace(data.SOURCES["stl10"], parts=parts))
    monkeypatch.setenv("CLUSTERLAB_DATA", str(tmp_path/"data"))
    yield tmp_path
    reproduce.images_of.cache_clear()


ALL = ["--dataset", "stl10", "--set", "split=all+unlabeled", "--set", "size=32", "--set", "batch=16"]


@pytest.mark.parametrize("method", ["cc", "uccc"])
def test_unlabelled_images(stl10, method):
    "STL-10's unlabelled images are trained on and nowhere scored: the record, its map and sizes, and the row of a table."
    said = command("run", method, *ALL, *sandbox(stl10/"runs"))
    assert said.code == 0, said.err
    found, = records(stl10/"runs").values()
    facts = found["spec"]["dataset"]
    assert (facts["n"], facts["labelled"], found["spec"]["config"]["unlabelled_from"]) == (64, 40, 0)
    assert facts["protocol"] == "train+test+unlabeled, 64 images, trained on all, scored on the 40 that have labels"
    assert sum(found["sizes"]) == found["map"]["points"] == 40 and 0 <= found["scores"]["acc"] <= 1 and found["study"]["similarity"]
    told = reproduce.page("uccc")
    told["budget"]["smoke"]["datasets"], name = ["stl10"], method.upper()
    told["where"].append(dict(datasets=["stl10"], set=dict(size=32, batch=16)))
    rows = reproduce.matching(told, list(reproduce.runs.find_records(stl10/"runs").values()), [name], skip=())
    assert [(row["name"], row["dataset"], row["record"]["id"]) for row in rows] == [(name, "stl10", found["id"])]
    assert len(reproduce.scored_images(rows[0])) == 40
    files = artefacts.render("toy", dict(kind="results", title="T", caption="C", document="uccc", runs=[name], names=[name], metrics=["ACC"]), [], rows, reproduce.scored_images)
    line, = csv.DictReader(io.StringIO(files["toy.csv"].decode()))
    assert "scored on the 40 that have labels" in line["protocol"] and float(line["value"]) == pytest.approx(100*found["scores"]["acc"])


def test_unlabelled_images_come_first(stl10):
    "The order of an epoch puts them first; a wrong start stops at the door; the page asks for them on STL-10 alone."
    run = reproduce.settle("cc", "stl10", "smoke", split="all+unlabeled")
    method, dice = reproduce.build(run), reproduce.torch.Generator()
    assert method.unlabelled_from == 40 and (method.pick(reproduce.torch.arange(24), dice) >= 40).all() and (method.pick(reproduce.torch.arange(24), dice) < 40).all()
    with pytest.raises(ValueError, match="unlabelled_from is 30, but the images without a label begin at 40"): reproduce.settle("cc", "stl10", "smoke", split="all+unlabeled", unlabelled_from=30)
    few = reproduce.settle("cc", "stl10", "smoke", split="all+unlabeled", limit=32, batch=16)
    assert (few.spec["dataset"]["n"], few.spec["dataset"]["labelled"]) == (32, 20)
    assert [reproduce.changes(reproduce.page("uccc"), "UCCC", name, "paper").get("split") for name in ("cifar10", "stl10")] == [None, "all+unlabeled"]


@pytest.mark.parametrize("method", ["connr", "pipcdr", "scan"])
def test_unlabelled_images_elsewhere(stl10, method):
    "Methods that know nothing of it cluster all images; scores and what their documents look at are of those with labels."
    said = command("run", method, *ALL, *sandbox(stl10/"runs"))
    assert said.code == 0, said.err
    found, = [r for r in records(stl10/"runs").values() if r["spec"]["method"] == method]
    assert sum(found["sizes"]) == 40 and "acc" in found["scores"]
    if method == "connr": assert len(found["study"]["flags"]["flag"]) == 40


def test_old_classes(tmp_path):
    "A folder names its old classes: these are the ones that labels are told of, and another number of them is refused."
    folder = folder_of(tmp_path/"mine", True)
    (folder/"old_classes.txt").write_text("ramps\n")
    words = ["sskmeans", "--dataset", folder, "--k", "2", "--set", "backbone=small"]
    said = command("run", *words, "--set", "old=2", *sandbox(tmp_path/"runs"))
    assert said.code == 2 and "old is 2, but folder-mine names 1 old classes: set old=1" in said.err
    run = reproduce.settle("sskmeans", str(folder), "smoke", k=2, old=1, pretext="")
    known = reproduce.known_of(run, data.load(folder).labels)
    files = data.load(folder).files
    assert run.spec["dataset"]["old"] == 1 and known.max() == 0 and {files[i].split("/")[0] for i in (known >= 0).nonzero()[:,0]} == {"ramps"}
