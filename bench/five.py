"""G16: the five methods on digits from nothing, seed 0, budget laptop, two runs at a time; seconds on the clock, which count only if all five are as accurate as expected.

    python bench/five.py [--toy]
"""
import os
import tempfile
import time
from pathlib import Path
from clusterlab import planner, reproduce as desk, runs
from rivals import against, report, toy

FIVE = dict(connr=.94, unic=.95, uccc=.85, pipcdr=.95, snscc_boost=.92) # Least accuracy that an independent implementation leads to expect


def main():
    started, budget = time.monotonic(), "smoke" if toy() else "laptop"
    with tempfile.TemporaryDirectory() as folder:
        wanted = [desk.settle(name, "digits", budget, 0, root=Path(folder)/"runs") for name in FIVE]
        broken = planner.run_all(desk.in_order(wanted), jobs=2)
        if broken: raise RuntimeError("\n".join(broken))
        found = {r.spec["method"]: runs.read_record(r.path) for r in wanted}
    seconds = time.monotonic() - started
    ours = "clusterlab, two runs at a time"
    report("five", started, toy(), goal="G16", what="ConNR, UNIC, UCCC, PIPCDR and SNSCC on digits with all that they start from, budget laptop, seed 0, last epoch, seconds on the clock", data="digits", ours=ours,
           rows=against({ours: [seconds]}, ours), limit=300., limit_stretch=150., needs=["as accurate as expected"], threads=max(1, (os.cpu_count() or 1)//2), checks={"ACC": {name: round(record["scores"]["acc"], 3) for name,record in found.items()},
           "as accurate as expected": {name: bool(found[name]["scores"]["acc"] >= least) for name,least in FIVE.items()}})


if __name__ == "__main__": main()
