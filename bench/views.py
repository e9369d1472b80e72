"""G14: random views of 32-pixel images on one CPU thread, against torchvision on PIL images and on tensors.

    python bench/views.py [--toy]
"""
import time
import torch
from torchvision.transforms import v2
from clusterlab import views
from rivals import against, compete, report, toy

MEAN, STD = (.4914, .4822, .4465), (.2470, .2435, .2616)


def rival(first):
    "The same random operations by torchvision, image by image: crop, mirror, colours, gray, normalise."
    return v2.Compose([*first, v2.RandomResizedCrop(32, antialias=True), v2.RandomHorizontalFlip(), v2.RandomApply([v2.ColorJitter(.4, .4, .4, .1)], p=.8), v2.RandomGrayscale(.2),
                       v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


def main():
    started, (n, rounds) = time.monotonic(), (64, 2) if toy() else (1024, 9)
    dice = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=dice)
    recipe, (pil, tensor) = views.recipe("simclr", 32, MEAN, STD), (rival([v2.ToPILImage()]), rival([]))
    ours = "clusterlab, a batch at once"
    rivals = {ours: lambda: views.random_views(images, recipe, dice), "torchvision on PIL images": lambda: torch.stack([pil(x) for x in images]), "torchvision on tensors": lambda: torch.stack([tensor(x) for x in images])}
    rows = against(compete(rivals, rounds)[0], ours)
    speed = {name: round(n/row["seconds"][1]) for name,row in rows.items()}
    report("views", started, toy(), goal="G14", what=f"SimCLR views of {n:,} images of 32 pixels, one thread", data="random pixels", ours=ours, rows=rows,
           must={"torchvision on PIL images": 4.}, stretch={"torchvision on PIL images": 6.}, checks={"views per CPU second": speed})


if __name__ == "__main__": main()
