"""What the documents say, and the verdicts: nothing is executed, the printed numbers agree, the same bytes from the same records."""
import re
import shutil
import time
from itertools import product
from statistics import pstdev
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from clusterlab import artefacts, claims, reproduce, runs, verdicts
from conftest import ROOT

COUNTS = {"connr": 14, "unic": 54, "uccc": 31, "pipcdr": 39, "snscc": 33}
EVERY = [claim for document in COUNTS for claim in verdicts.claims_of(document)]
TABLES = [claim for claim in EVERY if "in_document" in claim]
name = lambda claim: f"{claim['document']}-{claim['artefact']}-{claim['number']}"


# The sentences

def test_counts():
    "All of them, under the right documents."
    assert sum(COUNTS.values()) == len(EVERY) == 171 and set(verdicts.documents()) == set(COUNTS)
    assert {d: sum(c["document"] == d for c in EVERY) for d in COUNTS} == COUNTS


def test_in_document_is_for_tables():
    assert all(("in_document" in c) == c["artefact"].startswith("table_") for c in EVERY)
    assert len(TABLES) == 93 and sum(not c["in_document"] for c in TABLES) == 16


@pytest.mark.parametrize("claim", TABLES, ids=name)
def test_printed_numbers_agree(claim):
    "The reader finds in the printed numbers what the entry states."
    answer = claims.evaluate(claim["expr"], claims.Table(reproduce.reported(claim["document"], claim["artefact"])).names, claim["where"])
    assert answer.holds is claim["in_document"]
    assert answer.margin is None or (answer.margin >= 0 if answer.holds else answer.margin <= 0)


# One asks for MoCo on ImageNet-10, which is not printed; the others for the number of classes.
@pytest.mark.parametrize("claim", [c for c in TABLES if "ours" in c and "classes" not in claims.used(c["ours"]) and name(c) != "pipcdr-table_2-4"], ids=name)
def test_ours_is_spelt_right(claim):
    "What takes the place of an expression names rows that are printed."
    rows = reproduce.reported(claim["document"], claim["artefact"])
    assert claims.evaluate(claim["ours"], claims.Table(rows).names, claim["where"]).holds in (True, False)


def test_damaged_claims(tmp_path):
    "A misspelt key, a wrong type, a claim that would run something: file, artefact, number and field are named."
    text = (ROOT/"experiments"/"claims"/"connr.toml").read_text(encoding="utf-8")
    damages = {"exprr = ": "connr.toml, table_3, claim 1: field 'expr' is missing", "expr = 3 #": "field 'expr' is 3, but must be of type str", "expr = 'open(1) > 0' #": "field 'expr': the name 'open' is not allowed",
               "expr = 'v(' #": "field 'expr': 'v(' is no expression", "extra = 1\nexpr = ": "field 'extra' is not one of", "expr = '' #": "field 'expr' is empty"}
    for damage,told in damages.items():
        (tmp_path/"connr.toml").write_text(text.replace("expr = ", damage, 1), encoding="utf-8")
        with pytest.raises(ValueError) as why: verdicts.claims_of("connr", tmp_path/"connr.toml")
        assert told in str(why.value) and "connr.toml, table_3, claim 1" in str(why.value)
    for damage,told in {"[[tabel_3]]": "field 'tabel_3'", "[table_3]": "must be written [[table_3]]"}.items():
        (tmp_path/"connr.toml").write_text('document = "connr"\n' + damage + '\nclaim = "a"\n', encoding="utf-8")
        with pytest.raises(ValueError, match="connr.toml") as why: verdicts.claims_of("connr", tmp_path/"connr.toml")
        assert told in str(why.value)
    (tmp_path/"connr.toml").write_text("document = ", encoding="utf-8")
    with pytest.raises(ValueError, match="connr.toml"): verdicts.claims_of("connr", tmp_path/"connr.toml")


@pytest.mark.parametrize("change, told", [(lambda t: t.replace(",78.6,", ",78,6,", 1), "line 2"), (lambda t: t.replace(",78.6,", ",7b.6,", 1), "value is '7b.6'"), (lambda t: t.replace("value", "vlaue", 1), "lacks the column 'value'"),
                                          (lambda t: t.replace("91.4", "90.4", 1), "differs from its checksum"), (lambda t: "\n".join(t.splitlines()[:3]), "differs from its checksum"), (lambda t: "", "differs from its checksum")])
