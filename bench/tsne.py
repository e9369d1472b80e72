"""G13 on a CPU: a t-SNE map on one thread as it is drawn of few points, exactly, against openTSNE and scikit-learn, from much the same start. Ours makes 500 rounds of so few points, the others the usual 750; how good the maps are stands beside the time.

    python bench/tsne.py [--toy]
"""
import time
from openTSNE import initialization
from sklearn.manifold import TSNE
from clusterlab import maps
from knn import made_up
from rivals import against, compete, report, toy


def by_sklearn(x):
    "Places on the map of scikit-learn: 750 rounds in all, from the start that openTSNE takes; of unit vectors, half of their squared distance is the cosine distance."
    return TSNE(perplexity=30, init=initialization.pca(x, random_state=0), max_iter=750, random_state=0, n_jobs=1).fit_transform(x)


def main():
    started, (n, d, rounds) = time.monotonic(), (200, 32, 1) if toy() else (2_000, 512, 3) # As many as a record keeps
    x, ours, steps = made_up(n, d), "clusterlab", sum(n for _,n in maps.SHORT)
    times, drawn = compete({ours: lambda: maps.tsne(x), "openTSNE": lambda: maps.tsne(x, engine="openTSNE"), "scikit-learn": lambda: by_sklearn(x.numpy())}, rounds, warm=0)
    pairs = maps.affinities(x)
    price = {name: maps.divergence(xy, pairs) for name,xy in drawn.items()}
    report("tsne", started, toy(), goal="G13", what=f"t-SNE map of {n:,} rows of {d} numbers, perplexity 30, {steps} rounds, the others 750, one thread", data="made-up features", ours=ours, rows=against(times, ours),
           checks={"rounds": {name: steps if name == ours else 750 for name in price}, "divergence": {name: round(v, 4) for name,v in price.items()},
           "divergence over that of scikit-learn": {name: round(v/price["scikit-learn"], 4) for name,v in price.items()}})


if __name__ == "__main__": main()
