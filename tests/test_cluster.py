"""People with their own images: every method gives clusters and tells those of new images, or says that it cannot."""
import csv
import pickle
from types import SimpleNamespace
import numpy as np
import pytest
from PIL import Image
from clusterlab import cluster, data, reproduce
from conftest import ROOT, command, records, sandbox

METHODS = reproduce.method_names()
CLOSED = {"classical"} # They cluster the images that they are given, and no others


@pytest.fixture(scope="module")
def folder(tmp_path_factory): return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def digits(): return data.load("digits").images[:230, 0].numpy()


def model(method, folder, **more):
    options = {n: v for n,v in dict(batch=48).items() if n in reproduce.options(method)}
    return cluster.Clusterer(method, 10, budget="smoke", options=options, data_root=folder/"data", runs=folder/"runs", **more)


@pytest.mark.parametrize("method", METHODS)
def test_every_method(method, folder, digits):
    "One label for each image; predict agrees with it, for all images and for some; the second fit trains nothing; the record gives the same estimator."
    fitted = model(method, folder).fit(digits[:192])
    found = records(folder/"runs")
    assert fitted.labels_.shape == (192,) and set(fitted.labels_) <= set(range(10)) and fitted.labels_.dtype == np.int64
    assert np.bincount(fitted.labels_, minlength=10).tolist() == pytest.approx(fitted.record_["sizes"], abs=2) # an image between two centres may change sides
    assert (np.abs(fitted.confidence_) < 1 + 1e-5).all() and len(fitted.transform(digits[192:])) == 38
    assert (model(method, folder).fit(digits[:192]).labels_ == fitted.labels_).all() and records(folder/"runs") == found
    if method in CLOSED:
        with pytest.raises(ValueError, match=f"method is '{method}', which can only cluster"): fitted.predict(digits[192:])
        return
    assert (fitted.predict(digits[:192]) == fitted.labels_).all()
    assert (fitted.predict(digits[40:80]) == fitted.labels_[40:80]).mean() > .97 # another batch rounds otherwise
    taken = cluster.from_record(cluster.find_record(fitted.run_.id, folder/"runs"), data_root=folder/"data")
    assert (taken.predict(digits) == fitted.predict(digits)).all()


def test_labels_are_not_used(folder):
    "A method of category discovery, on images that have labels, is handed none of them; the other images than those of training get clusters too."
    fitted = model("sskmeans", folder).set_params(options=dict(limit=192)).fit("digits")
    assert (fitted.method_.told == -1).all() and fitted.run_.spec["config"]["old"] == 0
    assert len(fitted.labels_) == 1797 and fitted.run_.spec["dataset"]["n"] == 192 and (fitted.predict("digits") == fitted.labels_).all()


def test_folder_changes(folder, digits):
    "A photo more is another run, in the same process too."
    photos = folder/"album"
    photos.mkdir()
    for i in range(12): Image.fromarray(digits[i]).save(photos/f"{i:02}.png")
    first = model("pixels", folder).fit(photos)
    Image.fromarray(digits[12]).save(photos/"12.png")
    second = model("pixels", folder).fit(photos)
    assert (len(first.labels_), len(second.labels_)) == (12, 13) and first.run_.id != second.run_.id


def test_pickle(folder, digits):
    "A fitted estimator can be kept, as those of scikit-learn can."
    fitted = model("pipcdr", folder).fit(digits[:192])
    assert (pickle.loads(pickle.dumps(fitted)).predict(digits) == fitted.predict(digits)).all()


# The command

@pytest.fixture(scope="module")
def album(folder, digits):
    "A folder of 96 pictures and a finished run on it, and a folder of 20 others with a broken file."
    for i in range(116):
        file = folder/("old" if i < 96 else "new")/f"{i:03}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(digits[i]).save(file)
    (folder/"new"/"eaten.png").write_bytes(b"nothing")
    said = command("run", "autoencoder", "--dataset", folder/"old", "--k", "5", "--root", folder/"data", *sandbox(folder/"album"))
    assert said.code == 0, said.err
    return SimpleNamespace(old=folder/"old", new=folder/"new", runs=folder/"album", data=folder/"data", record=next((folder/"album").glob("*/*/*.json")))


def ask(album, run, images, *more, dataset=True): return command("predict", run, images, *(["--dataset", album.old] if dataset else []), "--root", album.data, "--runs-root", album.runs, *more)
def rows(path): return list(csv.DictReader(path.open(newline="")))