def test_damaged_print(tmp_path, monkeypatch, change, told):
    "A printed CSV that was changed by accident does not pass."
    folder = tmp_path/"experiments"
    shutil.copytree(ROOT/"experiments", folder)
    path = folder/"reported"/"connr"/"table_4.csv"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    shutil.copy(ROOT/"settings.ini", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as why: verdicts.verdicts("connr", [])
    assert told in str(why.value) and "connr" in str(why.value) and "table_4" in str(why.value), why.value


# Nothing is executed

ATTACKS = ["__import__('os').system('touch hacked')", "open('hacked', 'w')", "().__class__.__base__.__subclasses__()", "rows.__class__", "'{0.__class__}'.format(rows)", "f'{rows!r}'", "(x := 5) > 3", "eval('1')",
    "exec('1')", "compile('1', '', 'eval')", "globals()", "getattr(rows, 'append')", "[i for i in rows].append(1)", "lambda: (yield)", "{'a': 1}['a']", "[*rows]", "rows if rows else 1", "10 ** 10 ** 10", "1 << 99999",
    "'a' % 1", "all.__self__", "best.__globals__", "v.__func__", "'x'.join(rows)", "b'x'", "1j > 0", "None", "True", "...", "rows[0].clear()", "import os", "x = 1", "del rows", "print(1)", "input()", "breakpoint()", "type(rows)",
    "[x async for x in rows]", "(lambda x=open: x)()", "(lambda *a: a)(1)", "__builtins__", "vars()", "'a'.startswith", "startswith('a')", "-'a'.split", "rows @ rows", "~1", "1 is 1", "\0", "(" * 500 + ")" * 500]

@pytest.mark.parametrize("text", ATTACKS)
def test_attacks(text, tmp_path, monkeypatch):
    "Refused before anything of it is read, with the file and the expression in the message."
    monkeypatch.chdir(tmp_path)
    touched = []
    trap = {"rows": [{"value": "1"}], "v": lambda *a, **k: touched.append(a), "best": lambda *a: touched.append(a)}
    with pytest.raises(ValueError) as why: claims.evaluate(text, trap, "bad.toml, table_9, claim 3")
    assert str(why.value).startswith("bad.toml, table_9, claim 3: ")
    assert not touched and not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["all(1 for a in range(10000) for b in range(10000) for c in range(10000))", "(lambda f: f(f))(lambda f: f(f))", "range(10000000)", "'a' * 1000000000", "+".join(["1"]*900),
    "(lambda a: (lambda b: (lambda c: c * c)(b * b))(a * a))(99999999)", "(lambda a: (lambda b: (lambda c: c + c)(b + b))(a + a))(sorted(range(9999)))"])
def test_greedy(text):
    "What would take all time or memory ends soon, and with a message."
    started = time.monotonic()
    with pytest.raises(ValueError, match="bad.toml"): claims.evaluate(f"{text} > 0" if len(text) < 1500 else text + " " * 600, {}, "bad.toml")
    assert time.monotonic() - started < 30


# Margins

@pytest.mark.parametrize("text, holds, margin", [("3 > 1", True, 2), ("1 > 3", False, -2), ("1 < 3 < 4", True, 1), ("1 < 3 < 2", False, -1), ("2 >= 2", True, 0), ("2 == 2", True, 0), ("2 == 5", False, -3), ("2 != 5", True, 3),
    ("all(x > 0 for x in (5, 2, 9))", True, 2), ("all(x > 0 for x in (5, -2, -9))", False, -9), ("any(x > 0 for x in (5, -2))", True, 5), ("any(x > 0 for x in (-5, -2))", False, -2), ("not 3 > 1", False, -2),
    ("3 > 1 and 9 > 1", True, 2), ("3 > 1 or 9 > 1", True, 8), ("'a' == 'a'", True, None), ("'a' == 'a' and 3 > 1", True, 2), ("'a' == 'b' and 3 > 1", False, None), ("(3 > 1) == (1 > 2)", False, -1),
    ("sum(x > 2 for x in (1, 3, 5)) <= 1", False, -1), ("max(3, 1) - min([2, 4]) > 0", True, 1), ("0.1 + 0.2 == 0.3", True, 0), ("2 in (1, 2)", True, None), ("abs(-3) < 4", True, 1)])
def test_margins(text, holds, margin):
    answer = claims.evaluate(text, {})
    assert answer.holds is holds
    assert answer.margin == (None if margin is None else pytest.approx(margin))


def row(method, value, metric="ACC", dataset="X", **more): return {"method": method, "dataset": dataset, "metric": metric, "value": str(value), "unit": "fraction", **more}


def test_margin_of_the_best():
    "The best of a column leads by what it has more than the second."
    table = claims.Table([row("A", .9), row("B", .7), row("C", .8), row("C", .85, backbone="large")])
    assert claims.evaluate("best('X', 'ACC') == 'A'", table.names).margin == pytest.approx(.05)
    assert claims.evaluate("best('X', 'ACC') == 'B'", table.names).margin == pytest.approx(-.2)
    assert claims.evaluate("lead('A', 'X', 'ACC') > 0", table.names).margin == pytest.approx(.05)
    with pytest.raises(claims.NotRun, match="D"): claims.evaluate("best('X', 'ACC') == 'D'", table.names)
    with pytest.raises(claims.NotRun, match="B on X"): claims.evaluate("v('B', 'X', 'NMI') > 0", table.names)
    with pytest.raises(ValueError, match="2 cells, must be one"): claims.evaluate("v('C', 'X', 'ACC') > 0", table.names)


