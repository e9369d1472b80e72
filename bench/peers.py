"""Rivals of a training step, its views included: lightly's BYOL as its documentation writes it, and re-statements of the official ProPos and ConNR loops.

The re-statements follow the published descriptions and no repository: views image by image from PIL images in a data loader, both views through the network one after the other,
the twin moved before the step, an optimiser that is not fused, and for ConNR a full sort of the similarities whose ranking goes to the processor, once in each direction.
"""
from copy import deepcopy
from importlib.metadata import version
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T
from clusterlab import nets
from clusterlab.losses import unit
from clusterlab.methods.byol import BYOL
from clusterlab.methods.connr import ConNR
from clusterlab.methods.propos import ProPos
from rivals import peer, stepping

MEAN, STD, K, DIM = (.4914, .4822, .4465), (.2470, .2435, .2616), 10, 256 # Of the images; clusters; length of a feature


# Views by a data loader

def by_torchvision(crop=.08):
    "Our random views of 32 pixels by torchvision, for one PIL image."
    return T.Compose([T.RandomResizedCrop(32, scale=(crop, 1.)), T.RandomHorizontalFlip(), T.RandomApply([T.ColorJitter(.4, .4, .4, .1)], p=.8), T.RandomGrayscale(.2), T.ToTensor(), T.Normalize(MEAN, STD)])


class Twice:
    "Two random views of an image; a class, for a loader's processes may be handed it by pickle."
    def __init__(self, view): self.view = view
    def __call__(self, image): return [self.view(image), self.view(image)]


class Pictures(Dataset):
    "What `transform` makes of each image, as a PIL image, and its position."
    def __init__(self, images, transform): self.pixels, self.transform = images.cpu().permute(0, 2, 3, 1).contiguous().numpy(), transform
    def __len__(self): return len(self.pixels)
    def __getitem__(self, i): return self.transform(Image.fromarray(self.pixels[i])), i


def lightly_folder(folder, transform):
    "The files of a folder as lightly's own data set, which decodes them at every visit."
    from lightly.data import LightlyDataset
    return LightlyDataset(str(folder), transform=transform)


def endless(pictures, batch, workers, pin):
    "Batches in random order, epoch after epoch; without workers the process that trains makes them."
    loader = DataLoader(pictures, batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0, pin_memory=pin)
    while True: yield from loader


# Steps

def build(cls, images, net, hidden, **how):
    "A method of ours whose clusters are known, ready to train."
    method = cls(dict(n=len(images), channels=3, size=images.shape[-1], mean=MEAN, std=STD), K, backbone=net, hidden=hidden, dim=DIM, bn_splits=1, **how).to(images.device)
    method.refresh(torch.randn(len(images), DIM, generator=torch.Generator().manual_seed(1)).to(images.device), 1)
    return method.train()


def ours(method, images, batch):
    "A function that makes one step of a method of ours."
    given = method.to(memory_format=torch.channels_last), images, batch, "bf16" if next(method.parameters()).is_cuda else "fp32"
    return stepping(*given, recorded=next(method.parameters()).is_cuda) or stepping(*given)


def moved(views, device, tuned):
    "Views on the device, in the order of pixels that is quickest there if that is wanted."
    return [x.to(device, non_blocking=tuned, memory_format=torch.channels_last if tuned else torch.contiguous_format) for x in views]


def lightly_views(size, blur, tuned):
    "Two views by lightly: as its documentation has them for BYOL, with its blur or without, or tuned: our own."
    from lightly import transforms
    if tuned: return transforms.SimCLRTransform(input_size=size, cj_strength=.5, gaussian_blur=.5 if blur else 0., normalize=dict(mean=MEAN, std=STD))
    return transforms.BYOLTransform(*(view(input_size=size, **({} if blur else dict(gaussian_blur=0.))) for view in (transforms.BYOLView1Transform, transforms.BYOLView2Transform)))


def by_lightly(pictures, trunk, hidden, batch, workers, tuned, device):
    "A function that makes one step of lightly's BYOL from pictures that are views already: as its documentation has it, or tuned."
    from lightly import loss
    from lightly.models import modules, utils
    predict = modules.BYOLPredictionHead(DIM, hidden, DIM)
    pair = [trunk, modules.BYOLProjectionHead(trunk.width, hidden, DIM)]
    slow = deepcopy(pair)
    for part in slow: utils.deactivate_requires_grad(part)
    whole = nn.ModuleList([*pair, *slow, predict]).to(device)
    if tuned: whole.to(memory_format=torch.channels_last)
    optimizer, criterion, batches = torch.optim.SGD(whole.parameters(), lr=.06), loss.NegativeCosineSimilarity(), endless(pictures, batch, workers, tuned and device.type == "cuda")
    def one():
        a, b = moved(next(batches)[0], device, tuned)
        for mine, theirs in zip(pair, slow): utils.update_momentum(mine, theirs, m=.996)
        with torch.autocast(device.type, torch.bfloat16, enabled=tuned and device.type == "cuda"):
            (p_a, t_a), (p_b, t_b) = ((predict(pair[1](pair[0](x))), slow[1](slow[0](x)).detach()) for x in (a, b))
            value = .5*(criterion(p_a, t_b) + criterion(p_b, t_a))
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
    return one


