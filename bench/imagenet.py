"""G11 on a CPU: exact neighbours among as many rows as ImageNet has images, two threads. Some of the queries are timed, all of them counted from these: making the rows ready costs once, and then each query the same. Needs 22 GB of memory and four minutes, so `make bench` leaves it out.

    python bench/imagenet.py [--toy]
"""
import time
import torch
from clusterlab import targets
from knn import made_up
from rivals import against, peak_mb, report, toy


def seconds(x, k, q):
    "On the clock, for the neighbours of the first q rows."
    begun = time.monotonic()
    targets.knn(x, k, x[:q])
    return time.monotonic() - begun


def main():
    started, (n, d, k, few, more) = time.monotonic(), (3_000, 64, 20, 100, 500) if toy() else (1_281_167, 768, 20, 1_024, 16_384)
    torch.set_num_threads(2)
    x = made_up(n, d)
    _, short, long = (seconds(x, k, q) for q in (few, few, more)) # the first time memory is new
    whole = short + (long - short)/(more - few)*(n - few)
    ours = "clusterlab, 2 threads"
    report("imagenet", started, toy(), goal="G11", what=f"{k} exact neighbours of each of {n:,} rows of {d} numbers on a CPU, counted from {more:,} queries that were timed", data="made-up features", ours=ours,
           rows=against({ours: [whole]}, ours), limit=12*3600., checks={"hours for all": round(whole/3600, 2), "seconds that were timed": {f"{few:,} queries": round(short, 1), f"{more:,} queries": round(long, 1)},
           "peak memory, GB, with the rows themselves": round(peak_mb()/2**10, 1)})


if __name__ == "__main__": main()
