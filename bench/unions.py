"""UNIC's second-order unions: 128,000 lists of 50 neighbours, on all cores.

    python bench/unions.py [--toy]
"""
import os
import time
import torch
from clusterlab import targets
from rivals import against, report, toy


def by_sets(lists, rows):
    "The definition, with sets of Python, for some rows."
    return [len(set().union(*(lists[j] for j in lists[i]))) for i in rows]


def main():
    started, (n, t, rounds) = time.monotonic(), (500, 10, 2) if toy() else (128_000, 50, 3)
    threads = os.cpu_count() or 1
    torch.set_num_threads(threads)
    lists, walls = torch.randint(n, (n, t), generator=torch.Generator().manual_seed(0)), []
    for _ in range(rounds):
        begun = time.monotonic()
        sizes = targets.union_sizes(lists)
        walls.append(time.monotonic() - begun)
    few = range(0, n, max(1, n//1000))
    begun, slow = time.monotonic(), by_sets(lists.tolist(), few)
    sets = (time.monotonic() - begun)*n/len(few)
    ours = f"clusterlab, {threads} threads"
    report("unions", started, toy(), goal="unions", what=f"second-order unions of {n:,} lists of {t}, seconds on the clock", data="random lists", ours=ours,
           rows=against({ours: walls, "sets of Python, from 1,000 rows": [sets]*rounds}, ours),
           limit=10., checks={"rows that differ from the definition": sum(a != b for a,b in zip(slow, sizes[list(few)].tolist()))})


if __name__ == "__main__": main()
