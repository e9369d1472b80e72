"""Write `tables/speed.md` from `bench/results`.

    python bench/speed.py
"""
import json
from pathlib import Path
from statistics import median
from rivals import RESULTS

HEAD = """# Speed

Measured by `make bench` on a CPU and by `make bench-gpu` on a GPU, written by `bench/speed.py` from `bench/results`, with a section for each machine; what each goal means stands at the head of its script in `bench/`.

- *times as fast*: CPU seconds, or seconds on the clock where the row says so, of the other over ours, ratio of the medians; in brackets the quartiles within a round, in which all take turns in one process. Below 1 we are slower. A goal in per cent is a share of ours.
- *must* and *stretch* are goals that were set before measuring. A limit in seconds is on the clock, and depends on the machine.
- *within the spread*: the median meets the goal, the quartile on the other side of it does not. Where a goal names an accuracy or an exact answer as well, it is not met without it, however quick.
- *of the roofline*, where it is known: the least time that this machine could take, by the rates of a product in bf16 and of a copy in the same run, over the time of ours.
- Made-up features and random pixels serve for speed alone.
"""
UNTOLD = "**no reason told**" # A test looks for it
COLUMNS = ["goal", "what", "ours", "seconds", "of the roofline", "against", "times as fast", "must", "stretch", "verdict"]
ROOF = COLUMNS.index("of the roofline")


def verdict(value, must, stretch=None, within=None, most=False, lacks=""):
    "Stretch met, met, met by the median only, not met, or nothing where no goal was set; most: goals are upper bounds; within: quartiles; lacks: what else the goal asks, and is not so."
    if must is None: return ""
    worst = value if within is None else within[2 if most else 0]
    def reached(goal, x): return x <= goal if most else x >= goal
    if not reached(must, value): return "**not met**"
    if lacks: return f"**not met**: {lacks}"
    if stretch is not None and reached(stretch, value) and reached(stretch, worst): return "stretch met"
    return "met" if reached(must, worst) else "within the spread"


def lacking(told):
    "What the goals of a result ask beside speed and is not so, as a text."
    found = {name: told["checks"][name] for name in told.get("needs", ())}
    wrong = {name: [key for key,fine in value.items() if not fine] for name,value in found.items() if isinstance(value, dict)}
    return "; ".join([f"{', '.join(keys)} not {name}" for name,keys in wrong.items() if keys] + [f"not so: {name}" for name,value in found.items() if value is False])


def goals(must, stretch, shown, most=False): return ["" if must is None else ("at most " if most else "") + shown(must), "" if stretch is None else shown(stretch)] # Two cells


def plain(x): return f"{x:.4g}"
def percent(x): return f"{100*x:.3g} %"
def clock(x): return f"{x:g} s" if x >= 1 else f"{x:.3g} s"


def compared(told):
    "A line for each rival, each share, and the limit."
    ours, lacks, roof = told["rows"][told["ours"]]["seconds"], lacking(told), told.get("roofline", {})
    what, mine = [f"{told['what']}; {told['data']}", told["ours"], f"{ours[1]:.3g}"], f"{roof[told['ours']]:.3g}" if told["ours"] in roof else ""
    for name,row in told["rows"].items():
        if name == told["ours"]: continue
        low, _, high = row["within"]
        must, stretch, most = told.get("must", {}).get(name), told.get("stretch", {}).get(name), told.get("most", {}).get(name)
        goal, bound = (must, False) if most is None else (most, True)
        yield [told["goal"], *what, mine + (f", the other {roof[name]:.3g}" if name in roof else ""), name, f"{row['ratio']:.{4 if bound else 3}g} ({low:.3g} to {high:.3g})", *goals(goal, stretch, plain, bound), verdict(row["ratio"], goal, stretch, row["within"], bound, lacks)]
    for name,part in told.get("shares", {}).items():
        yield [part["goal"], *what, mine, f"share {name}", percent(part["value"]), *goals(part["must"], part["stretch"], percent, part["most"]), verdict(part["value"], part["must"], part["stretch"], None, part["most"], lacks)]
    if "limit" in told: yield [told["goal"], *what, mine, "a limit", "", *goals(told["limit"], told.get("limit_stretch"), clock), verdict(ours[1], told["limit"], told.get("limit_stretch"), ours, True, lacks)]


def slower(told):
    "A line for each rival that is quicker than we are, with the reason that the script told; what is ours as well, in another way or under another load, is no rival."
    own, reasons = {*told.get("own", ()), *told.get("most", ()), told["ours"]}, told.get("reasons", {})
    return [f"- {told['what']}: {name} takes {row['ratio']:.3g} times as long: {reasons.get(name, UNTOLD)}." for name,row in told["rows"].items() if name not in own and row["ratio"] < 1]


def said(value): return ("yes" if value else "no") if isinstance(value, bool) else f"{value:,}"


