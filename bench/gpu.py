"""G1 to G5, G7 to G10, G12, G13 and G17 on a GPU, the most valuable first; each part writes its result as soon as it has one, so that it may be cut off.

    python bench/gpu.py             # needs CUDA
    python bench/gpu.py --toy       # the same at a small size on any device: a rehearsal
"""
import os
import random
import statistics
import sys
import tempfile
import time
import traceback
from importlib.util import find_spec
import torch
import photos
import trunk
from clusterlab import fit, maps, targets, views
from clusterlab.methods.byol import BYOL
from clusterlab.methods.connr import ConNR
from clusterlab.methods.pipcdr import PIPCDR
from clusterlab.methods.propos import ProPos
from peers import Pictures, against_files, against_lightly, against_loop, by_torchvision, endless, lightly_folder, lightly_views
from knn import made_up
from rivals import against, peer, report, stepping, toy

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
    fit.look(method, images[:2048], 1) if len(images) <= 2048 else method.refresh(torch.randn(len(images), method.dim, device=DEVICE), 1)
    method.train()
    if backend and not fit.compile_networks(method, images, backend, batch, "bf16"): return None # it warns and says why
    return stepping(method, images, batch, "bf16")


def turns(ones, windows, each, lead=0):
    "Seconds a step of each, a window of each in turn, every round in another order; before it as many steps as its data loader may have kept ready."
    times, dice = {name: [] for name in ones}, random.Random(0)
    for _ in range(windows):
        for name in dice.sample(list(ones), len(ones)):
            for _ in range(lead): ones[name]()
            times[name].append(seconds(ones[name], each))
    return times


def steps(images, batch, windows, each):
    "Seconds a step of each method."
    ones = {name: stepper(cls, images, batch) for name,cls in METHODS.items()}
    compiled = stepper(BYOL, images, batch, "aot_eager" if toy() else "inductor")
    if compiled: ones["BYOL, compiled"] = compiled
    for one in ones.values(): seconds(one, each)
    return turns(ones, windows, each)


def step_part(started):
    "G1, G2, G7, G8, G9."
    n, batch, windows, each = (256, 32, 2, 2) if toy() else (50_000, 256, 7, 40)
    images = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    before, times, after = roofline(*size()), steps(images, batch, windows, each), roofline(*size())
    middle = {name: statistics.median(values) for name,values in times.items()}
    recipe, dice, drift = views.recipe("simclr", 32, (.49, .48, .45), (.25, .24, .26)), torch.Generator().manual_seed(0), abs(after[0]/before[0] - 1)
    share = 2*seconds(lambda: views.random_views(images[:batch], recipe, dice), each)/middle["BYOL"]
    ideal = batch*8.96e9/before[0] if drift < .05 else None # 8.96 GFLOP an image: two views forward and backward, and forward through the twin
    save("gpu_step", started, goal="G1, G2, G7, G8, G9", what=f"one training step, ResNet-18 at 32 pixels, batch {batch}, bf16", data="random pixels", ours="BYOL", rows=against(times, "BYOL"), most={"ConNR": 1/.97, "PIPCDR": 1.03}, own=list(times), limit=1/86,
         checks={"BYOL, steps a second": round(1/middle["BYOL"], 2), "share of the views in a step": round(share, 4), **({} if ideal is None else {"time of its products alone over time of the step": round(ideal/middle["BYOL"], 3)}),
                 "TFLOP/s of a product": round(before[0]/1e12, 1), "TB/s of a copy": round(before[1]/1e12, 2)})


def size(): return (256, 2**20) if toy() else (8192, 2**32) # Side of the product, bytes of the copy


def knn_part(started):
    "G10: exact neighbours; the rate of the same product alone is the measure."
    n, d, k = (2_000, 64, 20) if toy() else (128_000, 768, 20)
    x, ours = made_up(n, d).to(DEVICE), "clusterlab, torch"
    timed = {name: [seconds(lambda: targets.knn(x, k, engine=engine), 1) for _ in range(4)][1:] for name,engine in ((ours, "torch"), ("clusterlab, bf16 with a certificate", "bf16"))}
    same, q = targets.knn(x, k, engine="torch")[1].equal(targets.knn(x, k, engine="bf16")[1]), x[:4096]
    alone = seconds(lambda: q @ x.T, 5)*n/len(q)
    share = {f"time of the products alone, in 32 bits, over that of {name}": round(alone/statistics.median(values), 3) for name,values in timed.items()}
    save("gpu_knn", started, goal="G10", what=f"{k} exact neighbours of {n:,} rows of {d} numbers", data="made-up features", ours=ours, rows=against(timed, ours), own=list(timed), checks={"both engines agree": same, **share})


def kmeans_part(started):
    "G12."
    n, d, k, n_init = (2_000, 32, 10, 3) if toy() else (60_000, 512, 10, 20)
    x, ours = made_up(n, d, groups=40).to(DEVICE), "clusterlab, all restarts at once"
    values = [seconds(lambda: targets.kmeans(x, k, n_init, spherical=False), 1) for _ in range(6)][1:]
    save("gpu_kmeans", started, goal="G12", what=f"k-means of {n:,} rows of {d} numbers into {k} clusters, {n_init} restarts", data="made-up features", ours=ours,
         rows=against({ours: values}, ours), limit=.02, checks={})


