"""What nobody sees without a GPU, for a Python that has neither pytest nor Jupyter: the notebooks with cells flagged `gpu`, from their first cell on, and every method that learns, two epochs by hand and two recorded.

    python tests/gpu.py [METHOD ...]   # on a GPU; on a CPU a rehearsal
"""
import json
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "agg")
import torch
from clusterlab import fit, reproduce as desk

NBS, DEVICE = Path(__file__).resolve().parents[1]/"nbs", "cuda" if torch.cuda.is_available() else "cpu"


def cells(path): return ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
def flagged(cell, *names): return any(line.strip() in [f"#| {name}" for name in names] for line in cell.splitlines())


def notebook(path):
    "Run its cells, slow ones and the export left out. What breaks in a cell without the flag, for want of a package say, is only told."
    room, here, broke = {"__name__": "__main__"}, os.getcwd(), []
    os.chdir(path.parent)
    try:
        for n,cell in enumerate(cells(path)):
            if flagged(cell, "slow", "notest"): continue
            try: exec(compile(cell, f"{path.name}, code cell {n}", "exec"), room)
            except Exception as why:
                if flagged(cell, "gpu"): raise
                broke.append(f"code cell {n} needs no GPU and broke: {type(why).__name__} {str(why)[:80]}")
    finally: os.chdir(here)
    return "; ".join(["fine where a GPU is asked for", *broke])


def trained(name, compiled):
    "Losses of two epochs on the digits, milliseconds of a step, and was the last epoch played from a recording?"
    run = desk.settle(name, "digits", "laptop", 0, batch=64, **({"start": 0.} if "start" in desk.options(name) else {}))
    method, images = desk.build(run).to(DEVICE), desk.images_of_run(run).images.to(DEVICE)
    begun = time.monotonic()
    rows = fit.fit(method, images, epochs=4, stop=2, batch=64, compiled=compiled)[1:]
    return torch.tensor([row["loss"] for row in rows]), 1e3*(time.monotonic() - begun)/(2*(len(images)//64)), rows[-1].get("compiled")


def method(name):
    "Losses are numbers, and recorded moves make the same ones."
    (by_hand, slow, _), (played, fast, last) = trained(name, "none"), trained(name, "graph")
    if not by_hand.isfinite().all(): raise AssertionError(f"losses {by_hand.tolist()}")
    if not torch.allclose(by_hand, played, rtol=.03, atol=.01): raise AssertionError(f"losses {by_hand.tolist()} by hand, {played.tolist()} recorded")
    return f"{slow:.1f} ms a step by hand, looks included, {fast:.1f} recorded" + ("" if last else ": not recorded")


def main():
    "Everything in turn; what breaks is told, and the rest goes on."
    learning = [name for name in desk.method_names() if "epochs" in desk.options(name)]
    asked = [desk.known("method", name, learning) for name in sys.argv[1:]]
    todo = [(f"method {name}", method, name) for name in asked or learning]
    if not asked: todo += [(path.name, notebook, path) for path in sorted(NBS.rglob("*.ipynb")) if any(flagged(cell, "gpu") for cell in cells(path))]
    broken = []
    for what,call,given in todo:
        begun = time.monotonic()
        try:
            with warnings.catch_warnings(record=True) as told: warnings.simplefilter("always"); said = call(given)
            said += "".join(f"; {w.message}" for w in told if "not recorded" in str(w.message))
        except Exception: traceback.print_exc(); broken.append(what); said = "broke"
        print(f"{what}: {said} ({time.monotonic() - begun:.0f} s)", flush=True)
    if broken: sys.exit(f"broke on {DEVICE}: {', '.join(broken)}")


if __name__ == "__main__": main()
