"""A large folder is decoded once; whatever happens on the way, the images are those that memory would hold."""
import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import pytest
import torch
from PIL import Image
from clusterlab import data
from conftest import command, records, sandbox, start

FILES, BLOCK, SIZE = 20, 4, 8
BROKEN = ("a/05.jpg", "b/19.jpg")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch): monkeypatch.setattr(data, "BLOCK", BLOCK)


@pytest.fixture
def folder(tmp_path):
    "Twenty small photos in two classes, two of them broken."
    dice = np.random.default_rng(0)
    for i in range(FILES):
        path = tmp_path/"photos"/f"{'ab'[i//10]}/{i:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dice.integers(0, 255, (3, 4, 3), dtype=np.uint8)).resize((20, 16)).save(path)
    for file in BROKEN: (tmp_path/"photos"/file).write_bytes(b"broken")
    return tmp_path/"photos"


def load(folder, root="root", **more): return data.load(folder, folder.parent/root, size=SIZE, **{"keep": True, **more})
def places(folder, root="root"): return sorted((folder.parent/root/"decoded").glob("*"))
def content(folder, root="root"): return {file: (places(folder, root)[0]/file).read_bytes() for file in ("images.npy", "journal")}


def same(one, other):
    "Are two data sets equal in all that they hold and say?"
    assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
    assert (one.describe(), one.files, one.skipped) == (other.describe(), other.files, other.skipped)


@pytest.fixture
def asked(monkeypatch):
    "Names of the files that are decoded from now on."
    seen, real = [], data._decode
    def decode(path, size):
        seen.append(path.name)
        return real(path, size)
    monkeypatch.setattr(data, "_decode", decode)
    return seen


def test_same(folder, asked):
    "On disk and in memory: equal images, labels, checksum, names; a second load decodes nothing."
    memory, kept = load(folder, keep=False), load(folder)
    same(memory, kept)
    assert kept.skipped == BROKEN and kept.checksum == data.checksum(kept.images, kept.labels)
    assert sum("bad" in note for note in data._notes(places(folder)[0])) == FILES//BLOCK
    asked.clear()
    same(memory, load(folder))
    assert asked == []
    kept.images.zero_() # stays in memory
    same(memory, load(folder))


def test_plain_file(folder):
    "NumPy opens it, without pickle and without us."
    images = np.load(next(places(folder)[0].glob("*.npy")) if load(folder) else None)
    assert images.shape == (FILES - len(BROKEN), 3, SIZE, SIZE) and images.dtype == np.uint8


@pytest.mark.parametrize("root_is", ["small", "large"])
def test_by_size(folder, monkeypatch, root_is):
    "Small folders stay in memory unless somebody asks; large ones go to disk unless somebody refuses."
    monkeypatch.setattr(data, "LARGE", FILES*3*SIZE**2 - (root_is == "large"))
    load(folder, keep=False)
    assert not places(folder)
    load(folder, keep=None)
    assert len(places(folder)) == (root_is == "large")


def test_named_folder(tmp_path, monkeypatch):
    "Imagenette is a folder too."
    (tmp_path/"imagenette96").mkdir()
    for file in ("train/n01440764/a.png", "train/n02102040/b.png", "val/n01440764/c.png"):
        (tmp_path/"imagenette96"/file).parent.mkdir(parents=True)
        Image.new("RGB", (9, 9), "red").save(tmp_path/"imagenette96"/file)
    monkeypatch.setattr(data, "LARGE", 0)
    images = data.load("imagenette96", tmp_path)
    assert images.classes == ("tench", "English springer") and len(list(tmp_path.glob("decoded/*/images.npy"))) == 1
    same(images, data.load("imagenette96", tmp_path, keep=False))


# Interrupted, and two at once

CHILD = f"""
import os, sys, time, warnings
from pathlib import Path
from clusterlab import data
data.BLOCK, real, seen, end = {BLOCK}, data._decode, [], time.monotonic() + 120
def decode(path, size):
    seen.append(path.name)
    while path.name == "13.jpg" and not Path(sys.argv[2], "go").exists() and time.monotonic() < end: time.sleep(.01)
    return real(path, size)
data._decode = decode
images = data.load(sys.argv[1], sys.argv[2], size={SIZE}, keep=True)
print("done", images.checksum, len(seen), flush=True)
"""