def propos_way(q, key, predict, labels, method):
    "One direction of ProPos as its description has it, up to the constant 2 of the alignment: a cluster that is absent keeps a logit of -10."
    align = -2*F.cosine_similarity(predict(q + method.sigma*torch.randn_like(q)), key).mean()
    members = F.one_hot(labels, K).to(q).T
    q_c, k_c = (F.normalize(members @ F.normalize(x, dim=1), dim=1) for x in (q, key))
    absent, logits = members.sum(1) == 0, q_c @ q_c.T/method.tau
    logits = torch.where(torch.eye(K, device=q.device, dtype=torch.bool), (q_c*k_c).sum(1)/method.tau, logits).masked_fill(absent, -10.)
    return align + method.psl_weight*F.cross_entropy(logits[~absent], torch.arange(K, device=q.device)[~absent])


def connr_way(q, key, predict, labels, method):
    "One direction of ConNR as its description has it, up to the constant 2 for each image that is kept."
    p, key, b = F.normalize(predict(q), dim=1), F.normalize(key, dim=1), len(q)
    s = key @ key.T
    ranks = s.argsort(dim=1, descending=True).cpu()
    lists, trusted = (ranks[:,:m].to(q.device) for m in (method.k1, method.k2))
    a, w = torch.zeros_like(s).scatter_(1, lists, 1.), torch.zeros_like(s).scatter_(1, trusted, s.gather(1, trusted).square())
    for _ in range(2): a = F.normalize(w @ (a + a.T), dim=1)
    near = (a @ a.T).topk(method.near).indices
    far = torch.cdist(key, method.filter.centres)
    r = far.gather(1, labels[:,None])[:,0]/far.scatter(1, labels[:,None], torch.inf).amin(1)
    kept = r < r.sort().values[int(method.filter.t*b + 1e-9) - 1]
    return -2*(kept[:,None]*(p[:,None]*key[near]).sum(2)).sum()/(b*method.near)


WAYS = {ProPos: propos_way, ConNR: connr_way}


def pseudo(method): return method.filter.pseudo if isinstance(method, ConNR) else method.pseudo # Cluster of every image


def restated(method, images, batch, workers, tuned):
    "A function that makes one step of the official loop of a method, from its description; tuned: with channels_last, and mixed precision on a GPU."
    online, predict, labels, way = deepcopy(method.online), deepcopy(method.predict), pseudo(method), WAYS[type(method)]
    twin, view = deepcopy(online).requires_grad_(False), by_torchvision(method.recipe.crop[0])
    for net in (online, predict, twin): net.to(memory_format=torch.channels_last if tuned else torch.contiguous_format)
    optimizer = torch.optim.SGD([dict(params=online.parameters()), dict(params=predict.parameters(), lr=.1)], lr=.01, momentum=.9, weight_decay=5e-4)
    batches = endless(Pictures(images, Twice(view)), batch, workers, tuned and images.is_cuda)
    def one():
        views, index = next(batches)
        (a, b), at = moved(views, images.device, tuned), labels[index.to(images.device)]
        with torch.autocast(images.device.type, torch.bfloat16, enabled=tuned and images.is_cuda):
            q_a, q_b = online(a), online(b)
            with torch.no_grad():
                for mine, theirs in zip(twin.parameters(), online.parameters()): mine.mul_(.996).add_(theirs, alpha=.004)
                k_a, k_b = twin(a), twin(b)
        q_a, q_b, k_a, k_b = (x.float() for x in (q_a, q_b, k_a, k_b))
        value = (way(q_a, k_b, predict, at, method) + way(q_b, k_a, predict, at, method))/2
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return one


