"""G1, G2, G7 to G10 and G12 on a GPU, the most valuable first; each part writes its result as soon as it has one, so that it may be cut off.

    python bench/gpu.py             # needs CUDA
    python bench/gpu.py --toy       # the same at a small size on any device: a rehearsal
"""
import random
import statistics
import sys
import time
from itertools import cycle
import torch
from clusterlab import fit, targets, views
from clusterlab.methods.byol import BYOL
from clusterlab.methods.connr import ConNR
from clusterlab.methods.pipcdr import PIPCDR
from knn import made_up
from rivals import against, report, toy

METHODS = {"BYOL": BYOL, "PIPCDR": PIPCDR, "ConNR": ConNR}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def wait():
    "Until the device has done what it was told."
    if DEVICE == "cuda": torch.cuda.synchronize()


def seconds(call, times):
    "On the clock, for one of some calls in a row."
    wait()
    begun = time.perf_counter()
    for _ in range(times): call()
    wait()
    return (time.perf_counter() - begun)/times


def roofline(size, copied):
    "Operations per second of a product in bf16, and bytes per second of a copy."
    a, b = torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16), torch.empty(copied, device=DEVICE, dtype=torch.uint8)
    for call in (lambda: a @ a, b.clone): seconds(call, 2)
    return 2*size**3/seconds(lambda: a @ a, 10), 2*copied/seconds(b.clone, 10)


def stepper(cls, images, batch, backend=None):
    "A function that makes one step of a method with a ResNet-18 of 32 pixels; None if its networks shall be compiled and cannot."
    facts = dict(n=len(images), channels=3, size=32, mean=(.49, .48, .45), std=(.25, .24, .26))
    method = cls(facts, 10, backbone="small" if toy() else "resnet18", **({"hidden": 64, "dim": 16} if toy() else {})).to(DEVICE).to(memory_format=torch.channels_last)
    optimizer, dice = fit.optimizer_for(method), torch.Generator().manual_seed(0)
    fit.look(method, images[:2048], 1) if len(images) <= 2048 else method.refresh(torch.randn(len(images), method.dim, device=DEVICE), 1)
    method.train()
    if backend and not fit.compile_networks(method, images, backend, batch, "bf16"): return None # it warns and says why
    order = cycle(fit.batches(len(images), batch, dice, DEVICE))
    def one():
        fit.step(method, images, next(order), dice, optimizer, .01, .01, "bf16")
        method.stepped(.9)
    return one


def steps(images, batch, windows, each):
    "Milliseconds a step of each method, a window of each in turn, every round in another order."
    ones, dice = {name: stepper(cls, images, batch) for name,cls in METHODS.items()}, random.Random(0)
    compiled = stepper(BYOL, images, batch, "aot_eager" if toy() else "inductor")
    if compiled: ones["BYOL, compiled"] = compiled
    for one in ones.values(): seconds(one, each)
    times = {name: [] for name in ones}
    for _ in range(windows):
        for name in dice.sample(list(ones), len(ones)): times[name].append(seconds(ones[name], each))
    return times


def step_part(started):
    "G1, G2, G7, G8, G9."
    n, batch, windows, each = (256, 32, 2, 2) if toy() else (50_000, 256, 7, 40)
    images = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    before, times, after = roofline(*size()), steps(images, batch, windows, each), roofline(*size())
    middle = {name: statistics.median(values) for name,values in times.items()}
    recipe, dice, drift = views.recipe("simclr", 32, (.49, .48, .45), (.25, .24, .26)), torch.Generator().manual_seed(0), abs(after[0]/before[0] - 1)
    share = 2*seconds(lambda: views.random_views(images[:batch], recipe, dice), each)/middle["BYOL"]
    ideal = batch*8.96e9/before[0] if drift < .05 else None # 8.96 GFLOP an image: two views forward and backward, and forward through the twin
    save("gpu_step", started, goal="G1, G7, G8, G9", what=f"one training step, ResNet-18 at 32 pixels, batch {batch}, bf16", data="random pixels", ours="BYOL", rows=against(times, "BYOL"), most={"ConNR": 1/.97, "PIPCDR": 1.03}, limit=1/86,
         checks={"BYOL, steps a second": round(1/middle["BYOL"], 2), "share of the views in a step": round(share, 4), **({} if ideal is None else {"time of its products alone over time of the step": round(ideal/middle["BYOL"], 3)}),
                 "TFLOP/s of a product": round(before[0]/1e12, 1), "TB/s of a copy": round(before[1]/1e12, 2)})


def size(): return (256, 2**20) if toy() else (8192, 2**32) # Side of the product, bytes of the copy


def knn_part(started):
    "G10: exact neighbours; the rate of the same product alone is the measure."
    n, d, k = (2_000, 64, 20) if toy() else (128_000, 768, 20)
    x, ours = made_up(n, d).to(DEVICE), "clusterlab, torch"
    timed = {name: [seconds(lambda: targets.knn(x, k, engine=engine), 1) for _ in range(4)][1:] for name,engine in ((ours, "torch"), ("clusterlab, bf16 with a certificate", "bf16"))}
    same = targets.knn(x, k, engine="torch")[1].equal(targets.knn(x, k, engine="bf16")[1])
    save("gpu_knn", started, goal="G10", what=f"{k} exact neighbours of {n:,} rows of {d} numbers", data="made-up features", ours=ours, rows=against(timed, ours), checks={"both engines agree": same})


def kmeans_part(started):
    "G12."
    n, d, k, n_init = (2_000, 32, 10, 3) if toy() else (60_000, 512, 10, 20)
    x, ours = made_up(n, d, groups=40).to(DEVICE), "clusterlab, all restarts at once"
    values = [seconds(lambda: targets.kmeans(x, k, n_init, spherical=False), 1) for _ in range(6)][1:]
    save("gpu_kmeans", started, goal="G12", what=f"k-means of {n:,} rows of {d} numbers into {k} clusters, {n_init} restarts", data="made-up features", ours=ours,
         rows=against({ours: values}, ours), limit=.02, checks={})


def save(name, started, **told):
    "One part's result, as soon as it is there."
    report(name, started, toy(), device=DEVICE, **told)


def main():
    if DEVICE == "cpu" and not toy(): sys.exit("bench/gpu.py needs a GPU; --toy rehearses it without")
    torch.manual_seed(0)
    for part in (step_part, knn_part, kmeans_part): part(time.monotonic())


if __name__ == "__main__": main()
