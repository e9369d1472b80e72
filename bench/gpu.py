"""G1 to G5, G7 to G13, G17 and G18 on a GPU, the most valuable first. Each part writes its own result as soon as it has one, so that the whole may be cut off; before each the clock is asked, and a part that has begun is finished.

    python bench/gpu.py [--minutes 26]    # needs CUDA
    python bench/gpu.py step epoch knn    # only these parts, in this order
    python bench/gpu.py --toy             # the same at a small size on any device: a rehearsal
"""
import argparse
import os
import random
import statistics
import sys
import tempfile
import time
import traceback
from functools import cache
import torch
from sklearn.cluster import KMeans
from sklearn.manifold import TSNE
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
import photos
import trunk
from clusterlab import fit, maps, targets, views
from clusterlab.methods.byol import BYOL
from clusterlab.methods.connr import ConNR
from clusterlab.methods.pipcdr import PIPCDR
from clusterlab.methods.propos import ProPos
from peers import Pictures, Twice, against_files, against_lightly, against_loop, by_torchvision, endless, lightly_folder, lightly_views
from knn import made_up
from rivals import against, peer, report, share, stepping, toy

METHODS = {"BYOL": BYOL, "PIPCDR": PIPCDR, "ConNR": ConNR}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
USUAL = "clusterlab, bf16 with a certificate"


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


def pixels(n, side=32):
    "Random images on the device."
    return torch.randint(256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(DEVICE)


# The least time that this device could take

def roofline():
    "Operations per second of a product in bf16, and bytes per second of a copy."
    size, copied = (256, 2**20) if toy() else (8192, 2**32) # side of the product, bytes of the copy
    a, b = torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16), torch.empty(copied, device=DEVICE, dtype=torch.uint8)
    for call in (lambda: a @ a, b.clone): seconds(call, 2)
    return 2*size**3/seconds(lambda: a @ a, 10), 2*copied/seconds(b.clone, 10)


def beside(call):
    "What a call gives, the roofline before it, or None where product or copy are more than 5 % apart afterwards, and what to tell of both."
    before, given, after = roofline(), call(), roofline()
    drift = {name: round(b/a - 1, 3) for name,a,b in zip(("product", "copy"), before, after)}
    steady = toy() or max(map(abs, drift.values())) <= .05
    return given, before if steady else None, {"TFLOP/s of a product": round(before[0]/1e12, 2), "TB/s of a copy": round(before[1]/1e12, 3), "drift over the measurement" + ("" if steady else ", too much for a fraction of the roofline"): drift}


def work(one, parameters):
    "Operations and bytes of one step: bytes that layers of weights and batch-norm read and write, twice as many on the way back, and those of the optimiser and the twin; what stands between the layers could be done in the same stroke, and is not counted."
    passed = []
    def count(module, given, out):
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm)):
            twice = isinstance(module, nn.modules.batchnorm._BatchNorm) # it reads its input for the statistics, and again
            passed.append((3 if torch.is_grad_enabled() else 1)*(given[0].nbytes*(1 + twice) + out.nbytes))
    hook = nn.modules.module.register_module_forward_hook(count)
    try:
        with FlopCounterMode(display=False) as counted: one()
    finally: hook.remove()
    return counted.get_total_flops(), sum(passed) + 4*sum(x.numel()*(5 if x.requires_grad else 3) for x in parameters)


# Steps

def ready(cls, images, **options):
    "A method with a ResNet-18 of 32 pixels that has looked at all images."
    facts = dict(n=len(images), channels=3, size=32, mean=(.49, .48, .45), std=(.25, .24, .26))
    method = cls(facts, 10, backbone="small" if toy() else "resnet18", **({"hidden": 64, "dim": 16} if toy() else {}), **options).to(DEVICE).to(memory_format=torch.channels_last)
    fit.look(method, images[:2048], 1) if len(images) <= 2048 else method.refresh(torch.randn(len(images), method.dim, device=DEVICE), 1)
    return method.train()


INDUCTOR = "aot_eager" if toy() else "inductor"
KINDS = {"": (None, False), ", compiled": (INDUCTOR, False), ", recorded": (None, True), ", compiled and recorded": (INDUCTOR, True)} # What compiles the networks, and is the move recorded?