def child(folder, root="root"):
    "Another process that loads the folder; it stops in the fourth block until there is a file called go."
    return start(sys.executable, "-c", CHILD, folder, folder.parent/root)


def wait_for_blocks(folder, count, process, root="root"):
    "Until the journal has notes of so many blocks."
    while not places(folder, root) or len(data._notes(places(folder, root)[0])) < 1 + count:
        assert process.poll() is None, process.stdout.read()
        time.sleep(.05)


def test_killed(folder, asked):
    "A killed decode goes on with the block where it stopped, and the files are those of one that was never disturbed."
    process = child(folder)
    wait_for_blocks(folder, 3, process)
    process.kill()
    process.communicate()
    assert not (places(folder)[0]/"images.npy").exists()
    resumed = load(folder)
    assert sorted(asked) == [f"{i:02}.jpg" for i in range(12, FILES)]
    same(load(folder, "another"), resumed)
    assert content(folder) == content(folder, "another")


def interrupted(folder, name, why=KeyboardInterrupt):
    "Load until a file is reached."
    def stop(path, size, real=data._decode):
        if path.name == name: raise why
        return real(path, size)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(data, "_decode", stop)
        with pytest.raises((KeyboardInterrupt, OSError)) as said: load(folder)
    return str(said.value)


@pytest.mark.parametrize("pixels, line", [(b"half a block", ""), (b"", '0123456789abcdef {"bad": {}, "check')], ids=["pixels", "journal"])
def test_torn(folder, pixels, line):
    "Stopped within a block, or within a line of the journal."
    interrupted(folder, "13.jpg")
    with (places(folder)[0]/"draft.npy").open("ab") as f: f.write(pixels)
    with (places(folder)[0]/"journal").open("a") as f: f.write(line)
    same(load(folder), load(folder, "another"))
    assert content(folder) == content(folder, "another")


@pytest.mark.parametrize("why", [OSError(5, "Input/output error"), OSError(24, "Too many open files"), MemoryError()], ids=lambda why: str(why.args[:1]))
def test_passing_trouble(folder, asked, why):
    "What says nothing about a file is told and not written down: the next load goes on at that block."
    said = interrupted(folder, "13.jpg", why)
    assert "b/13.jpg" in said and type(why).__name__ in said and "load again" in said
    asked.clear()
    same(load(folder), load(folder, keep=False))
    assert sorted(asked)[:8] == [f"{i:02}.jpg" for i in range(8)] and asked.count("11.jpg") == 1 and asked.count("12.jpg") == 2 # the second load is into memory


def test_changed_meanwhile(folder, monkeypatch):
    "A file that changes while others are decoded: an error, and the next load begins anew."
    def decode(path, size, real=data._decode):
        if path.name == "13.jpg": touch(folder)
        return real(path, size)
    with monkeypatch.context() as patched:
        patched.setattr(data, "_decode", decode)
        with pytest.raises(OSError, match="changed while they were decoded; load again"): load(folder)
    assert not (places(folder)[0]/"images.npy").exists() and not (places(folder)[0]/"journal").exists()
    same(load(folder), load(folder, keep=False))


def test_two_at_once(folder):
    "The second waits for the first and decodes nothing."
    first = child(folder)
    wait_for_blocks(folder, 3, first)
    second = child(folder)
    said = ""
    while "waiting" not in said:
        line = second.stdout.readline()
        assert line, said
        said += line
    (folder.parent/"root"/"go").touch()
    total = load(folder, "another").checksum
    assert first.communicate()[0].split()[-3:] == ["done", total, str(FILES)]
    assert second.communicate()[0].split()[-3:] == ["done", total, "0"]
    assert content(folder) == content(folder, "another")


