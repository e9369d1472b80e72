"""A step never asks the device for a number, and hands over little: each method takes one on tensors of the device `meta`, which have a shape and no content. And what a recorded step repeats is what the step by hand does, bit for bit."""
import subprocess
import sys
import traceback
from collections import Counter
from contextlib import nullcontext
from functools import cache
import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from clusterlab import fit, reproduce as desk, views
from clusterlab.methods import connr, simgcd
from conftest import ROOT

ASKS = dict(simgcd="told.cpu()", snscc_boost="chosen.any()", unic=".nonzero()") # Who does read a number, and the code that does: known labels once, an empty choice, anchors without a stranger
OWN = {"mochi", "scan", "temi", "unic", "vae"} # Who draws chance of its own on the CPU and waits for its copy
UNSEEN = {"autoencoder", "dec", "idec", "vae", "temi"} # Who makes no random views of images in a step
OTHERS = {"scan", "temi", "unic"} # Whose step needs other images than the batch
ROLLS = {"mochi": "its loss rolls dice", "vae": "its loss rolls dice", "snscc_boost": "data-dependent control flow"} # Whose moves cannot be recorded, and why
LEARNING = [name for name in desk.method_names() if "epochs" in desk.options(name)]


class Copies(TorchDispatchMode):
    "Counts what crosses from the CPU, by whether somebody waits for it."
    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].is_cpu and out.is_meta: self.seen["free" if kwargs.get("non_blocking") else "waits"] += 1
        return out


@pytest.fixture
def steps(monkeypatch):
    "Two steps of a method on `meta`, or one that is recorded; what was copied in the last."
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext()) # it knows no meta
    for kept in (views.channel_columns, views.blur_places): kept.cache_clear()
    def steps(name, by=None, **changes):
        run = desk.settle(name, "digits", "laptop", 0, batch=64, **({"start": 0.} if "start" in desk.options(name) else {}), **changes)
        method, images, dice = desk.build(run).to("meta").train(), desk.images_of_run(run).images.to("meta"), fit.dice_for(0, 0)
        optimizer = torch.optim.SGD(method.groups(), lr=0., momentum=.9)
        by, many = (by(method, optimizer, 1), 1) if by else (fit.move, 2)
        for group in optimizer.param_groups: group["lr"] = 0. # SGD of this kind wants a number
        for index in fit.batches(len(images), 64, dice, "meta")[:many]:
            with Copies() as copies:
                fit.step(method, images, index, dice, optimizer, .01, .01, by=by)
                method.stepped(.7)
        return copies.seen
    yield steps
    for kept in (views.channel_columns, views.blur_places): kept.cache_clear()


@pytest.mark.parametrize("name", [name for name in LEARNING if name not in ASKS])
def test_asks_nothing(steps, name):
    copied = steps(name)
    assert copied["free"] <= 4 and (name in OWN) == (copied["waits"] > 0)


@pytest.mark.parametrize("name", ASKS)
def test_asks(steps, name):
    "The exceptions are still exceptions, at the place that is named."
    with pytest.raises((RuntimeError, NotImplementedError)) as caught: steps(name)
    line = next(frame.line for frame in reversed(traceback.extract_tb(caught.value.__traceback__)) if "clusterlab" in frame.filename)
    assert ASKS[name] in line


def test_random_strangers(steps):
    "UNIC asks nothing where its negatives are random."
    assert steps("unic", negatives="random")["free"] > 0


def test_own_labels(steps):
    "SCAN asks nothing either when it learns from its own labels; one more thing comes from the CPU, and nobody waits for it."
    assert steps("scan", selflabel=.5)["waits"] == 0


@pytest.mark.parametrize("name", ("pipcdr", "propos"))
def test_own_answers(steps, name):
    "To keep the answers of a step waits for nobody."
    assert steps(name, own_answers=True) == steps(name)