def stepper(cls, images, batch, kind=""):
    "A function that makes one step of a method; None if it shall be compiled or recorded and cannot."
    method, (backend, recorded) = ready(cls, images), KINDS[kind]
    if backend and not fit.compile_networks(method, images, backend, batch, "bf16"): return None # it warns and says why
    return stepping(method, images, batch, "bf16", recorded=recorded)


@cache
def quickest_kind(batch):
    "The kind of step in which BYOL is fastest here, of those that it can take."
    images = pixels(4*batch)
    ones = {kind: one for kind in KINDS if (one := stepper(BYOL, images, batch, kind))}
    times = warm(ones, 2, 2 if toy() else 20)
    return min(times, key=lambda kind: statistics.median(times[kind]))


def turns(ones, windows, each, lead=0):
    "Seconds a step of each, a window of each in turn, every round in another order; before it as many steps as its data loader may have kept ready."
    times, dice = {name: [] for name in ones}, random.Random(0)
    for _ in range(windows):
        for name in dice.sample(list(ones), len(ones)):
            for _ in range(lead): ones[name]()
            times[name].append(seconds(ones[name], each))
    return times


def warm(ones, windows, each):
    "Seconds of each in turn, after as many to warm up."
    for one in ones.values(): seconds(one, each)
    return turns(ones, windows, each)


def steps(images, batch):
    "A function that makes one step, for each method in the kind that is quickest and for BYOL in all kinds; operations and bytes of a step of BYOL."
    method = ready(BYOL, images)
    cost = work(stepping(method, images, batch, "bf16"), method.parameters())
    wanted = {f"{name}{quickest_kind(batch)}": (cls, quickest_kind(batch)) for name,cls in METHODS.items()} | {f"BYOL{kind}": (BYOL, kind) for kind in KINDS}
    return {name: one for name,(cls,kind) in wanted.items() if (one := stepper(cls, images, batch, kind))}, cost


def views_shares(images, middle, each):
    "G9: the time of the views of a batch over that of the quickest step of BYOL with such views, as written and by a compiler."
    recipe, shares = views.recipe("simclr", 32, (.49, .48, .45), (.25, .24, .26)), {}
    for how,backend in (("as written", None), ("compiled", INDUCTOR)):
        mine, dice = recipe.made_by(backend), torch.Generator().manual_seed(0)
        def two(): views.two_views(images, mine, dice)
        seconds(two, 2) # the first batch is for the compiler
        times = [middle[f"BYOL{kind}"] for kind,(whose, _) in KINDS.items() if whose == backend and f"BYOL{kind}" in middle]
        if times and not (backend and mine.by.why): shares[f"views in a step of BYOL, {how}"] = share("G9", statistics.median(seconds(two, each) for _ in range(5))/min(times), .05, .02, most=True)
    return shares


def step_part(started):
    "G1, G2, G7, G8, G9."
    n, batch, windows, each = (256, 32, 2, 2) if toy() else (50_000, 256, 7, 40)
    images = pixels(n)
    (ones, (flops, moved)), kind = steps(images, batch), quickest_kind(batch)
    times, rates, told = beside(lambda: warm(ones, windows, each))
    middle = {name: statistics.median(values) for name,values in times.items()}
    shares = views_shares(images[:batch], middle, each)
    part = {name: (flops/rates[0] + moved/rates[1])/middle[name] for name in middle if name.startswith("BYOL")} if rates else {}
    shares |= {f"of the two-term roofline, {name}": share("G2", value, .55, .7) for name,value in part.items()}
    save("gpu_step", started, goal="G1, G7, G8", what=f"one training step, ResNet-18 at 32 pixels, batch {batch}, bf16", data="random pixels", ours=f"BYOL{kind}", rows=against(times, f"BYOL{kind}"),
         most={name: most for name,most in ((f"ConNR{kind}", 1/.97), (f"PIPCDR{kind}", 1.03)) if name in times}, stretch={f"ConNR{kind}": 1/.992, f"PIPCDR{kind}": 1.01}, own=list(times), limit=1/86, limit_stretch=1/110, shares=shares, roofline={name: round(value, 3) for name,value in part.items()},
         checks={"steps a second": {name: round(1/value, 2) for name,value in middle.items()}, "GFLOP of an image, BYOL": round(flops/batch/1e9, 3), "MB moved for an image, BYOL": round(moved/batch/1e6, 2), **told})