def test_bar(folder, monkeypatch):
    "Only a terminal gets a bar."
    said = []
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=said.append, flush=lambda: None, isatty=lambda: False))
    load(folder)
    assert not said
    sys.stderr.isatty = lambda: True
    load(folder, "another")
    assert f"{FILES}/{FILES}" in "".join(said)


# Damage

def cut(path): os.truncate(path, path.stat().st_size - 100)
def lengthen(path): path.write_bytes(path.read_bytes() + b"more")
def flip(path, at): raw = bytearray(path.read_bytes()); raw[at] ^= 255; path.write_bytes(raw)
def swap(path): lines = path.read_text().splitlines(keepends=True); path.write_text("".join([*lines[:2], lines[3], lines[2], *lines[4:]]))


DAMAGE = {"cut file": ("images.npy", cut, 1), "longer file": ("images.npy", lengthen, 0), "head": ("images.npy", lambda p: flip(p, 60), 0), "first block": ("images.npy", lambda p: flip(p, 130), 5),
          "last block": ("images.npy", lambda p: flip(p, -1), 1), "no file": ("images.npy", Path.unlink, 5), "no journal": ("journal", Path.unlink, 5), "torn journal": ("journal", cut, 1),
          "binary journal": ("journal", lambda p: p.write_bytes(bytes(range(256))), 5), "changed journal": ("journal", lambda p: p.write_text(p.read_text().replace("05.jpg", "06.jpg")), 4),
          "journal in another order": ("journal", swap, 4)} # What is damaged, how, and how many blocks are decoded again


@pytest.mark.parametrize("what", DAMAGE)
def test_damage(folder, asked, what):
    "Damage is seen at the next load, and only what is damaged is decoded again."
    memory, before = load(folder), load(folder) and content(folder)
    file, harm, blocks = DAMAGE[what]
    whole = memory.images.clone()
    harm(places(folder)[0]/file)
    asked.clear()
    again = load(folder)
    assert torch.equal(again.images, whole) and again.checksum == memory.checksum and again.skipped == BROKEN
    assert content(folder) == before
    assert len(asked) == blocks*BLOCK


def test_damage_under_others(folder):
    "Whoever has the damaged file open keeps it as it was: its pixels do not vanish under a running training."
    mapped = load(folder).images
    whole = mapped.clone()
    flip(places(folder)[0]/"images.npy", -1)
    harmed = mapped.clone()
    again = load(folder).images
    assert torch.equal(again, whole) and torch.equal(mapped, harmed) and not torch.equal(harmed, whole)


def test_foreign_journal(folder, asked):
    "The journal of another size does not count."
    data.load(folder, folder.parent/"root", size=9, keep=True)
    other = (places(folder)[0]/"journal").read_text()
    load(folder)
    place = next(p for p in places(folder) if f'"size": {SIZE}' in (p/"journal").read_text())
    before = (place/"journal").read_text()
    (place/"journal").write_text(other)
    asked.clear()
    load(folder)
    assert (place/"journal").read_text() == before and len(asked) == FILES


def test_verify(folder):
    "`clusterlab data verify` reads every block, also those that a load does not look at."
    load(folder)
    words = ("data", "verify", folder, "--root", folder.parent/"root")
    for file in BROKEN: assert f"BAD {file}" in command(*words).out
    assert f"2 files of {folder}, or of what was decoded from it, cannot be read\n" in command(*words).err
    assert "18 images of 8 px, checksums match" in command(*words).out
    flip(places(folder)[0]/"images.npy", 128 + 6*3*SIZE**2) # in the second of five blocks
    load(folder)
    assert f"BAD decoded/{places(folder)[0].name} 18 images of 8 px, damaged" in command(*words).out


# The folder changes

def add(folder): Image.new("RGB", (9, 9)).save(folder/"a/99.jpg")
def remove(folder): (folder/"a/01.jpg").unlink()
def touch(folder): os.utime(folder/"a/01.jpg", ns=(1, 1))
def mend(folder): Image.new("RGB", (9, 9), "blue").save(folder/"a/05.jpg")
def move(folder): (folder/"a/01.jpg").rename(folder/"b/01.jpg")


