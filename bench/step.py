"""Time of one training step, methods interleaved in one process, so that only their ratios count.

    python bench/step.py            # digits, the small network of budget laptop, batch 256
"""
import json
import statistics
import sys
import time
from pathlib import Path
import torch
from clusterlab import fit, reproduce as desk, runs

ROOT = Path(__file__).resolve().parents[1]
METHODS = ["byol", "propos", "pipcdr", "connr"]


def stepper(name, batch):
    "A function that makes one step of a method whose clusters are known, as after its first look at all images."
    run = desk.settle(name, "digits", "laptop", 0, batch=batch, start=0.)
    images, method, config = desk.images_of_run(run).images, desk.build(run), run.spec["config"]
    optimizer, dice = fit.optimizer_for(method, config["momentum"], config["weight_decay"], config["optimizer"]), torch.Generator().manual_seed(0)
    method.to(memory_format=torch.channels_last)
    fit.look(method, images, 1)
    method.train()
    def one():
        index = torch.randperm(len(images), generator=dice)[:batch]
        fit.step(method, images, index, dice, optimizer, .01, .01, "fp32")
        method.stepped(.7)
    return one


def measure(batch=256, rounds=40, steps=3):
    "Milliseconds a step of each method, a window of some steps of each in turn."
    torch.set_num_threads(1)
    ones = {name: stepper(name, batch) for name in METHODS}
    for one in ones.values():
        for _ in range(5): one()
    times = {name: [] for name in METHODS}
    for _ in range(rounds):
        for name,one in ones.items():
            begun = time.perf_counter()
            for _ in range(steps): one()
            times[name].append(1000*(time.perf_counter() - begun)/steps)
    return times


def told(times):
    "Median and quartiles of the milliseconds, and of the ratio to BYOL within each round."
    quarters = lambda values: [round(v, 4) for v in statistics.quantiles(values, n=4)]
    return {name: dict(ms=quarters(values), over_byol=quarters([a/b for a,b in zip(values, times["byol"])])) for name,values in times.items()}


def main():
    started = time.monotonic()
    result = dict(what="time of one training step on digits, small network, batch 256, one thread", unit="ms: quartiles; over_byol: quartiles of the ratio within a round",
                  rows=told(measure()), receipt=runs.receipt(started, desk.device_name("cpu"), 1, 0.))
    path = ROOT/"bench"/"results"/"step.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    for name,row in result["rows"].items(): print(f"{name:8} {row['ms'][1]:8.2f} ms a step, {row['over_byol'][1]:.3f} of BYOL (quartiles {row['over_byol'][0]:.3f} to {row['over_byol'][2]:.3f})")


if __name__ == "__main__": sys.exit(main())