def epoch(method, images, batch, look):
    "A function that trains a method for an epoch and looks at all images, as a run does every time; BYOL finds its clusters there too. Without a look a method may cluster its own answers."
    plan, optimizer, (backend, recorded) = fit.check_plan(images, 100, None, .05, batch, .05, 1, "bf16", 0), fit.optimizer_for(method), KINDS[quickest_kind(batch)]
    if backend: fit.compile_networks(method, images, backend, batch, "bf16")
    by = fit.Recorded(method, optimizer) if recorded else fit.move
    def one():
        with fit.trusting():
            fit.train_epoch(method, images, optimizer, 50, plan, by)
            fit.look(method, images, 51) if look else fit.between(method, 51)
    return one


def epoch_part(started):
    "The other half of G8: what PIPCDR adds to an epoch."
    n, batch, windows = (128, 32, 2) if toy() else (50_000, 256, 5)
    images = pixels(n)
    methods = {name: ready(METHODS[name], images) for name in ("BYOL", "PIPCDR")}
    own = {"BYOL without a look": ready(BYOL, images), "PIPCDR on its own answers": ready(PIPCDR, images, own_answers=True)}
    times = warm({name: epoch(method, images, batch, name in methods) for name,method in {**methods, **own}.items()}, windows, 1)
    looks = {name: round(seconds(lambda: fit.look(method, images, 51), 2), 3) for name,method in methods.items()}
    for name,group,how in (("gpu_epoch", methods, "with its look at all of them and its k-means"), ("gpu_epoch_own", own, "without a look; k-means on what the steps answered")):
        ours, other = group
        save(name, started, goal="G8", what=f"one epoch of {n:,} images {how}, ResNet-18 at 32 pixels, batch {batch}, bf16", data="random pixels", ours=ours, rows=against({label: times[label] for label in group}, ours),
             most={other: 1.03}, stretch={other: 1.01}, own=list(group), checks={"seconds of the look alone": looks} if group is methods else {})


def growth_part(started):
    "G18: images a second of a large batch over those of a usual one."
    n, few, many, windows, each = (128, 16, 64, 2, 2) if toy() else (50_000, 256, 1024, 7, 20)
    images, (large, small) = pixels(n), (f"BYOL, batch {batch:,}" for batch in (many, few))
    times = warm({large: stepper(BYOL, images, many, quickest_kind(many)), small: stepper(BYOL, images, few, quickest_kind(few))}, windows, each)
    rows = against({name: [t/batch for t in times[name]] for name,batch in ((large, many), (small, few))}, large)
    save("gpu_growth", started, goal="G18", what="one training step, seconds for each of its images, ResNet-18 at 32 pixels, bf16", data="random pixels", ours=large, rows=rows, must={small: 1.1}, own=list(rows),
         checks={"images a second": {name: round(1/row["seconds"][1]) for name,row in rows.items()}})


# Neighbours, clusters, maps

def knn_part(started):
    "G10: exact neighbours; the rate of a product in bf16, in the same run, is the measure."
    n, d, k = (2_000, 64, 20) if toy() else (128_000, 768, 20)
    x, engines = made_up(n, d, device=DEVICE), {USUAL: "bf16", "clusterlab, torch": "torch"}
    times, rates, told = beside(lambda: {name: [seconds(lambda: targets.knn(x, k, engine=engine), 1) for _ in range(6)][1:] for name,engine in engines.items()})
    same = targets.knn(x, k, engine="torch")[1].equal(targets.knn(x, k, engine="bf16")[1])
    part = {name: 2*n*n*d/rates[0]/statistics.median(values) for name,values in times.items()} if rates else {}
    save("gpu_knn", started, goal="G10", what=f"{k} exact neighbours of {n:,} rows of {d} numbers", data="made-up features", ours=USUAL, rows=against(times, USUAL), own=list(times), needs=["both engines agree"],
         shares={"of the rate of a product in bf16": share("G10", part[USUAL], .4, .65)} if part else {}, roofline={name: round(value, 3) for name,value in part.items()}, checks={"both engines agree": same, **told})


