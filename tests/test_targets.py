"""Neighbours where rounding hurts most: every engine gives the rows, and the bits, of the definition in float64."""
import math
import numpy as np
import pytest
import torch
from clusterlab.targets import ROUGH, knn


def slow(x, k, spherical, queries=None):
    "Walk over all pairs, sums rounded once; neighbours closer than 1e-12 (of points: of their distance) are one tie, which goes to the lower index."
    rows, asked, own = x.double().numpy(), (x if queries is None else queries).double().numpy(), queries is None
    length = [math.sqrt(math.fsum(a*a)) for a in rows]
    found = []
    for i,a in enumerate(asked):
        norm = math.sqrt(math.fsum(a*a))
        def near(j): return math.fsum(a*rows[j])/max(norm*length[j], 1e-100) if spherical else -math.fsum((a - rows[j])**2)
        order, group = sorted((-near(j), j) for j in range(len(rows)) if not (own and i == j)), [0]
        for (a_s, _), (b_s, _) in zip(order, order[1:]): group.append(group[-1] + (b_s - a_s > 1e-12*(1 if spherical else abs(a_s))))
        found.append([(j, -s) for _,j,s in sorted((g, j, s) for g,(s,j) in zip(group, order))][:k])
    return torch.tensor([[s for _,s in row] for row in found], dtype=torch.float64).float(), torch.tensor([[j for j,_ in row] for row in found])


def cases():
    "Rows that are hard, by name, and how many neighbours of each."
    dice = torch.Generator().manual_seed(0)
    def cloud(n, d): return torch.randn(n, d, generator=dice)
    def ulps(x, d): return torch.tensor(np.nextafter(x.repeat(60, 1).numpy(), np.inf*np.sign(cloud(60*len(x), d).numpy()), dtype=np.float32))
    far, axis = cloud(120, 16), torch.zeros(120, 16)
    far[7] *= 1e9
    axis[:,0], axis[:,1] = 1., torch.rand(120, generator=dice)*1e-4
    yield "usual", cloud(120, 16), 5
    yield "near ties of one ulp", ulps(cloud(2, 16), 16), 5
    yield "near ties around all signs", torch.cat([ulps(cloud(1, 33), 33), cloud(60, 33)]), 9
    yield "tight in angle", cloud(120, 64)*1e-3 + 5, 12
    yield "tighter than float32 tells", cloud(120, 64)*1e-5 + 5, 12
    yield "on a thin arc", axis, 7
    yield "one far out", far, 7
    yield "one so far out that the others are one point", torch.cat([cloud(100, 4), torch.full((1, 4), 1e12)]), 5
    yield "huge", cloud(120, 16)*1e30, 7
    yield "nearly the largest", torch.cat([cloud(60, 4).sign()*8e37, cloud(60, 4)*1e37]), 7
    yield "tiny", cloud(120, 16)*1e-30, 7
    yield "denormal", (cloud(120, 16)*30).round()*2.**-149, 7
    yield "all lengths", cloud(120, 16)*10**torch.linspace(-35, 35, 120)[:,None], 7
    yield "same directions, other lengths", cloud(6, 16).repeat(20, 1)*torch.rand(120, 1, generator=dice), 9
    yield "zeros", torch.zeros(70, 5), 9
    yield "some zeros", torch.cat([cloud(60, 5), torch.zeros(30, 5), -cloud(30, 5)]), 9
    yield "all alike", torch.full((70, 5), .1), 9
    yield "few distinct", cloud(4, 16)[torch.randint(4, (120,), generator=dice)], 12
    yield "opposite pairs", torch.cat([cloud(60, 16)]*1 + [-cloud(60, 16)]), 9
    yield "a line", (cloud(120, 1)*8).round(), 5
    yield "a fine line", cloud(120, 1) + 1e4, 5
    yield "long", cloud(60, 4096) + .5, 5
    yield "all others", cloud(90, 16), 89
    yield "two", cloud(2, 3), 1
    yield "half", cloud(120, 16).half(), 9
    yield "bfloat16", cloud(120, 16).bfloat16(), 9
    yield "pixels", torch.randint(256, (120, 48), generator=dice).float(), 9


@pytest.mark.parametrize("name, x, k", [pytest.param(*case, id=case[0]) for case in cases()])
@pytest.mark.parametrize("spherical", (True, False), ids=("directions", "points"))
def test_definition(name, x, k, spherical):
    "The same indices and the same bits as the definition, whatever the engine and the block; also when rows are asked as queries."
    s, i = slow(x, k, spherical)
    asked = x[:9].flip(0)
    s_asked, i_asked = slow(x, k, spherical, asked)
    for engine in ROUGH:
        if engine == "bf16" and not spherical: continue
        for block in (256, 7):
            t, j = knn(x, k, spherical=spherical, engine=engine, block=block)
            assert j.equal(i), (engine, block)
            assert t.equal(s), (engine, block, (t - s).abs().max())
        t, j = knn(x, k, asked, spherical, engine=engine)
        assert t.equal(s_asked) and j.equal(i_asked), engine


@pytest.mark.parametrize("engine", ROUGH)
@pytest.mark.parametrize("value", (float("nan"), float("inf"), -float("inf"), 1e300))
def test_broken(engine, value):
    "What is not finite in float32 is an error, in the features and in the queries."
    x = torch.ones(5, 2, dtype=torch.float64)
    x[3,1] = value
    with pytest.raises(ValueError, match="features: 1 of 5 rows"): knn(x, 2, engine=engine)
    with pytest.raises(ValueError, match="queries: 1 of 5 rows"): knn(torch.ones(5, 2), 2, x.float(), engine=engine)


def test_largest():
    "Directions know no length. Points, of which not even the spread fits float32, are refused."
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    for engine in ROUGH: assert knn(x.sign()*3e38, 5, engine=engine)[1].equal(knn(x.sign(), 5)[1])
    with pytest.raises(ValueError, match="features: as large as 3e\\+38"): knn(x.sign()*3e38, 5, spherical=False)