def apart(method, batch):
    "How far the loss of the re-statement is from ours on the same made-up features, eight around each centre; what it leaves out on purpose, noise and constants, aside."
    device, dice, method, index = pseudo(method).device, torch.Generator().manual_seed(2), deepcopy(method), torch.arange(batch)
    method.online = method.twin = method.predict = nn.Identity()
    noise = (0., 0.) if isinstance(method, ProPos) else ()
    labels = pseudo(method).copy_(torch.arange(len(pseudo(method))) % K)[:batch]
    centres = torch.randn(batch//8, DIM, generator=dice)[index % (batch//8)]
    a, b = ((centres + torch.randn(batch, DIM, generator=dice)/2).to(device) for _ in range(2))
    mine, theirs = sum(method.loss((a, b, None, *noise), index).values()), sum(WAYS[type(method)](x, y, method.predict, labels, method) for x,y in ((a, b), (b, a)))/2
    constant = 2*method.filter(unit(torch.stack([b, a])), index).float().mean() if isinstance(method, ConNR) else 2
    return abs(mine - constant - theirs).item()


# Contests

SAME = "on a processor the products of a large network, which are the same for all, take nearly all of the time"


def told(goal, method, net, batch, images, rivals, must, workers, checks, size=32, data="random pixels", own=()):
    "What a report says of a contest, ours first among the rivals; `must` holds two goals for a rival, which were set for a GPU; workers: processes that make views for each; own: rivals that are ours."
    network, how = {"small": "small network"}.get(net, "ResNet-18"), "bf16 for ours and the tuned, float32 (TF32 where torch allows it) for the other, seconds on the clock" if images.is_cuda else "one thread for all, no other process"
    must, checks = (must, checks | {"processes that make views": dict(zip(rivals, workers))}) if images.is_cuda else ({}, checks)
    return dict(goal=goal, what=f"one training step of {method} with its views, {network} at {size} pixels, batch {batch}, {how}", data=data, own=list(own), ours=next(iter(rivals)),
                must={name: least for name,(least,_) in must.items()}, stretch={name: more for name,(_,more) in must.items()}, checks=checks,
                reasons={name: SAME for name in rivals} if net != "small" and not images.is_cuda else {})


def against_lightly(images, batch, net, hidden, workers, best):
    "G3: a contest of BYOL, as what a report says and the steps by name; None without lightly. Workers of the data loader as documented, and the best number of them."
    if not peer("lightly"): return None
    name = f"lightly {version('lightly')}"
    written, tuned = f"{name} as documented (its own views)", f"{name} tuned (our views)"
    def theirs(count, well): return by_lightly(Pictures(images, lightly_views(32, False, well)), nets.backbone(net), hidden, batch, count, well, images.device)
    rivals = {"clusterlab, BYOL": ours(build(BYOL, images, net, hidden), images, batch), written: theirs(workers, False), tuned: theirs(best, True)}
    return told("G3", "BYOL", net, batch, images, rivals, {written: (2., 3.)}, (0, workers, best), {}), rivals


def against_files(folder, images, size, batch, net, hidden, best, device, data):
    "G4: a contest of BYOL on photos that were decoded once with lightly's on their files, as what a report says and the steps by name; best: workers of both data loaders."
    name, how = f"lightly {version('lightly')}", dict(stem="imagenet", recipe="simclr-large", size=size)
    mine, slower, written, tuned = "clusterlab, BYOL", "clusterlab, BYOL, photos read from disk", f"{name} as documented (its own views)", f"{name} tuned (our views)"
    here = images.to(device)
    def theirs(well): return by_lightly(lightly_folder(folder, lightly_views(size, True, well)), nets.backbone(net, stem="imagenet"), hidden, batch, best, well, device)
    rivals = {mine: ours(build(BYOL, here, net, hidden, **how), here, batch), slower: ours(build(BYOL, here, net, hidden, **how), images, batch), written: theirs(False), tuned: theirs(True)}
    return told("G4", "BYOL", net, batch, here, rivals, {written: (4., 6.)}, (0, 0, best, best), {}, size, data, (mine, slower)), rivals


def against_loop(cls, images, batch, net, hidden, best):
    "G5: a contest of a method with the re-statement of its official loop, as what a report says and the steps by name."
    method, name, tuned = build(cls, images, net, hidden), *(f"a {how}re-statement of the official {cls.__name__} loop" for how in ("", "tuned "))
    checks = {"loss of the re-statement less ours, on the same features": float(f"{apart(method, batch):.2g}")}
    loops = {name: restated(method, images, batch, best, False), tuned: restated(method, images, batch, best, True)}
    rivals = {f"clusterlab, {cls.__name__}": ours(method, images, batch), **loops}
    return told("G5", cls.__name__, net, batch, images, rivals, {name: (1.8, 2.5), tuned: (1.3, 1.8)}, (0, best, best), checks), rivals
