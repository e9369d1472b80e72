"""G4 on a CPU: two random views of 224 pixels of each photo of a folder of JPEG files, on one thread and without workers. Ours come from photos that were decoded once, into squares of 256 pixels in a file;
lightly's data set and transform decode at every visit, as documented, and so do those that do it by quicker means. The goal was set for a training step on a GPU, which is timed in `gpu.py`.

    python bench/photos.py [--toy]

Ours pay with sharpness: the others crop the whole photo in all its pixels, ours the square from its middle at 256 pixels.
"""
import os
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision import io
from torchvision.transforms import v2
from clusterlab import data, views
from peers import MEAN, STD, lightly_folder
from rivals import against, compete, peer, report, toy

SIZE, KEPT, OURS = 224, 256, "clusterlab, photos decoded once to squares of 256 pixels" # Side of a view, and of the squares that are kept, in pixels
DATA = "JPEG files of noise at seven scales, 500 x 375, about as many bytes as real photos of that size" # What `folder_of` makes
WRITTEN = "as documented (its own views)"
WHY = "a photo of this size is decoded in far less time than two views of it take, so on a CPU little is gained by decoding it once; albumentations works on bytes where we take numbers"


def photo(dice, wide, high):
    "A picture of noise at seven scales, the coarse ones a little stronger; it says nothing about accuracy."
    x = sum(s**.2*F.interpolate(torch.randn(1, 3, -(-high//s) + 1, -(-wide//s) + 1, generator=dice), (high, wide), mode="bilinear") for s in (64, 32, 16, 8, 4, 2, 1))[0]
    return Image.fromarray((128 + 55*x/x.std()).clamp(0, 255).byte().permute(1, 2, 0).numpy())


def folder_of(place, distinct, n, wide=500, high=375):
    "A folder with `n` JPEG files of quality 90, of which so many are distinct; the others are more names of these."
    dice, folder = torch.Generator().manual_seed(0), Path(place)/"photos"/"all"
    folder.mkdir(parents=True)
    for i in range(distinct): photo(dice, wide, high).save(folder/f"{i:05}.jpg", quality=90)
    for i in range(distinct, n): os.link(folder/f"{i % distinct:05}.jpg", folder/f"{i:05}.jpg")
    return folder.parent


def decoded(folder, place, rounds):
    "The photos as a run finds them, read from a file as they are used, and CPU seconds to decode one: the median of some times."
    times = []
    for i in range(rounds):
        begun = time.process_time()
        found = data.load(folder, root=Path(place)/f"root{i}", size=KEPT, keep=True)
        times.append((time.process_time() - begun)/len(found))
    return found, statistics.median(times)


def pair(images, recipe, dice): return [views.random_views(images, recipe, dice) for _ in range(2)] # Two views of each image


def by_lightly(folder):
    "Two views of each photo by lightly's SimCLR transform and its data set, put together at the end: as documented, and with our strengths; nothing without it."
    if not peer("lightly"): return {}
    from lightly.transforms import SimCLRTransform
    def two(**how):
        pictures = lightly_folder(folder, SimCLRTransform(input_size=SIZE, **how))
        return lambda: [torch.stack(view) for view in zip(*(pictures[i][0] for i in range(len(pictures))))]
    name = f"lightly {version('lightly')}"
    return {f"{name} {WRITTEN}": two(), f"{name} (our views)": two(cj_strength=.5, normalize=dict(mean=MEAN, std=STD))}


def by_torchvision(files, dice):
    "Decoded and cropped by torchvision, photo by photo; then our colours, all at once."
    crop, colours = v2.Compose([v2.RandomResizedCrop(SIZE, antialias=True), v2.RandomHorizontalFlip()]), views.recipe("simclr-large", SIZE, MEAN, STD, crop=(1., 1.), flip=0.)
    def two():
        photos = [io.decode_jpeg(io.read_file(str(file))) for file in files]
        return [views.random_views(torch.stack([crop(x) for x in photos]), colours, dice) for _ in range(2)]
    return two


def by_albumentations(files):
    "Decoded by OpenCV, all else by albumentations; None without it."
    if not (alb := peer("albumentations")): return None
    cv2 = peer("cv2")
    cv2.setNumThreads(0)
    ops = alb.Compose([alb.RandomResizedCrop((SIZE, SIZE), scale=(.08, 1.), ratio=(3/4, 4/3)), alb.HorizontalFlip(p=.5), alb.ColorJitter((.6, 1.4), (.6, 1.4), (.6, 1.4), (-.1, .1), p=.8), alb.ToGray(p=.2),
                       alb.GaussianBlur(blur_limit=0, sigma_limit=(.1, 2.), p=.5), alb.Normalize(MEAN, STD)])
    def two():
        photos = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]
        return [torch.from_numpy(np.stack([ops(image=x)["image"] for x in photos])).permute(0, 3, 1, 2) for _ in range(2)]
    return two


def contest(folder, images):
    "All rivals, by name."
    files, dice, recipe = sorted(folder.rglob("*.jpg")), torch.Generator().manual_seed(0), views.recipe("simclr-large", SIZE, MEAN, STD)
    rivals = {OURS: lambda: pair(images[torch.randperm(len(images), generator=dice)], recipe, dice), **by_lightly(folder), "torchvision decodes and crops each time, colours by clusterlab": by_torchvision(files, dice)}
    if mixed := by_albumentations(files): rivals[f"albumentations {version('albumentations')}, decoded by OpenCV each time"] = mixed
    return rivals


def main():
    started, (n, rounds) = time.monotonic(), (4, 2) if toy() else (64, 7)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        folder = folder_of(place, n, n)
        found, once = decoded(folder, place, 3)
        kilo = sum(file.stat().st_size for file in folder.rglob("*.jpg"))/n/1e3
        rivals = contest(folder, found.images)
        times, made = compete(rivals, rounds)
    rows = against({name: [t/n for t in values] for name,values in times.items()}, OURS)
    middle = {name: row["seconds"][1] for name,row in rows.items()}
    report("photos", started, toy(), goal="G4", what=f"two SimCLR views of {SIZE} pixels of a photo of {kilo:.0f} kB, one thread, no workers", data=DATA, ours=OURS, rows=rows,
           reasons={name: WHY for name in rows if name != OURS},
           checks={"photos per CPU second": {name: round(1/t) for name,t in middle.items()}, "CPU seconds to decode a photo once, and keep it": float(f"{once:.3g}"),
                   "epochs until this has paid": {name: round(once/(t - middle[OURS]), 2) for name,t in middle.items() if t > middle[OURS]},
                   "standard deviation of the pixels": {name: round(torch.cat(list(x)).std().item(), 2) for name,x in made.items()}})


if __name__ == "__main__": main()