def test_command(album, tmp_path):
    "By id, by method/dataset/id and by file, the same table; of the training images, what the run wrote; what is replaced is said."
    names = (album.record.stem, album.record.relative_to(album.runs).with_suffix("").as_posix(), album.record)
    said = [ask(album, name, album.new, "--out", tmp_path/"out"/"new.csv") for name in names]
    assert [s.code for s in said] == [0]*3, said[0].err
    assert ["(replaced)" in s.out for s in said] == [False, True, True]
    assert f"1 of 21 files of {album.new} cannot be read" in said[0].out and f"20 images in" in said[0].out
    table = rows(tmp_path/"out"/"new.csv")
    assert [r["file"] for r in table] == [f"{i:03}.png" for i in range(96, 116)] and all(-1 <= float(r["confidence"]) <= 1 for r in table)
    assert ask(album, names[0], album.old, "--out", tmp_path/"old.csv").code == 0
    assert [(r["file"], r["cluster"]) for r in rows(tmp_path/"old.csv")] == [(r["file"], r["cluster"]) for r in rows(album.record.with_suffix("")/"clusters.csv")]
    assert sorted(p.name for p in tmp_path.rglob("*.csv*")) == ["new.csv", "old.csv"]


def test_command_without_checkpoint(album, tmp_path):
    "Made again, and said; without the images of training it cannot be, and nothing is written."
    assert ask(album, album.record.stem, album.new, "--out", tmp_path/"one.csv").code == 0
    (album.record.with_suffix("")/"state.safetensors").unlink()
    lost = ask(album, album.record.stem, album.new, "--out", tmp_path/"two.csv", dataset=False)
    assert lost.code == 2 and "on folder-old" in lost.err and "is gone: say where its images lie" in lost.err and not (tmp_path/"two.csv").exists()
    gone = ask(album, album.record.stem, album.new, "--dataset", tmp_path/"moved", "--out", tmp_path/"two.csv", dataset=False)
    assert gone.code == 2 and "there is no such folder" in gone.err
    said = ask(album, album.record.stem, album.new, "--out", tmp_path/"two.csv")
    assert said.code == 0 and "is gone: it is trained again" in said.out
    assert (tmp_path/"one.csv").read_bytes() == (tmp_path/"two.csv").read_bytes()


def test_command_refuses(album, tmp_path):
    "One line that names value and rule; status 2; no file."
    (tmp_path/"empty").mkdir()
    gcd = command("run", "unic", "--dataset", "digits", "--set", "old=5", "limit=192", *sandbox(tmp_path/"runs"))
    broken = command("run", "autoencoder", "--dataset", "digits", "--set", "lr=1e30", "limit=192", *sandbox(tmp_path/"runs"))
    assert gcd.code == 0 and broken.code == 1
    found = {r["spec"]["method"]: (path, r["status"]) for path,r in records(tmp_path/"runs").items()}
    assert found["autoencoder"][1] == "failed"
    tries = ((("nonsense", album.new), "run 'nonsense' has no record in"), (("no.json", album.new), "run 'no.json' has no record in"), ((album.record, tmp_path/"empty"), "holds no images"),
             ((album.record, tmp_path/"none"), "there is no such folder"), ((album.record, "digits"), "have 1 channels, but must have 3"), ((album.record, album.new, "--out", tmp_path), "is a folder, but must be a file"),
             ((album.record, album.new, "--dataset", album.new), "is not as when it was trained: n is 20, but was 96"), ((found["autoencoder"][0], album.new), "is failed, but must be finished"), ((found["unic"][0], album.new, "--dataset", "digits"), "options has old=5, but must have 0"))
    for words,told in tries:
        said = ask(album, *words, *([] if "--out" in words else ["--out", tmp_path/"out.csv"]), dataset="--dataset" not in words)
        assert said.code == 2 and told in said.err, (words, said)
    assert not (tmp_path/"out.csv").exists()


def test_command_on_record(tmp_path):
    "A record of this repository, whose checkpoint is nowhere: for a method that learns nothing, at once."
    record = next(p for p in sorted((ROOT/"runs"/"pixels"/"digits").glob("*.json")))
    said = command("predict", record.stem, "digits", "--out", tmp_path/"out.csv")
    assert said.code == 0, said.err
    assert len(rows(tmp_path/"out.csv")) == 1797 and rows(tmp_path/"out.csv")[0]["file"] == "0"