@pytest.mark.parametrize("name", [name for name in LEARNING if name not in ROLLS])
def test_recording_stays_there(steps, monkeypatch, name):
    "What is recorded takes nothing from the CPU: a copy from there would be an old one at every play, or none at all."
    taken = []
    def tape(call, kept, stream):
        with Copies() as copies: out = call()
        taken.append(copies.seen)
        return lambda: None, out
    monkeypatch.setattr(fit, "traced", tape)
    monkeypatch.setattr(simgcd.SimGCD, "pick", lambda self, index, dice: setattr(self, "at", torch.arange(len(index))) or self.at.to(index.device)) # its own reads the labels
    steps(name, fit.Recorded, **dict(unic=dict(negatives="random")).get(name, {}))
    assert taken == [Counter()]


def trained(name, compiled, **changes):
    "Two epochs of a method on 640 digits, with own answers a look at the end only; the rows of its history, and everything that it has learnt."
    torch.manual_seed(0)
    run = desk.settle(name, "digits", "laptop", 0, batch=64, limit=640, **({"start": 0.} if "start" in desk.options(name) else {}), **changes)
    method = desk.build(run)
    rows = fit.fit(method, desk.images_of_run(run).images, epochs=4, stop=2, batch=64, compiled=compiled, every=2 if "own_answers" in changes else 1)
    return rows[1:], {n: t for n,t in method.state_dict().items() if torch.is_tensor(t)}


@cache
def plain(name, numpy=True):
    "As it is written; numpy: does ConNR ask it?"
    assert bool(connr.BY_NUMPY) == numpy
    return trained(name, "none")


@pytest.mark.parametrize("name", LEARNING)
def test_recorded(name, monkeypatch):
    "The tracer of PyTorch stands for a GPU: it repeats what it was told, with the same numbers if there is anything that is not in a tensor."
    monkeypatch.setattr(connr, "BY_NUMPY", set())
    (rows, state), refused = plain(name, False), ROLLS.get(name)
    with pytest.warns(UserWarning, match=refused) if refused else nullcontext(): played, again = trained(name, "graph")
    assert all(t.equal(again[n]) or (t.isnan() & again[n].isnan()).all() for n,t in state.items())
    assert [{**row, "compiled": int(not refused)} for row in rows] == played


@pytest.mark.parametrize("name,changes,played", (("scan", dict(selflabel=.25, threshold=.1), [1, 1]), ("scan", dict(selflabel=.3, threshold=.1, heads=2, negatives="radius", tau2=200), [1, 1]), ("pipcdr", dict(queue=1536), [0, 1]), ("pipcdr", dict(own_answers=True), [1, 1]),
                                                 ("unic", dict(fixed_views=2), [1, 1]), ("simgcd", dict(teacher_warmup=.1), [1, 1])))
def test_recorded_options(name, changes, played):
    "The same where a method goes over to something else on the way: own labels, a full queue, own answers, kept views, a temperature."
    (rows, state), (again, theirs) = trained(name, "none", **changes), trained(name, "graph", **changes)
    assert all(t.equal(theirs[n]) for n,t in state.items())
    assert [{**row, "compiled": now} for row,now in zip(rows, played)] == again


@pytest.mark.parametrize("frozen", ("share", "queue"))
def test_what_is_frozen_shows(monkeypatch, frozen):
    "A number outside of tensors that the facts leave out is repeated for ever, and the comparison above sees it."
    monkeypatch.setattr(connr, "BY_NUMPY", set())
    if frozen == "share": monkeypatch.setattr(connr.Filter, "facts", lambda self: (), raising=True)
    else: monkeypatch.setattr(fit, "facts", lambda method: [])
    name = dict(share="connr", queue="moco")[frozen]
    assert any(not t.equal(b) for t,b in zip(trained(name, "none")[1].values(), trained(name, "graph")[1].values()))


def test_script_for_a_gpu():
    "The script for a GPU machine rehearses, says what is recorded and what is not, and ends badly where something breaks."
    def said(*words): return subprocess.run([sys.executable, ROOT/"tests"/"gpu.py", *words], cwd=ROOT, capture_output=True, text=True)
    told = said("dec", "vae")
    dec, vae = told.stdout.splitlines()
    assert told.returncode == 0 and "recorded (" in dec and "not recorded; the moves of VAE are not recorded" in vae
    wrong = said("dce")
    assert wrong.returncode == 1 and "did you mean 'dec'" in wrong.stderr


