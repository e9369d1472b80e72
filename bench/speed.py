"""Write `tables/speed.md` from `bench/results`.

    python bench/speed.py
"""
import json
from pathlib import Path
from statistics import median
from rivals import RESULTS

HEAD = """# Speed

Measured by `make bench`, written by `bench/speed.py` from `bench/results`; what each goal means stands at the head of its script in `bench/`.

- *times as fast*: CPU seconds, or seconds on the clock where the row says so, of the other over ours, ratio of the medians; in brackets the quartiles within a round, in which all take turns in one process. Below 1 we are slower.
- *must* and *stretch* are goals that were set before measuring. A limit in seconds is on the clock, and depends on the machine.
- Made-up features and random pixels serve for speed alone.

"""
UNTOLD = "**no reason told**" # A test looks for it
COLUMNS = ["goal", "what", "ours", "seconds", "against", "times as fast", "must", "stretch", "verdict"]


def verdict(value, must, stretch):
    "Met, not met, or nothing where no goal was set."
    if must is None: return ""
    return "stretch met" if stretch is not None and value >= stretch else "met" if value >= must else "**not met**"


def compared(told):
    "A line for each rival, or one where there is only a limit."
    ours = told["rows"][told["ours"]]["seconds"][1]
    begin = [told["goal"], f"{told['what']}; {told['data']}", told["ours"], f"{ours:.3g}"]
    for name,row in told["rows"].items():
        if name == told["ours"]: continue
        low, _, high = row["within"]
        must, stretch, most = told.get("must", {}).get(name), told.get("stretch", {}).get(name), told.get("most", {}).get(name)
        said = verdict(row["ratio"], must, stretch) if most is None else "met" if row["ratio"] <= most else "**not met**"
        yield [*begin, name, f"{row['ratio']:.3g} ({low:.3g} to {high:.3g})", "" if must is most is None else f"{must:g}" if most is None else f"at most {most:g}", "" if stretch is None else f"{stretch:g}", said]
    if "limit" in told: yield [*begin, "a limit", "", f"{told['limit']:g} s", "", "met" if ours <= told["limit"] else "**not met**"]


def slower(told):
    "A line for each rival that is quicker than we are, with the reason that the script told; what is ours as well, in another way or under another load, is no rival."
    own, reasons = {*told.get("own", ()), *told.get("most", ()), told["ours"]}, told.get("reasons", {})
    return [f"- {told['what']}: {name} takes {row['ratio']:.3g} times as long: {reasons.get(name, UNTOLD)}." for name,row in told["rows"].items() if name not in own and row["ratio"] < 1]


def checks(told):
    "What was checked beside the time, as a sentence."
    return [f"- {told['what']}: {name}: " + (", ".join(f"{key} {value:,}" if not isinstance(value, bool) else f"{key} {'yes' if value else 'no'}" for key,value in found.items()) if isinstance(found, dict) else f"{found:,}")
            for name,found in told["checks"].items()]


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


def page(folder=RESULTS):
    "The whole page."
    everything = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    results = [told for told in everything if "levels" not in told]
    lines = ["| " + " | ".join(COLUMNS) + " |", "| " + " | ".join("---" for _ in COLUMNS) + " |"]
    lines += ["| " + " | ".join(cells) + " |" for told in results for cells in compared(told)]
    devices = sorted({f"{told['receipt']['device']}, torch {told['receipt']['versions']['torch']}" for told in results})
    growth = ["| what | sizes | CPU seconds | exponent |", "| --- | --- | --- | --- |", *(line for told in results for line in grown(told))]
    behind = [line for told in results for line in slower(told)]
    parts = [HEAD + "\n".join(lines), *(["## Where we are slower\n\n" + "\n".join(behind)] if behind else []), "## How cost grows\n\nExponent 1: twice the size takes twice as long; 2: four times.\n\n" + "\n".join(growth),
             "## Checked beside the time\n\n" + "\n".join(line for told in results for line in checks(told)), f"Device: {'; '.join(devices)}."]
    return "\n\n".join(parts) + "\n" + races([told for told in everything if "levels" in told])


def main():
    path = RESULTS.parents[1]/"tables"/"speed.md"
    path.write_text(page())
    print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__": main()
