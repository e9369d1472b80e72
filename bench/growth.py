"""G18: what twice the work costs, and what a second process brings, on CPU cores; two processes are told as a ratio, for an exponent from two points would say the same.

    python bench/growth.py [--toy]
"""
import math
import os
import statistics
import time
import torch
from clusterlab import targets
from knn import made_up
from rivals import against, report, toy
from step import stepper


def cpu(call, rounds=3):
    "CPU seconds of a call: the median of some, which leaves out a first one that was slower."
    def timed():
        begun = time.process_time(); call()
        return time.process_time() - begun
    return statistics.median(timed() for _ in range(rounds))


def exponent(xs, ys):
    "Slope of the straight line through the logarithms: 1, twice the work takes twice as long; 2, four times."
    return statistics.linear_regression([math.log(x) for x in xs], [math.log(y) for y in ys]).slope


def curves(unit):
    "What is made larger, from what size, and what is then done."
    x = made_up(8*unit, 64)
    return {"k-means (20 restarts, K = 10) against images": ([unit*f for f in (1, 2, 4, 8)], lambda n: lambda: targets.kmeans(x[:n], 10, 20)),
            "k-means (one restart) against K": ([10, 30, 100, 300, 1000] if unit > 500 else [10, 30, 100], lambda k: lambda: targets.kmeans(x[:2*unit], k, 1, max_iter=20)),
            "neighbours of all images against images": ([unit*f for f in (1, 2, 4, 8)], lambda n: lambda: targets.knn(x[:n], 20)),
            "a step of BYOL against the batch": ([64, 128, 256, 512, 1024] if unit > 500 else [16, 32, 64], lambda batch: stepper("byol", batch))}


def rate(processes, steps):
    "Seconds on the clock for one step, when so many processes do `steps` each at once."
    one, begun = stepper("byol", 256), time.monotonic()
    for _ in range(processes):
        if os.fork() == 0:
            for _ in range(steps): one()
            os._exit(0)
    for _ in range(processes): os.wait()
    return (time.monotonic() - begun)/steps/processes


def main():
    started, (unit, steps, rounds) = time.monotonic(), (400, 2, 2) if toy() else (4_000, 40, 3)
    torch.set_num_threads(1)
    growth = {name: dict(x=xs, seconds=[float(f"{cpu(make(x), 1 if toy() else 3):.3g}") for x in xs]) for name,(xs,make) in curves(unit).items()}
    one, two = ([rate(n, steps) for _ in range(rounds)] for n in (1, 2))
    rows = against({"one process": one, "two processes at once": two}, "one process")
    report("growth", started, toy(), goal="G18", what="seconds on the clock for each BYOL step done, digits, batch 256, one thread a process", data="digits", ours="one process", rows=rows,
           most={"two processes at once": 1/1.8}, own=list(rows), checks={}, growth={name: told | dict(exponent=round(exponent(told["x"], told["seconds"]), 2)) for name,told in growth.items()})


if __name__ == "__main__": main()