@pytest.mark.parametrize("change", [add, remove, touch, mend, move])
def test_changed(folder, change):
    "A changed folder is decoded anew, beside the old file, which stays."
    load(folder)
    old = places(folder)[0]
    before = content(folder)
    change(folder)
    same(load(folder), load(folder, keep=False))
    assert len(places(folder)) == 2 and before == {file: (old/file).read_bytes() for file in before}


def test_rights(folder, monkeypatch):
    "A file that may not be read is tried again when it may. Root may read all, so rights are asked as for others."
    def decode(path, size, real=data._decode):
        if not allowed(path, os.R_OK): raise PermissionError(13, "Permission denied", str(path))
        return real(path, size)
    def allowed(path, mode): return bool(os.stat(path).st_mode & 0o444)
    monkeypatch.setattr(os, "access", allowed)
    monkeypatch.setattr(data, "_decode", decode)
    (folder/"a/01.jpg").chmod(0)
    assert load(folder).skipped == ("a/01.jpg", *BROKEN)
    (folder/"a/01.jpg").chmod(0o644)
    assert load(folder).skipped == BROKEN


def test_new_class_elsewhere(tmp_path):
    "A class that comes into `val` changes the numbers of the classes in `train`, though no file there has changed."
    for file in ("train/ant", "train/cow", "val/ant", "val/cow"):
        (tmp_path/"photos"/file).mkdir(parents=True)
        Image.new("RGB", (9, 9), "red").save(tmp_path/"photos"/file/"1.png")
    assert load(tmp_path/"photos", split="train").labels.tolist() == [0, 1]
    (tmp_path/"photos"/"val"/"bee").mkdir()
    Image.new("RGB", (9, 9), "red").save(tmp_path/"photos"/"val"/"bee"/"1.png")
    images = load(tmp_path/"photos", split="train")
    assert images.labels.tolist() == [0, 2] and images.checksum == data.checksum(images.images, images.labels)


def test_nothing_readable(folder):
    "As in memory: an error, now and the next time."
    for path in folder.rglob("*.jpg"): path.write_bytes(b"broken")
    for _ in range(2):
        with pytest.raises(ValueError, match="none of 20 images"): load(folder)


# The disk

