"""G15: exact nearest neighbours on one CPU thread, against faiss and scikit-learn.

    python bench/knn.py [--toy]
"""
import time
from importlib import import_module
import torch
from torch.nn import functional as F
from sklearn.neighbors import NearestNeighbors
from clusterlab import targets
from rivals import against, compete, report, toy

WHY = "faiss stops at the answer of its 32-bit products; ours weighs the best rows once more in 64 bits, orders ties, and proves that no row was missed"


def made_up(n, d, groups=100, block=100_000, device="cpu"):
    "Unit vectors around some centres, written block by block, for twice as much might not fit; they say nothing about accuracy, and another device draws others."
    dice, x = torch.Generator(device).manual_seed(0), torch.empty(n, d, device=device)
    centres = torch.randn(groups, d, generator=dice, device=device)
    for rows in x.split(block): rows.copy_(F.normalize(centres[torch.randint(groups, (len(rows),), generator=dice, device=device)] + 1.5*torch.randn(len(rows), d, generator=dice, device=device), dim=1))
    return x


def by_faiss(rows, x, k):
    "Similarities and neighbours by faiss alone, from the same two tensors; the index is made anew, as all others make theirs."
    faiss = import_module("faiss")
    faiss.omp_set_num_threads(1)
    search = faiss.IndexFlatIP(x.shape[1])
    search.add(x.numpy())
    return search.search(rows.numpy(), k)


def main():
    started, (n, d, q, k, rounds) = time.monotonic(), (2_000, 64, 200, 20, 2) if toy() else (50_000, 512, 10_000, 20, 5)
    x, rows = made_up(n, d), made_up(n, d)[:q]
    usual = "clusterlab, bf16 with a certificate"
    rivals = {usual: lambda: targets.knn(x, k, rows, engine="bf16"), "clusterlab on faiss": lambda: targets.knn(x, k, rows, engine="faiss"),
              "faiss alone": lambda: by_faiss(rows, x, k),
              "scikit-learn": lambda: NearestNeighbors(n_neighbors=k, algorithm="brute").fit(x.numpy()).kneighbors(rows.numpy())}
    times, found = compete(rivals, rounds, warm=1)
    same = {name: round((found[usual][1] == torch.as_tensor(found[name][1])).float().mean().item(), 6) for name in list(rivals)[1:]}
    report("knn", started, toy(), goal="G15", what=f"{k} exact neighbours of {q:,} queries among {n:,} rows of {d} numbers, one thread", data="made-up features", ours=usual, rows=against(times, usual),
           must={"faiss alone": 1., "scikit-learn": 2.}, stretch={"faiss alone": 1.5, "scikit-learn": 3.}, own=[usual, "clusterlab on faiss"], reasons={"faiss alone": WHY}, checks={"same neighbour in the same place": same})


if __name__ == "__main__": main()