@pytest.mark.parametrize("name", LEARNING)
def test_views_by(name, monkeypatch):
    "Elsewhere than on a CPU every random view of every method is made by whom its recipes name; `meta` stands for a GPU."
    asked, made = [], views.make_views
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext()) # it knows no meta
    monkeypatch.setattr(views, "CompiledViews", lambda backend: lambda images, recipe, p: asked.append((backend, recipe)) or made(images, recipe, p))
    monkeypatch.delattr(views, "make_views") # nobody else shall make views
    run = desk.settle(name, "digits", "laptop", 0, batch=64)
    method, images, dice = desk.build(run), desk.images_of_run(run).images, fit.dice_for(0, 0)
    fit.views_by(method, "inductor")
    method.views(images[method.pick(torch.arange(64), dice)].to("meta"), dice)
    assert (not asked) == (name in UNSEEN) and all(backend == "inductor" for backend,_ in asked)
    monkeypatch.undo()
    fit.views_by(method)
    assert not any(kept.by for kept in vars(method).values() if isinstance(kept, views.Recipe))


class Crossings(TorchDispatchMode):
    "Counts tensors that are made in ordinary memory."
    seen = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.seen += torch.is_tensor(out) and out.is_cpu
        return out


@pytest.mark.parametrize("name", views.RECIPES)
def test_views_stay(name):
    "On a GPU, here a pretended one, views bring nothing from ordinary memory, not even where nothing is kept from before, as in compiled code."
    recipe = views.recipe(name, 32, (.5, .4, .3), (.2, .3, .4))
    drawn = views.draw(recipe, 8, 32, 32, torch.Generator().manual_seed(0))
    for kept in (views.channel_columns, views.blur_places): kept.cache_clear()
    with FakeTensorMode():
        images, p = torch.empty(8, 3, 32, 32, dtype=torch.uint8, device="cuda"), {n: torch.empty(v.shape, dtype=v.dtype, device="cuda") for n,v in drawn.items()}
        with Crossings() as ours: made = views.make_views(images, recipe, p)
        with Crossings() as other: torch.tensor(recipe.mean, device="cuda")
    for kept in (views.channel_columns, views.blur_places): kept.cache_clear()
    assert made.is_cuda and not ours.seen and other.seen # which is how one would do it


@pytest.mark.parametrize("name", LEARNING)
def test_read_ahead(name, monkeypatch):
    "Two epochs end at the same weights when a thread reads ahead; and it does so for all whose step needs the batch itself."
    (rows, state), found = plain(name), []
    class Seen(fit.Ahead):
        def __getitem__(self, index):
            found.append(index is self.next)
            return super().__getitem__(index)
    monkeypatch.setattr(fit, "reader", lambda method, images, order: Seen(images, order, images.device))
    again, other = trained(name, "none")
    assert rows == again and all(t.equal(other[n]) or (t.isnan() & other[n].isnan()).all() for n,t in state.items())
    assert found and set(found) == {name not in OTHERS}


@pytest.mark.parametrize("name", LEARNING)
def test_half_the_bits(name):
    "In bf16, which some processors are faster in, the loss of every method is nearly the same, and so is its slope. TEMI learns from features that are kept, in float32."
    run = desk.settle(name, "digits", "smoke", 0, **({"start": 0.} if "start" in desk.options(name) else {}))
    digits, method, dice = desk.images_of_run(run), desk.build(run).to(memory_format=torch.channels_last), fit.dice_for(0, 0)
    if (known := desk.known_of(run, digits.labels)) is not None: method.know(known)
    fit.look(method, digits.images, 1)
    index = fit.batches(len(digits.images), 64, dice)[0]
    seen = method.train().views(digits.images[method.pick(index, dice)], dice)
    (terms, slope), (half, other) = (fit.answer(method, seen, index, dice, bits) for bits in ("fp32", "bf16"))
    assert ((half - terms).abs() < 3e-3*terms.abs().clamp(min=1)).all() and torch.cosine_similarity(slope, other, dim=0) > .95
    assert other.equal(slope) == (name == "temi")
