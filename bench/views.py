"""G14: random views of 32-pixel images on one CPU thread, against torchvision on PIL images and on tensors, kornia, and albumentations.

    python bench/views.py [--toy]
"""
import time
from importlib.metadata import version
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from clusterlab import views
from peers import MEAN, STD, by_torchvision
from rivals import against, compete, peer, report, toy


def on_tensors():
    "Our random operations by torchvision, for one image: crop, mirror, colours, gray, normalise."
    return v2.Compose([v2.RandomResizedCrop(32, antialias=True), v2.RandomHorizontalFlip(), v2.RandomApply([v2.ColorJitter(.4, .4, .4, .1)], p=.8), v2.RandomGrayscale(.2), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


def by_kornia(images):
    "The same by kornia, 256 images at a time, which is quicker than all at once; None without it."
    if not (aug := peer("kornia.augmentation")): return None
    ops = aug.AugmentationSequential(aug.RandomResizedCrop((32, 32), scale=(.08, 1.), ratio=(3/4, 4/3), cropping_mode="resample"), aug.RandomHorizontalFlip(p=.5), aug.ColorJitter(.4, .4, .4, .1, p=.8),
                                     aug.RandomGrayscale(p=.2), aug.Normalize(torch.tensor(MEAN), torch.tensor(STD)), data_keys=["input"])
    return lambda: torch.cat([ops(part.float()/255) for part in images.split(256)])


def by_albumentations(images):
    "The same by albumentations, image by image, put together at the end; None without it."
    if not (alb := peer("albumentations")): return None
    peer("cv2").setNumThreads(0)
    ops = alb.Compose([alb.RandomResizedCrop((32, 32), scale=(.08, 1.), ratio=(3/4, 4/3)), alb.HorizontalFlip(p=.5), alb.ColorJitter((.6, 1.4), (.6, 1.4), (.6, 1.4), (-.1, .1), p=.8), alb.ToGray(p=.2), alb.Normalize(MEAN, STD)])
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    return lambda: torch.from_numpy(np.stack([ops(image=x)["image"] for x in pixels])).permute(0, 3, 1, 2)


def main():
    started, (n, rounds) = time.monotonic(), (64, 2) if toy() else (1024, 9)
    dice = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=dice)
    recipe, pil, tensor, pixels = views.recipe("simclr", 32, MEAN, STD), by_torchvision(), on_tensors(), images.permute(0, 2, 3, 1).contiguous().numpy()
    ours = "clusterlab, a batch at once"
    rivals = {ours: lambda: views.random_views(images, recipe, dice), "torchvision on PIL images": lambda: torch.stack([pil(Image.fromarray(x)) for x in pixels]), "torchvision on tensors": lambda: torch.stack([tensor(x) for x in images])}
    rivals |= {f"{name} {version(name)}": call for name,call in (("kornia", by_kornia(images)), ("albumentations", by_albumentations(images))) if call}
    times, made = compete(rivals, rounds)
    rows = against(times, ours)
    speed, spread = {name: round(n/row["seconds"][1]) for name,row in rows.items()}, {name: round(made[name].std().item(), 2) for name in rows}
    report("views", started, toy(), goal="G14", what=f"SimCLR views of {n:,} images of 32 pixels, one thread", data="random pixels", ours=ours, rows=rows,
           must={"torchvision on PIL images": 4.}, stretch={"torchvision on PIL images": 6.}, checks={"views per CPU second": speed, "standard deviation of the pixels": spread})


if __name__ == "__main__": main()