def trunk_part(started):
    "G17: UNIC on a ViT-B/16 with random weights, bf16; what the frozen trunk says is kept, or asked again."
    name, side, n, batch, windows, each = ("test_vit", 32, 64, 8, 2, 2) if toy() else ("vit_base_patch16_224", 224, 2048, 128, 7, 10)
    images = torch.randint(256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    methods = trunk.rivals(images, name, side, "bf16")
    ones = {label: trunk.stepper(method, images, batch, "bf16") for label,method in methods.items()}
    lookers = {label: trunk.looker(method, images) for label,method in methods.items()}
    for one in (*lookers.values(), *ones.values()): seconds(one, 2)
    looks = {label: seconds(look, 2) for label,look in lookers.items()}
    save("gpu_trunk", started, goal="G17", what=f"one step of UNIC, {name}, last block tuned, batch {batch} ({3*batch} views), bf16", data="random weights and pixels", ours=trunk.OURS,
         rows=against(turns(ones, windows, each), trunk.OURS), must={trunk.OTHER: 2.8}, stretch={trunk.OTHER: 3.5},
         checks={"a look at all images, times as fast": round(looks[trunk.OTHER]/looks[trunk.OURS], 2), "kept of an image, its view and the plain one, MB": round(methods[trunk.OURS].kept_bytes/n/1e6, 2)})


def quickest(pictures, batch, counts, each):
    "The number of workers whose data loader alone is quickest."
    def alone(workers):
        loader = endless(pictures, batch, workers, False)
        seconds(lambda: next(loader), 2*workers + 1)
        return seconds(lambda: next(loader), each)
    return min(counts, key=alone)


def peers_part(started):
    "G3, G5: others with their data loaders against ours, views included."
    n, batch, windows, each, net, hidden, workers, counts = (64, 16, 2, 1, "small", (64, 64), 1, (1,)) if toy() else (50_000, 256, 5, 40, "resnet18", (1024, 4096), 8, {4, 8, os.cpu_count()})
    images = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    view = by_torchvision()
    best = quickest(Pictures(images, lambda x: [view(x), view(x)]), batch, counts, each)
    contests = {"gpu_lightly": lambda: against_lightly(images, batch, net, hidden[0], workers, best), **{f"gpu_{cls.__name__.lower()}": lambda cls=cls: against_loop(cls, images, batch, net, hidden[1], best) for cls in (ProPos, ConNR)}}
    for name,begin in contests.items():
        if not (found := begin()): continue
        (told, rivals), lead = found, 2*max(workers, best) + 1
        save(name, started, rows=against(turns(rivals, windows, each, lead), told["ours"]), **told)


def photos_part(started):
    "G4: a step from photos that were decoded once, against one from their files; rehearsed on a CPU, not run on a GPU yet."
    if not peer("lightly"): return
    distinct, n, wide, high, size, batch, windows, each, net, hidden, counts = (4, 32, 64, 48, 32, 8, 2, 1, "small", 64, (1,)) if toy() else (256, 4096, 500, 375, photos.SIZE, 128, 5, 16, "resnet18", 1024, {8, os.cpu_count()})
    with tempfile.TemporaryDirectory() as place:
        folder = photos.folder_of(place, distinct, n, wide, high)
        images = photos.decoded(folder, place, 1)[0].images
        best = quickest(lightly_folder(folder, lightly_views(size, True, False)), batch, counts, each)
        told, rivals = against_files(folder, images, size, batch, net, hidden, best, torch.device(DEVICE), photos.DATA)
        save("gpu_photos", started, rows=against(turns(rivals, windows, each, 2*best + 1), told["ours"]), **told)


def tsne_part(started):
    "G13: a map of everything, block by block and then compiled; its divergence at a smaller size over that of openTSNE, where that is installed."
    n, d, few = (400, 32, 200) if toy() else (60_000, 512, 10_000)
    engines, times = {"clusterlab, exact": "torch", "clusterlab, exact, compiled": "fused"}, {}
    x = made_up(n, d).to(DEVICE)
    pairs, checks = maps.affinities(x[:few]), {}
    def price(engine): return maps.divergence(maps.tsne(x[:few], torch.get_num_threads(), engine=engine), pairs)
    theirs = price("openTSNE") if find_spec("openTSNE") else None
    for ours,engine in engines.items():
        if DEVICE == "cpu" and engine == "fused": continue # a minute of compiling
        value = price(engine)
        checks |= {f"divergence at {few:,} rows, {ours}": round(value, 4)} | ({f"the same over that of openTSNE, {ours}": round(value/theirs, 4)} if theirs else {})
        if DEVICE == "cuda": torch.cuda.reset_peak_memory_stats()
        times[ours] = [seconds(lambda: maps.tsne(x, engine=engine), 1) for _ in range(3)][1:] # another size is compiled anew
        if DEVICE == "cuda": checks[f"GB of memory, {ours}"] = round(torch.cuda.max_memory_allocated()/1e9, 2)
        save("gpu_tsne", started, goal="G13", what=f"t-SNE map of {n:,} rows of {d} numbers, perplexity 30, 750 rounds", data="made-up features", ours=ours, rows=against(times, ours), own=list(times), limit=15., checks=checks)


def save(name, started, **told):
    "One part's result, as soon as it is there."
    report(name, started, toy(), device=DEVICE, **told)


def main():
    if DEVICE == "cpu" and not toy(): sys.exit("bench/gpu.py needs a GPU; --toy rehearses it without")
    torch.manual_seed(0)
    broken = []
    for part in (step_part, knn_part, kmeans_part, tsne_part, trunk_part, peers_part, photos_part):
        try: part(time.monotonic())
        except Exception: traceback.print_exc(); broken.append(part.__name__) # the others shall have their turn
    if broken: sys.exit(f"broke: {', '.join(broken)}")


if __name__ == "__main__": main()