# Seeds

def seeds(**scores): return claims.Evidence({n: [row(m, values[n]) for m,values in scores.items() if n < len(values)] for n in range(max(map(len, scores.values())))}, claims.Table)
ABOVE = "v('A', 'X', 'ACC') > v('B', 'X', 'ACC')"

@pytest.mark.parametrize("a, b", [([.9, .8, .7], [.5, .6, .65]), ([.5, .6, .7], [.55, .55, .6]), ([.2, .9], [.5, .5]), ([.5, .6, .2, .7], [.4, .45, .5, .55]), ([.1, .1, .1], [.2, .2, .2])])
def test_bootstrap(a, b):
    "The share and the spread of all ordered samples, counted the slow way."
    gaps = [sum(a[i] - b[i] for i in sample)/len(a) for sample in product(range(len(a)), repeat=len(a))]
    share, found = sum(gap > 1e-12 for gap in gaps)/len(gaps), claims.verdict(seeds(A=a, B=b), ABOVE)
    assert found.share == pytest.approx(share) and found.sd == pytest.approx(pstdev(gaps)) and found.effect == pytest.approx(sum(a)/len(a) - sum(b)/len(b))
    assert found.word == (claims.HOLDS if share >= .9 else claims.FAILS if share <= .1 else claims.UNDECIDED)


def test_pairs_and_single_seeds():
    "Seeds are paired by number: an offset of every seed does not blur a difference. One seed has no spread and says so."
    paired = claims.verdict(seeds(A=[.1, .5, .9], B=[.05, .45, .85]), ABOVE)
    assert paired.word == claims.HOLDS and paired.sd == pytest.approx(0)
    single = claims.verdict(seeds(A=[.1, .5, .9], B=[.05]), ABOVE)
    assert (single.word, single.seeds, single.sd, single.why) == (claims.HOLDS, (0,), None, "one seed")
    assert claims.verdict(seeds(A=[.1], C=[.1]), ABOVE).word == claims.NOT_RUN
    apart = claims.Evidence({0: [row("A", 1)], 1: [row("B", 0)]}, claims.Table)
    assert (claims.verdict(apart, ABOVE).word, claims.verdict(apart, ABOVE).why) == (claims.NOT_RUN, "lacks a seed that all of these share")


def test_many_seeds():
    "All samples of five seeds; beyond, 256 of them, the same each time."
    drawn = claims.resamples(range(6))
    assert sum(drawn.values()) == 256 and drawn == claims.resamples([5, 4, 3, 2, 1, 0])
    assert {n: sum(claims.resamples(range(n)).values()) for n in range(1, 6)} == {1: 1, 2: 4, 3: 27, 4: 256, 5: 3125}


def test_nothing_from_nothing():
    "Of a line that is half run nobody says where its peak lies."
    line = [{"panel": "p", "series": "K", "x": n, "y": y, "value": k} for n,(k,y) in enumerate({5: .5, 10: .9}.items())]
    for planned,word in (({"K": [5, 10]}, claims.HOLDS), ({"K": [5, 10, 20]}, claims.NOT_RUN)):
        assert claims.verdict(claims.Evidence({0: line, 1: line}, claims.Figure, planned=planned), "argmax('K') == 10").word == word
    with pytest.raises(claims.NotRun): claims.evaluate("all(x > 0 for x in rows)", {"rows": []})


# The page

def test_stand_ins_say_so():
    "A verdict on digits never passes for one on the document's images, and a claim that needs these stays open."
    rows, needs = verdicts.all_rows(), {name(c) for c in EVERY if "needs" in c}
    digits = [row for row in rows if row["images"] == "digits"]
    assert all(row["stand_in"] == "yes" for row in digits)
    decided = {f"{row['document']}-{row['artefact']}-{row['number']}" for row in digits if row["verdict"] in (claims.HOLDS, claims.FAILS, claims.UNDECIDED)}
    assert not decided & needs


def on_digits(document, name):
    "Finished runs of budget laptop on digits, by seed."
    found = reproduce.matching(reproduce.page(document), list(runs.find_records(ROOT/"runs").values()), [name])
    return {run["seed"]: run for run in found if run["dataset"] == "digits" and run["budget"] == "laptop"}


def moved(a, b):
    "Images that two runs put into different clusters, after the best match of clusters."
    a, b = (np.unique(artefacts.decode_map(run)[:, 3], return_inverse=True)[1] for run in (a, b))
    table = np.zeros((a.max() + 1, b.max() + 1), dtype=int)
    np.add.at(table, (a, b), 1)
    return len(a) - table[linear_sum_assignment(table, maximize=True)].sum()