def by_faiss(x, k, few):
    "Seconds of faiss on the same device for all rows, counted from some, and the neighbours of these with themselves; None without a faiss for this device."
    if not (faiss := peer("faiss")) or not peer("faiss.contrib.torch_utils"): return None
    if DEVICE == "cuda" and not (hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus()): return print("faiss is left out, for it has no part for this GPU", file=sys.stderr)
    stock = faiss.StandardGpuResources() if DEVICE == "cuda" else None
    search = faiss.GpuIndexFlatIP(stock, x.shape[1]) if stock else faiss.IndexFlatIP(x.shape[1])
    added = seconds(lambda: search.add(x), 1)
    near = search.search(x[:few], k + 1)[1]
    return added + seconds(lambda: search.search(x[:few], k + 1), 1)*len(x)/few, near


def imagenet_part(started):
    "G11: neighbours among as many rows as ImageNet has images; the number of queries at a time is what was quickest for some."
    n, d, k, few, blocks = (3_000, 64, 20, 500, (64, 256)) if toy() else (1_281_167, 768, 20, 16_384, (256, 1024, 4096))
    x = made_up(n, d, device=DEVICE)
    def find(block, q=None): return targets.knn(x, k, q, block=block, engine="bf16")
    tried = {block: seconds(lambda: find(block, x[:few]), 2) for block in blocks}
    block = min(tried, key=tried.get)
    rounds = 3 if tried[block]*n/few < 30 else 1
    times, rates, told = beside(lambda: {USUAL: [seconds(lambda: find(block), 1) for _ in range(rounds)]})
    theirs, name = by_faiss(x, k, few), f"faiss on the same device, counted from {few:,} queries"
    if theirs:
        ours = targets.knn(x, k + 1, x[:few], block=block, engine="bf16")[1] # with themselves, as theirs
        times[name], told["same neighbour in the same place as faiss"] = [theirs[0]]*rounds, round((ours == theirs[1].to(ours)).float().mean().item(), 6)
    save("gpu_imagenet", started, goal="G11", what=f"{k} exact neighbours of each of {n:,} rows of {d} numbers, {block:,} queries at a time", data="made-up features", ours=USUAL, rows=against(times, USUAL), must={name: 2.}, stretch={name: 4.},
         limit=9., limit_stretch=5.5, roofline={USUAL: round(2*n*n*d/rates[0]/statistics.median(times[USUAL]), 3)} if rates else {}, checks=told)


def kmeans_part(started):
    "G12."
    n, d, k, n_init = (2_000, 32, 10, 3) if toy() else (60_000, 512, 10, 20)
    x, ours = made_up(n, d, groups=40, device=DEVICE), "clusterlab, all restarts at once"
    values = [seconds(lambda: targets.kmeans(x, k, n_init, spherical=False), 1) for _ in range(8)][1:]
    price = targets.kmeans(x, k, n_init, spherical=False).inertia/KMeans(k, n_init=n_init, random_state=0).fit(x.cpu().numpy()).inertia_
    save("gpu_kmeans", started, goal="G12", what=f"k-means of {n:,} rows of {d} numbers into {k} clusters, {n_init} restarts", data="made-up features", ours=ours, rows=against({ours: values}, ours),
         limit=.02, limit_stretch=.008, needs=["objective within 0.1 %"], checks={"objective over that of scikit-learn": round(price, 5), "objective within 0.1 %": bool(price <= 1.001)})


def tsne_part(started):
    "G13: a map of everything, block by block and then compiled; its divergence at a smaller size over that of scikit-learn."
    n, d, few = (400, 32, 200) if toy() else (60_000, 512, 10_000)
    engines, times, checks = {"clusterlab, exact": "torch", "clusterlab, exact, compiled": "fused"}, {}, {}
    x = made_up(n, d, device=DEVICE)
    pairs, rounds = maps.affinities(x[:few]), sum(count for _,count in (maps.SHORT if n <= maps.FEW else maps.LONG))
    theirs = maps.divergence(TSNE(perplexity=30, init="pca", max_iter=750, random_state=0, n_jobs=-1).fit_transform(x[:few].cpu().numpy()), pairs)
    for ours,engine in engines.items():
        if DEVICE == "cpu" and engine == "fused": continue # a minute of compiling
        value = maps.divergence(maps.tsne(x[:few], engine=engine), pairs)
        checks |= {f"divergence at {few:,} rows, {ours}": round(value, 4), f"the same over that of scikit-learn, {ours}": round(value/theirs, 4), f"within 2 %, {ours}": bool(value <= 1.02*theirs)}
        if DEVICE == "cuda": torch.cuda.reset_peak_memory_stats()
        times[ours] = [seconds(lambda: maps.tsne(x, engine=engine), 1) for _ in range(3)][1:] # another size is compiled anew
        if DEVICE == "cuda": checks[f"GB of memory, {ours}"] = round(torch.cuda.max_memory_allocated()/1e9, 2)
        save("gpu_tsne", started, goal="G13", what=f"t-SNE map of {n:,} rows of {d} numbers, perplexity 30, {rounds} rounds", data="made-up features", ours=ours, rows=against(times, ours), own=list(times),
             limit=15., limit_stretch=5., needs=[f"within 2 %, {ours}"], checks=checks)


