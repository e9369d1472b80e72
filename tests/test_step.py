"""A step never asks the device for a number, and hands over little: each method takes one on tensors of the device `meta`, which have a shape and no content. And what a recorded step repeats is what the step by hand does, bit for bit."""
import traceback
from collections import Counter
from contextlib import nullcontext
import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from clusterlab import fit, reproduce as desk, views
from clusterlab.methods import connr

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
    "Two steps of a method on `meta`; what was copied in the second."
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext()) # it knows no meta
    for kept in (views.channel_columns, views.blur_places): kept.cache_clear()
    def steps(name, **changes):
        run = desk.settle(name, "digits", "laptop", 0, batch=64, **({"start": 0.} if "start" in desk.options(name) else {}), **changes)
        method, images, dice = desk.build(run).to("meta").train(), desk.images_of_run(run).images.to("meta"), fit.dice_for(0, 0)
        optimizer = torch.optim.SGD(method.groups(), lr=0., momentum=.9)
        for index in fit.batches(len(images), 64, dice, "meta")[:2]:
            with Copies() as copies:
                fit.step(method, images, index, dice, optimizer, .01, .01)
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


def trained(name, compiled):
    "Two epochs of a method; the rows of its history, and everything that it has learnt."
    torch.manual_seed(0)
    run = desk.settle(name, "digits", "laptop", 0, batch=64, **({"start": 0.} if "start" in desk.options(name) else {}))
    method = desk.build(run)
    rows = fit.fit(method, desk.images_of_run(run).images, epochs=4, stop=2, batch=64, compiled=compiled)
    return rows[1:], {n: t for n,t in method.state_dict().items() if torch.is_tensor(t)}


@pytest.mark.parametrize("name", LEARNING)
def test_recorded(name, monkeypatch):
    "The tracer of PyTorch stands for a GPU: it repeats what it was told, with the same numbers if there is anything that is not in a tensor."
    monkeypatch.setattr(connr, "BY_NUMPY", set())
    (rows, state), refused = trained(name, "none"), ROLLS.get(name)
    with pytest.warns(UserWarning, match=refused) if refused else nullcontext(): played, again = trained(name, "graph")
    assert all(t.equal(again[n]) or (t.isnan() & again[n].isnan()).all() for n,t in state.items())
    assert [{**row, "compiled": int(not refused)} for row in rows] == played


@pytest.mark.parametrize("frozen", ("share", "queue"))
def test_what_is_frozen_shows(monkeypatch, frozen):
    "A number outside of tensors that the facts leave out is repeated for ever, and the comparison above sees it."
    monkeypatch.setattr(connr, "BY_NUMPY", set())
    if frozen == "share": monkeypatch.setattr(connr.Filter, "facts", lambda self: (), raising=True)
    else: monkeypatch.setattr(fit, "facts", lambda method: [])
    name = dict(share="connr", queue="moco")[frozen]
    assert any(not t.equal(b) for t,b in zip(trained(name, "none")[1].values(), trained(name, "graph")[1].values()))


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
    (rows, state), found = trained(name, "none"), []
    class Seen(fit.Ahead):
        def __getitem__(self, index):
            found.append(index is self.next)
            return super().__getitem__(index)
    monkeypatch.setattr(fit, "reader", lambda method, images, order: Seen(images, order, images.device))
    again, other = trained(name, "none")
    assert rows == again and all(t.equal(other[n]) or (t.isnan() & other[n].isnan()).all() for n,t in state.items())
    assert found and set(found) == {name not in OTHERS}
