"""Rivals take turns in one process and on one thread, so that they meet the same machine; only the ratios of their CPU seconds count."""
import json
import os
import random
import resource
import statistics
import sys
import time
from importlib import import_module
from itertools import cycle
from pathlib import Path
import torch
from threadpoolctl import threadpool_limits
from clusterlab import artefacts, fit, reproduce as desk, runs

RESULTS = Path(__file__).resolve().parent/"results"
os.environ |= {"NO_ALBUMENTATIONS_UPDATE": "1", "LIGHTLY_DID_VERSION_CHECK": "True"} # Else these two, or older ones of them, ask the network for a newer version of themselves


def peer(name):
    "Another library that only the benchmarks use; None, and a line that says so, where it is not installed."
    try: return import_module(name)
    except ImportError as why: print(f"{name} is left out, for it cannot be imported ({why}); `make bench` installs it", file=sys.stderr)


def stepping(method, images, batch, precision="fp32", rate=.01, recorded=False, **how):
    "A function that makes one step of a method of ours as a run does after its first epoch, in training mode, its move recorded or made by hand; how: of the optimiser."
    optimizer, dice = fit.optimizer_for(method, **how), torch.Generator().manual_seed(0)
    order, by = cycle(fit.batches(len(images), batch, dice, images.device)), fit.Recorded(method, optimizer) if recorded else fit.move
    def one():
        with fit.trusting():
            fit.step(method, images, next(order), dice, optimizer, rate, rate, precision, by)
            method.stepped(.9)
    if recorded:
        for _ in range(by.warm + 2): one()
    return one if not recorded or method.compiled else None # it warned and said why


def compete(rivals, rounds, warm=1):
    "CPU seconds of each rival, one call of each in turn, every round in another order, and its last answer; both by name."
    torch.set_num_threads(1)
    times, answers, dice = {name: [] for name in rivals}, {}, random.Random(0)
    with threadpool_limits(1):
        for call in rivals.values():
            for _ in range(warm): call()
        for _ in range(rounds):
            for name in dice.sample(list(rivals), len(rivals)):
                begun = time.process_time()
                answers[name] = rivals[name]()
                times[name].append(time.process_time() - begun)
    return times, answers


def quarters(values):
    "First quartile, median, third."
    return [float(f"{v:.4g}") for v in (statistics.quantiles(values, n=4) if len(values) > 1 else values*3)]


def against(times, ours):
    "For each rival its seconds, and how many times ours is as fast: ratio of the medians, and quartiles of the ratio within a round."
    middle = statistics.median(times[ours])
    return {name: dict(seconds=quarters(values), ratio=float(f"{statistics.median(values)/middle:.4g}"), within=quarters([a/b for a,b in zip(values, times[ours])]))
            for name,values in times.items()}


def peak_mb(device="cpu"):
    "Highest memory in use so far, in MB of 2**20 bytes: on a GPU what torch has taken there, else that of the largest process, ours or one that we started."
    if device == "cuda": return torch.cuda.max_memory_allocated()/2**20
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return most/(2**20 if sys.platform == "darwin" else 2**10) # bytes on macOS, kB elsewhere


# What is told: `must` and `stretch`, how many times as fast as a rival; `most`, how many times as long at most (with `stretch`); `limit` and `limit_stretch`, seconds of ours; `shares`, as `share` makes them;
# `needs`, names of checks without which no goal is met; `roofline`, the least time that this device could take over that of a row, by its name.
def report(name, started, toy, device="cpu", threads=None, **told):
    "Write `bench/results/<name>.json` in one stroke, unless it was only a rehearsal, and say what came out; threads: of each process, where not those of this one."
    told["receipt"] = runs.receipt(started, desk.device_name(device), threads or torch.get_num_threads(), peak_mb(device))
    if not toy: artefacts.write(RESULTS, {f"{name}.json": (json.dumps(told, indent=1) + "\n").encode()})
    print(json.dumps({key: told[key] for key in ("what", "ours", "rows", "shares", "checks") if key in told}, indent=1))


def share(goal, value, must, stretch, most=False): return dict(goal=goal, value=float(f"{value:.3g}"), must=must, stretch=stretch, most=most) # A fraction that shall be at least so high, or at most


def toy(): return "--toy" in sys.argv[1:] # A rehearsal at a size that takes seconds and says nothing