def test_no_room(folder, asked, monkeypatch):
    "Too little room is told before anything is decoded, with need and have; what is there already is not needed again."
    monkeypatch.setattr(data.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9 - 1))
    monkeypatch.setattr(data, "_need_room", lambda place, folder, need, real=data._need_room: real(place, folder, need*10**9//(FILES*3*SIZE**2)))
    with pytest.raises(ValueError, match=r"photos.* needs 1\.00 GB .* has 1\.00 GB free"): load(folder)
    assert asked == []
    monkeypatch.setattr(data.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    interrupted(folder, "17.jpg")
    monkeypatch.setattr(data.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9//5 - 1))
    before = (places(folder)[0]/"draft.npy").read_bytes()
    with pytest.raises(ValueError, match=r"needs 0\.20 GB"): load(folder)
    assert (places(folder)[0]/"draft.npy").read_bytes() == before
    monkeypatch.setattr(data.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9//5))
    load(folder)


def test_cannot_write(folder):
    "Where nothing can be written the images go into memory, and a warning says so."
    (folder.parent/"root").mkdir()
    (folder.parent/"root"/"decoded").write_text("a file in the way")
    with pytest.warns(UserWarning, match="cannot be kept .*: they go into memory"): images = load(folder)
    same(images, load(folder, keep=False))


@pytest.fixture
def nobody():
    "The rights of a user who is not root, who may write everywhere."
    before = os.geteuid()
    if not before: os.seteuid(65534)
    yield
    os.seteuid(before)


@pytest.mark.parametrize("before", [False, True], ids=["empty", "decoded before"])
def test_read_only(folder, before, request):
    "A data root without the right to write: what was decoded before is used, else there is a warning."
    with tempfile.TemporaryDirectory() as root:
        if before: data.load(folder, root, size=SIZE, keep=True)
        for path in (*Path(root).rglob("*"), Path(root), folder.parent.parent, folder.parent): os.chmod(path, 0o555 if path.is_dir() else 0o444)
        os.chmod(folder.parent.parent.parent, 0o755)
        expected = load(folder, keep=False)
        request.getfixturevalue("nobody")
        if before: images = data.load(folder, root, size=SIZE, keep=True)
        else:
            with pytest.warns(UserWarning, match="Permission denied"): images = data.load(folder, root, size=SIZE, keep=True)
        same(images, expected)
        os.seteuid(os.getuid())
        for path in (Path(root), *Path(root).rglob("*"), folder.parent.parent, folder.parent): os.chmod(path, 0o755)


def test_larger_than_memory(tmp_path):
    "A file of two terabytes, nearly all of it a hole, is opened all the same."
    n = 2**41//(3*96*96)
    with (tmp_path/"images.npy").open("wb") as f:
        f.write(data._head(n, 96))
        try: f.truncate(data._START + n*3*96*96)
        except OSError: pytest.skip("this file system holds no file of two terabytes")
    images = data._map(tmp_path/"images.npy")
    assert len(images) == n and images[torch.tensor([0, n - 1])].sum() == 0


# Training

def test_same_record(folder, monkeypatch):
    "A run on the kept images gives the same record as one on images in memory, to the last digit."
    found = []
    for large in (2**30, 0):
        monkeypatch.setattr(data, "LARGE", large)
        root = folder.parent/f"root{large}"
        said = command("run", "pipcdr", "--dataset", folder, "--k", "2", "--set", "batch=4", "--root", root, *sandbox(root/"runs"))
        assert said.code == 0, said.err
        assert f"2 of 20 files of {folder} cannot be read and are left out, first {BROKEN[0]}" in said.out
        assert len(places(folder, root.name)) == (large == 0)
        found.append({path.relative_to(root): record for path,record in records(root/"runs").items()})
    assert len(found[0]) == 2 and found[0] == found[1]


MEMORY = """
import sys, torch
from pathlib import Path
from torch import nn
from clusterlab import data, fit

class Toy(nn.Linear):
    def groups(self): return [dict(params=list(self.parameters()), factor=1)]
    def pick(self, index, dice): return index
    def views(self, images, dice): return images[:, 0, ::32, ::32].flatten(1).float()/255
    def loss(self, views, index): return {"size": self(views).square().mean()}

def mine(): # Bytes that belong to this process alone; those of files can be taken back at any time
    return 1024*int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1])

def steps(images):
    toy, dice = Toy(9, 2), torch.Generator().manual_seed(0)
    for index in fit.batches(len(images), 64, dice)[:5]: fit.step(toy, images, index, dice, fit.optimizer_for(toy), .1, .1)
    return [p.detach().clone() for p in toy.parameters()]

torch.manual_seed(0)
torch.set_num_threads(1)
data.BLOCK, folder = 64, Path(sys.argv[1])
data.load(folder/"few", folder/"root", keep=True)
steps(torch.zeros(640, 3, 96, 96, dtype=torch.uint8))
before = mine()
kept = data.load(folder/"many", folder/"root", keep=True)
steps(kept.images)
between = mine()
memory = data.load(folder/"many", folder/"root", keep=False)
steps(memory.images)
print("told", (between - before)/kept.images.nbytes, (mine() - between)/kept.images.nbytes, torch.equal(kept.images, memory.images))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by Linux only")
def test_memory(tmp_path):
    "Three thousand images and some steps: in memory the process grows by all of them, through the file by a small part."
    for n,name in ((64, "few"), (3000, "many")):
        (tmp_path/name).mkdir()
        for i in range(n): Image.new("RGB", (32, 24), (i%256, i//256, 99)).save(tmp_path/name/f"{i:04}.jpg")
    said = start(sys.executable, "-c", MEMORY, tmp_path).communicate()[0].split()
    assert said[0] == "told", said
    through_file, in_memory = map(float, said[1:3])
    assert through_file < .4 and in_memory > .8 and said[3] == "True", said
