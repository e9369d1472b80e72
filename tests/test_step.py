"""A step never asks the device for a number, and hands over little: each method takes one on tensors of the device `meta`, which have a shape and no content."""
import traceback
from collections import Counter
from contextlib import nullcontext
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from clusterlab import fit, reproduce as desk, views

ASKS = dict(simgcd="told.cpu()", snscc_boost="chosen.any()", unic=".nonzero()") # Who does read a number, and the code that does: known labels once, an empty choice, anchors without a stranger
OWN = {"mochi", "scan", "temi", "unic", "vae"} # Who draws chance of its own on the CPU and waits for its copy
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
