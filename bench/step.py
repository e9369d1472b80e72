"""G7 and G8 on a CPU: one training step on digits with the small network of budget laptop, batch 256; methods on top of BYOL against BYOL. The same with random images of 32 pixels, as the contests below have them, for the goals name no image size.
The limit of PIPCDR, 1.03, was set for a large network on a GPU; that of ConNR, 1.05, for digits, and 1/0.97 otherwise.
G3 and G5 on a CPU: one training step with its views at 32 pixels against those of others in `peers.py`, whose data loaders get no process of their own, so that CPU seconds count their views too.
All of these are in float32. Where the processor is faster in bf16, which is what `precision="auto"` then takes, BYOL in bf16 is timed against BYOL in float32.

    python bench/step.py [--toy]
"""
import time
import torch
from clusterlab import fit, reproduce as desk
from clusterlab.methods.byol import BYOL
from clusterlab.methods.connr import ConNR
from clusterlab.methods.pipcdr import PIPCDR
from clusterlab.methods.propos import ProPos
from peers import against_lightly, against_loop, build, ours
from rivals import against, compete, report, stepping, toy

METHODS = dict(byol="BYOL", propos="ProPos", pipcdr="PIPCDR", connr="ConNR")


def stepper(name, batch):
    "A function that makes one step of a method whose clusters are known, as after its first look at all images."
    run = desk.settle(name, "digits", "laptop", 0, batch=batch, start=0.)
    images, method, config = desk.images_of_run(run).images, desk.build(run), run.spec["config"]
    method.to(memory_format=torch.channels_last)
    fit.look(method, images, 1)
    return stepping(method.train(), images, batch, **{name: config[name] for name in ("momentum", "weight_decay", "optimizer")})


def larger(images, batch):
    "A function for each method, by label, that makes one step at the size of these images, as in the contests with others."
    return {cls.__name__: ours(build(cls, images, "small", 1024), images, batch) for cls in (BYOL, ProPos, PIPCDR, ConNR)}


def in_half(images, batch, net, hidden, called):
    "BYOL in bf16 and in float32: what the result says, and both; nothing where the processor gains nothing."
    if not fit.bf16_trains_faster(): return None
    rivals = {label: stepping(build(BYOL, images, net, hidden).to(memory_format=torch.channels_last), images, batch, bits) for label,bits in (("BYOL, bf16", "bf16"), ("BYOL, float32", "fp32"))}
    return dict(goal="bf16", what=f"one training step of BYOL with its views, {called} at 32 pixels, batch {batch}, one thread", data="random pixels", ours="BYOL, bf16", own=list(rivals), checks={}), rivals


def contests(images, batch, few):
    "Steps of others against ours, by name of the result: what it says with the rivals, and rounds; few: the batch of the large network."
    yield "step_bf16", in_half(images, batch, "small", 1024, "small network"), 5
    yield "step_bf16_resnet18", in_half(images, few, "resnet18", 1024, "ResNet-18"), 3
    yield "step_lightly", against_lightly(images, batch, "small", 1024, 0, 0), 5
    yield "step_lightly_resnet18", against_lightly(images, few, "resnet18", 1024, 0, 0), 3
    for cls in (ProPos, ConNR): yield f"step_{cls.__name__.lower()}", against_loop(cls, images, batch, "small", 1024, 0), 5


def main():
    started, (n, batch, rounds, few) = time.monotonic(), (64, 32, 3, 2) if toy() else (2048, 256, 200, 9)
    torch.set_num_threads(1)
    def told(size, data, most): return dict(goal="G7, G8", what=f"one training step at {size} pixels, small network, batch {batch}, one thread", data=data, ours="BYOL", most=most, own=list(METHODS.values()), checks={})
    rows = against(compete({label: stepper(name, batch) for name,label in METHODS.items()}, rounds, warm=3 if toy() else 20)[0], "BYOL")
    report("step", started, toy(), rows=rows, **told(8, "digits", {"ConNR": 1.05, "PIPCDR": 1.03}))
    images, started = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)), time.monotonic()
    report("step_larger", started, toy(), rows=against(compete(larger(images, batch), few)[0], "BYOL"), **told(32, "random pixels", {"ConNR": 1/.97, "PIPCDR": 1.03}))
    for name,found,times in contests(images, batch, 4 if toy() else 32):
        if not found: continue
        started, (said, rivals) = time.monotonic(), found
        report(name, started, toy(), rows=against(compete(rivals, 2 if toy() else times)[0], said["ours"]), **said)


if __name__ == "__main__": main()
