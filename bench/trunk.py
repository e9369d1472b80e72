"""G17 on a CPU: one training step of UNIC on a ViT-S/16 whose last block is tuned, with what the frozen trunk says kept, against asking it again.

    python bench/trunk.py [--toy]

Weights and pixels are random: they serve for speed, and say nothing about accuracy.
"""
import time
import torch
from clusterlab import fit
from clusterlab.methods.unic import UNIC
from rivals import against, compete, report, stepping, toy

OURS, OTHER = "UNIC, trunk kept", "UNIC, trunk asked at every step"


def rival(images, name, size, kept, precision="fp32"):
    "UNIC with one fixed view, kept if asked, or with new views; neighbours are those of random features."
    torch.manual_seed(0)
    facts = dict(n=len(images), channels=3, size=images.shape[-1], mean=(.485, .456, .406), std=(.229, .224, .225))
    method = UNIC(facts, 10, backbone=f"timm/{name}", weights="", size=size, tau2=len(images)//4, fixed_views=int(kept), fixed_precision=precision).to(images.device)
    method.refresh(torch.randn(len(images), method.trunk.width, device=images.device), 0)
    method.train()
    for at in torch.arange(len(images), device=images.device).split(64) if kept else (): method.recall(images[at], at)
    return method


def stepper(method, images, batch, precision="fp32"):
    "A function that makes one step."
    return stepping(method, images, batch, precision, 1e-4, optimizer="adam", weight_decay=0.)


def looker(method, images):
    "A function that looks at all images."
    return lambda: fit.embed_all(method, images)


def rivals(images, name, size, precision="fp32"):
    "Both, by name."
    return {OURS: rival(images, name, size, True, precision), OTHER: rival(images, name, size, False)}


def main():
    started, (name, size, n, batch, rounds) = time.monotonic(), ("test_vit", 32, 64, 8, 3) if toy() else ("vit_small_patch16_224", 224, 96, 8, 6)
    torch.set_num_threads(1)
    images = torch.randint(256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    methods = rivals(images, name, size)
    rows = against(compete({label: stepper(method, images, batch) for label,method in methods.items()}, rounds)[0], OURS)
    looks = against(compete({label: looker(method, images) for label,method in methods.items()}, 1)[0], OURS)
    report("trunk", started, toy(), goal="G17", what=f"one step of UNIC, {name}, last block tuned, {batch} anchors ({3*batch} views), one thread", data="random weights and pixels", ours=OURS, rows=rows, must={OTHER: 2.8}, stretch={OTHER: 3.5},
           checks={"a look at all images, times as fast": looks[OTHER]["ratio"], "kept of an image, its view and the plain one, MB": round(methods[OURS].kept_bytes/n/1e6, 2)})


if __name__ == "__main__": main()