def checks(told):
    "What was checked beside the time, as a sentence."
    return [f"- {told['what']}: {name}: " + (", ".join(f"{key} {said(value)}" for key,value in found.items()) if isinstance(found, dict) else said(found)) for name,found in told["checks"].items()]


def grown(told):
    "How the cost of something grows, a line each."
    return [f"| {name} | {' '.join(f'{x:,}' for x in found['x'])} | {' '.join(f'{t:.3g}' for t in found['seconds'])} | {found['exponent']:g} |" for name,found in told.get("growth", {}).items()]


def spread(values, shown):
    "The middle of some values, and in brackets the lowest and the highest."
    return shown(median(values)) + (f" ({shown(min(values))} to {shown(max(values))})" if len(values) > 1 else "")


def raced(told):
    "A line for each level of a speedrun that has a run: all its seeds, those that missed it too."
    for level in told["levels"].values():
        done, goal = list(level["runs"].values()), level.get("must", level.get("stretch"))
        if not done: continue
        reached, crossed, least = [run for run in done if run["reached"]], [run["first"]["seconds"]/60 for run in done if run["first"]], len(told["made"]["seeds"])
        ended = [run for run in done if run["acc"] is not None] # the others broke, and have missed the level
        minutes, epochs = [run["seconds"]/60 for run in ended], sorted({run["epochs"] for run in done})
        fine = len(reached) == len(done) and max(minutes) <= (goal or 0)
        said = "" if goal is None else f"open, {len(done)} of {least} seeds" if len(done) < least else ("stretch met" if "stretch" in level else "met") if fine else "**not met**"
        yield [told["made"]["what"], f"{level['acc']:g}", " or ".join(map(str, epochs)), spread([run["acc"] for run in ended], "{:.4f}".format) if ended else "broke", f"{len(reached)} of {len(done)}", spread(minutes, "{:.2f}".format) if ended else "never",
               f"{spread(crossed, '{:.2f}'.format)}, {len(crossed)} of {len(done)}" if crossed else "never", "" if goal is None else f"{goal:g} min", said]


RACE = """
## Time to an accuracy

G19, by `clusterlab bench speedrun`. A run has reached a level if its last epoch is at or above it; the first crossing on the way is told beside it and is no result, for only labels can see it. Minutes on the clock: the median of all seeds that have run, in brackets the
fastest and the slowest. The clock runs from just before the process is started, with imports, reading and the warm-up, to the look at all images after the last epoch.
The verdict asks the slowest seed, while the table shows the median. A run that broke has missed its level, and has no minutes.

| recipe | ACC | epochs | ACC of the last epoch | reached | minutes to the last epoch | first crossing, minutes | goal | verdict |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def races(results):
    "The section about speedruns, or nothing where there is none; a rehearsal is none."
    shown = [told for told in results if told["made"]["budget"] != "smoke"]
    lines = ["| " + " | ".join(cells) + " |" for told in shown for cells in raced(told)]
    where = sorted({f"{run['receipt']['device']}, torch {run['receipt']['versions']['torch']}" for told in shown for level in told["levels"].values() for run in level["runs"].values()})
    return RACE + "\n".join(lines) + f"\n\nDevice: {'; '.join(where)}.\n" if lines else ""


def table(told):
    "The lines of all results of a machine; without the column of the roofline where nobody knows it."
    cells = [COLUMNS, ["---"]*len(COLUMNS), *(line for one in told for line in compared(one))]
    known = any(line[ROOF] for line in cells[2:])
    return "\n".join("| " + " | ".join(x for n,x in enumerate(line) if known or n != ROOF) + " |" for line in cells)


def machine(receipt):
    "What a result was measured on."
    return f"{receipt['device']} ({receipt['processor']}), torch {receipt['versions']['torch']}"


def section(name, told):
    "All that was measured on one machine."
    growth, behind, beside = ([line for one in told for line in lines(one)] for lines in (grown, slower, checks))
    parts = [f"## {name}", table(told), *(["### Where we are slower", "\n".join(behind)] if behind else []),
             *(["### How cost grows", "Exponent 1: twice the size takes twice as long; 2: four times.", "\n".join(["| what | sizes | CPU seconds | exponent |", "| --- | --- | --- | --- |", *growth])] if growth else []),
             *(["### Checked beside the time", "\n".join(beside)] if beside else [])]
    return "\n\n".join(parts) + "\n"


def page(folder=RESULTS):
    "The whole page."
    everything = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    results = [told for told in everything if "levels" not in told]
    places = {machine(told["receipt"]): [one for one in results if machine(one["receipt"]) == machine(told["receipt"])] for told in results}
    return "\n".join([HEAD, *(section(name, told) for name,told in sorted(places.items()))]) + races([told for told in everything if "levels" in told])


def main():
    path = RESULTS.parents[1]/"tables"/"speed.md"
    path.write_text(page())
    print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__": main()
