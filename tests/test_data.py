"""Facts about data sets are counted, not copied; a folder of anybody's images is a data set."""
import tomllib
from functools import cache
import numpy as np
import pytest
from PIL import Image
from clusterlab import data
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