def test_ties():
    "What the pages say of runs that end in the same clusters is so, and so is what sets them apart from runs that are one and the same."
    full, cdr, small = (on_digits("pipcdr", name) for name in ("PIPCDR", "CDR", "sigma = 0.001"))
    if not (full and cdr and small): pytest.skip("no records of PIPCDR")
    assert [moved(full[seed], cdr[seed]) for seed in sorted(cdr)] == [moved(small[seed], cdr[seed]) for seed in sorted(cdr)] == [0, 1, 0] # of the 1,000 images that a record keeps
    assert all(full[seed]["record"]["history"]["loss"] != cdr[seed]["record"]["history"]["loss"] for seed in cdr)
    a, b = (on_digits("snscc", name) for name in ("gamma = 0.95", "gamma = 0.99"))
    assert a and all(a[seed]["record"]["history"]["loss"] == b[seed]["record"]["history"]["loss"] for seed in a), "Table VI of SNSCC can be asked after all"


def test_what_verdicts_are_worth():
    "A failure by nothing says what is equal; the counts are those that README.md tells; a seed that disagrees is seen."
    rows = verdicts.all_rows()
    assert all("no difference at all: " in row["reason"] for row in rows if row["verdict"] == claims.FAILS and row["effect"] == pytest.approx(0, abs=1e-12) and not row["sd"])
    head = verdicts.headline(rows)
    split = [row for row in head if verdicts.divided(row)]
    assert f"{len(split)} are not unanimous" in verdicts.summary(rows) and all(row["share"] not in (0, 1) or int(row["n"]) > 5 for row in split) # of six seeds and more not every sample is drawn
    assert sum(row["in_print"] == "no" for row in head) == sum(not claim["in_document"] for claim in TABLES)
    assert all(row["unit"] for row in rows if row["verdict"] in verdicts.DECIDED and row["effect"] is not None)
    assert verdicts.summary(rows) in (ROOT/"README.md").read_text(encoding="utf-8"), "execute nbs/index.ipynb and write README.md again"


def test_known_verdicts():
    "Verdicts that can be read off Table VII by eye, and an effect counted by hand."
    found = {(row["artefact"], row["number"]): row for row in verdicts.verdicts("pipcdr", list(runs.find_records(ROOT/"runs").values()))}
    if found["table_7", 2]["verdict"] == claims.NOT_RUN: pytest.skip("no records of Table VII")
    assert [found["table_7", n]["verdict"] for n in (2, 3)] == ["holds", "holds"]
    acc = {m: [r["record"]["scores"] for r in reproduce.matching(reproduce.page("pipcdr"), list(runs.find_records(ROOT/"runs").values()), [m]) if r["dataset"] == "digits" and r["budget"] == "laptop"] for m in ("CDR", "PIP", "BYOL")}
    mean = {(m, s): sum(r[s] for r in acc[m])/len(acc[m]) for m in acc for s in ("acc", "nmi", "ari")}
    assert found["table_7", 2]["effect"] == pytest.approx(min(mean["CDR", s] - max(mean["PIP", s], mean["BYOL", s]) for s in ("acc", "nmi", "ari")))


def test_same_bytes(tmp_path):
    "Twice the same page, in well under a minute, and every claim on it once."
    started = time.monotonic()
    one, two = ([path.read_bytes() for path in verdicts.write_claims(out=tmp_path/n)] for n in "ab")
    assert one == two and time.monotonic() - started < 120
    rows = artefacts.read_printed(tmp_path/"a"/"tables"/"claims.csv")
    assert len({(r["document"], r["artefact"], r["number"]) for r in rows}) == 171 and {r["verdict"] for r in rows} <= set(claims.WORDS_OF_VERDICT)
    text = one[0].decode()
    assert all(f"## {document}: " in text for document in COUNTS) and "/home/" not in text and not re.search(r"\b(nan|inf|None)\b", text)


def test_committed_page(tmp_path):
    "The page of the repository follows from its records."
    if not (ROOT/"tables"/"claims.md").exists(): pytest.skip("tables/claims.md is not written yet")
    for path in verdicts.write_claims(out=tmp_path): assert path.read_bytes() == (ROOT/"tables"/path.name).read_bytes(), "run clusterlab claims"


def test_lines():
    "What a terminal gets: a line for each claim, then the counts."
    lines = verdicts.claim_lines("connr")
    assert len(lines) == 15 and lines[-1].startswith("14 claims: ")
    assert any(line.startswith("the document contradicts itself") and "connr/table_4, 3" in line for line in lines)
    with pytest.raises(ValueError, match="did you mean 'connr'"): verdicts.claim_lines("conr")