# UNIC's trunk, and others

def trunk_part(started):
    "G17: UNIC on a ViT-B/16 with random weights, bf16; what the frozen trunk says is kept, or asked again."
    name, side, n, batch, windows, each = ("test_vit", 32, 64, 8, 2, 2) if toy() else ("vit_base_patch16_224", 224, 2048, 128, 7, 10)
    images = pixels(n, side)
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


@cache
def contest():
    "Images, batch, network, widths of the heads, workers as documented and the best number of them, windows and steps in each, for all contests with others."
    n, batch, windows, each, net, hidden, workers, counts = (64, 16, 2, 1, "small", (64, 64), 1, (1,)) if toy() else (50_000, 256, 5, 40, "resnet18", (1024, 4096), 8, {4, 8, os.cpu_count()})
    images = pixels(n)
    return images, batch, net, hidden, workers, quickest(Pictures(images, Twice(by_torchvision())), batch, counts, each), windows, each


def peer_part(started, name, begin):
    "Others with their data loaders against ours, views included."
    *given, windows, each = contest()
    if not (found := begin(*given)): return
    (told, rivals), lead = found, 2*max(given[-2:]) + 1
    save(name, started, rows=against(turns(rivals, windows, each, lead), told["ours"]), **told)


def lightly_part(started):
    "G3."
    peer_part(started, "gpu_lightly", lambda images, batch, net, hidden, workers, best: against_lightly(images, batch, net, hidden[0], workers, best))


def propos_part(started): loop_part(started, ProPos) # G5
def connr_part(started): loop_part(started, ConNR) # G5


def loop_part(started, cls):
    "A method against the re-statement of its official loop."
    peer_part(started, f"gpu_{cls.__name__.lower()}", lambda images, batch, net, hidden, workers, best: against_loop(cls, images, batch, net, hidden[1], best))


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


# Everything

def save(name, started, **told):
    "One part's result, as soon as it is there."
    report(name, started, toy(), device=DEVICE, **told)


PARTS = (step_part, lightly_part, knn_part, kmeans_part, imagenet_part, trunk_part, epoch_part, growth_part, connr_part, propos_part, tsne_part, photos_part) # The most valuable first

BY_NAME = {part.__name__.removesuffix("_part"): part for part in PARTS}


def main():
    begun, asked = time.monotonic(), argparse.ArgumentParser(description="Speed on a GPU, the most valuable first")
    asked.add_argument("--toy", action="store_true", help="a rehearsal at a small size, on any device")
    asked.add_argument("--minutes", type=float, default=26., help="after so many no part begins")
    asked.add_argument("parts", nargs="*", help=f"of {' '.join(BY_NAME)}; default: all")
    given = asked.parse_args()
    for name in given.parts:
        if name not in BY_NAME: asked.error(f"part '{name}' is not one of {' '.join(BY_NAME)}")
    minutes, parts = given.minutes, [BY_NAME[name] for name in given.parts or BY_NAME]
    if DEVICE == "cpu" and not toy(): sys.exit("bench/gpu.py needs a GPU; --toy rehearses it without")
    torch.manual_seed(0)
    broken = []
    for n,part in enumerate(parts):
        if time.monotonic() - begun >= 60*minutes:
            print(f"The {minutes:g} minutes are over; not begun: {', '.join(left.__name__ for left in parts[n:])}", file=sys.stderr)
            break
        if DEVICE == "cuda": torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()
        try: part(time.monotonic())
        except Exception: traceback.print_exc(); broken.append(part.__name__) # the others shall have their turn
        print(f"{part.__name__}: done {(time.monotonic() - begun)/60:.1f} minutes after the start", file=sys.stderr)
    if broken: sys.exit(f"broke: {', '.join(broken)}")


if __name__ == "__main__": main()
