"""G12 on a CPU: k-means with 20 restarts on one thread, against scikit-learn and faiss.

    python bench/kmeans.py [--toy]
"""
import time
import faiss
from sklearn.cluster import KMeans
from clusterlab import targets
from knn import made_up
from rivals import against, compete, report, toy

ROUNDS = 20 # Most rounds of each restart in faiss, which has no other rule to end


def by_faiss(x, k, n_init):
    "Inertia of the best of some restarts."
    faiss.omp_set_num_threads(1)
    search = faiss.Kmeans(x.shape[1], k, niter=ROUNDS, nredo=n_init, seed=0, max_points_per_centroid=len(x))
    search.train(x.numpy())
    return search.obj[-1].item()


def main():
    started, (n, d, k, n_init, rounds) = time.monotonic(), (2_000, 32, 10, 3, 2) if toy() else (60_000, 512, 10, 20, 3)
    x, ours = made_up(n, d, groups=40), "clusterlab, all restarts at once"
    rivals = {ours: lambda: targets.kmeans(x, k, n_init, spherical=False).inertia, "scikit-learn": lambda: KMeans(k, n_init=n_init, random_state=0).fit(x.numpy()).inertia_, "faiss": lambda: by_faiss(x, k, n_init)}
    times, price = compete(rivals, rounds, warm=int(toy()))
    report("kmeans", started, toy(), goal="G12", what=f"k-means of {n:,} rows of {d} numbers into {k} clusters, {n_init} restarts, one thread", data="made-up features", ours=ours, rows=against(times, ours),
           must={"scikit-learn": 2.}, stretch={"scikit-learn": 3.}, needs=["objective within 0.1 %"], checks={"objective within 0.1 %": bool(price[ours] <= 1.001*price["scikit-learn"]), "objective over that of scikit-learn": {name: round(v/price["scikit-learn"], 5) for name,v in price.items()}})


if __name__ == "__main__": main()
