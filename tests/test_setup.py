"""What a newcomer gets: bounds, versions, licence, commands, README."""
import re
import subprocess
import tomllib
from configparser import ConfigParser
from importlib.metadata import version
import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
import clusterlab
import readme
from conftest import ROOT

INDEX = ROOT/"nbs"/"index.ipynb"
config = ConfigParser(delimiters="=")
config.read(ROOT/"settings.ini", encoding="utf-8")
SETTINGS = config["DEFAULT"]
ASKED = [Requirement(text) for key in ("requirements", "dev_requirements") for text in SETTINGS[key].split()]

# Bounds that were found to work together. Without those of fastcore, execnb and ghapi nbdev installs and every command of it dies.
PINS = {"torch": ">=2.14,<2.15", "torchvision": ">=0.29,<0.30", "nbdev": ">=2.4.14,<3", "fastcore": ">=1.14,<2", "execnb": ">=0.1.18,<0.2",
        "ghapi": ">=1.0.16,<2", "faiss-gpu": ">=1.15,<2", "faiss-cpu": ">=1.15,<2"}


def tracked():
    "Files that git knows, and new ones that it does not ignore."
    said = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if said.returncode: pytest.skip("not a git checkout")
    return [ROOT/line for line in said.stdout.splitlines() if (ROOT/line).is_file()]


@pytest.mark.parametrize("name", PINS)
def test_pins(name):
    found = [r for r in ASKED if r.name == name]
    assert len(found) == 1, f"{name} stands {len(found)} times in settings.ini"
    assert found[0].specifier == SpecifierSet(PINS[name])


@pytest.mark.parametrize("name", "jupyterlab papermill ipykernel matplotlib seaborn scikit-learn pytest nbconvert timm openTSNE safetensors jaxtyping beartype".split())
def test_bounded(name):
    "What the environment must hold is there, from a lowest version up to a highest."
    found = [r for r in ASKED if r.name == name]
    assert len(found) == 1, f"{name} stands {len(found)} times in settings.ini"
    assert {s.operator for s in found[0].specifier} == {">=", "<"}


def test_one_faiss():
    "Both live in one folder: exactly one for every machine."
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64")):
        place = default_environment() | {"sys_platform": system, "platform_machine": machine}
        chosen = [r.name for r in ASKED if r.name.startswith("faiss") and r.marker.evaluate(place)]
        assert chosen == (["faiss-gpu"] if (system, machine) == ("linux", "x86_64") else ["faiss-cpu"]), (system, machine)


@pytest.mark.parametrize("asked", [r for r in ASKED if not r.marker or r.marker.evaluate()], ids=lambda r: r.name)
def test_installed(asked):
    "The environment at hand is the one that settings.ini asks for."
    assert asked.specifier.contains(version(asked.name), prereleases=True), f"{asked.name} {version(asked.name)} is installed, asked for is {asked.specifier}"


def test_environment():
    "conda brings Python and pip, everything else stands in settings.ini; what stands in both agrees."
    listed = yaml.safe_load((ROOT/"environment.yml").read_text())["dependencies"]
    plain = [entry for entry in listed if isinstance(entry, str)]
    by_pip = [line for entry in listed if isinstance(entry, dict) for line in entry["pip"]]
    assert f"python>={SETTINGS['min_python']}" in plain and "pip" in plain
    assert "-e .[dev]" in by_pip
    asked = {r.name: r.specifier for r in ASKED}
    for text in [t for t in plain if t != "pip" and not t.startswith("python>=")] + [t for t in by_pip if not t.startswith("-e")]:
        pin = Requirement(text)
        assert asked.get(pin.name) == pin.specifier, f"environment.yml says {text}, settings.ini {pin.name}{asked.get(pin.name)}"


def test_nbdev_settings():
    "Without these nbdev_clean deletes papermill's tag, and papermill then runs its defaults in silence."
    assert "tags" in SETTINGS["allowed_cell_metadata_keys"].split()
    assert "papermill" in SETTINGS["allowed_metadata_keys"].split()
    assert SETTINGS["recursive"] == "True"
    assert {"notest", "slow", "gpu"} <= set(SETTINGS["tst_flags"].split())


def test_version():
    "One version everywhere."
    cited = yaml.safe_load((ROOT/"CITATION.cff").read_text())["version"]
    assert SETTINGS["version"] == clusterlab.__version__ == version("clusterlab") == cited


def test_license():
    text = (ROOT/"LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert SETTINGS["license"] == "apache2"
    assert yaml.safe_load((ROOT/"CITATION.cff").read_text())["license"] == "Apache-2.0"


def test_citation():
    "The five documents and the baselines that are trained here; the one with a page under the title of that page."
    cited = {r["abbreviation"]: r for r in yaml.safe_load((ROOT/"CITATION.cff").read_text())["references"]}
    assert set(cited) == {"PIPCDR", "ConNR", "SNSCC", "UNIC", "UCCC", "BYOL", "ProPos"}
    assert all(r["title"] and r["authors"] for r in cited.values())
    page = tomllib.loads((ROOT/"experiments"/"pipcdr.toml").read_text())
    assert (cited["PIPCDR"]["title"], cited["PIPCDR"]["year"]) == (page["title"], page["year"])
    assert [f"{a['given-names']} {a['family-names']}" for a in cited["PIPCDR"]["authors"]] == page["authors"]


def test_ci():
    "CI runs what everybody runs."
    script = ROOT/".ci"/"run"
    assert script.stat().st_mode & 0o111, "not executable"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert re.search(r"^(exec )?make test\b", script.read_text(), re.M)
    steps = yaml.safe_load((ROOT/".github"/"workflows"/"ci.yml").read_text())["jobs"]["test"]["steps"]
    assert [s["run"] for s in steps if "run" in s] == [".ci/run"]


def plan(*words):
    "What make would do, environment aside."
    said = subprocess.run(["make", "-n", "-B", "-o", "ready", "READY=ready", *words], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    return [line.lstrip("@") for line in said.stdout.splitlines()]


def test_make_reproduce():
    "The committed records are touched only where something is missing; FRESH stays in a folder of its own, and deletes nothing."
    usual, fresh = plan("reproduce"), plan("reproduce", "FRESH=1")
    assert any("clusterlab\" reproduce all --budget laptop --jobs 2" in line for line in usual)
    assert not any("fresh" in line for line in usual)
    assert any(line.endswith("--runs_root fresh/runs --out fresh") for line in fresh)
    assert not any("rm " in line for line in fresh), "the same command goes on"


def test_make_wheels():
    "Every package that is fetched has its bounds in settings.ini; none is large."
    words = " ".join(plan("wheels"))
    names = [name for some in re.findall(r"bounds '?([\w|]+)'?\)", words) for name in some.split("|")]
    assert len(names) == 6 and {*names} <= {r.name for r in ASKED} and not {*names} & {"torch", "torchvision", "faiss-gpu", "timm"}


def test_make_help():
    "Every target that a person types is told."
    said = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True).stdout
    for name in "setup reproduce report lab wheels readme test".split(): assert f"make {name}" in said


@pytest.mark.parametrize("words, told", [(("PYTHON=/bin/false", "PATH=/nowhere"), "Python 3.11 or newer is needed"), (("SPACE=999999",), "999999 GB of free disk")])
def test_make_refuses(tmp_path, words, told):
    "What is missing is said in words, before anything is installed."
    said = subprocess.run(["/usr/bin/env", "make", "-s", "setup", f"VENV={tmp_path}/new", *words], cwd=ROOT, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"} if "PYTHON" in words[0] else None)
    assert said.returncode != 0
    assert told in said.stderr
    assert not (tmp_path/"new"/"bin").exists()


def test_readme():
    "README.md is what `make readme` writes."
    if not INDEX.exists(): pytest.skip("nbs/index.ipynb is not written yet")
    assert (ROOT/"README.md").read_text(encoding="utf-8") == readme.render(INDEX), "run make readme"


def test_readme_links():
    "Every file that the README points to is there."
    targets = re.findall(r'(?:\]\(|src=")([^)"\s#]+)', (ROOT/"README.md").read_text(encoding="utf-8"))
    if not targets: pytest.skip("README.md is not written yet")
    assert not [t for t in targets if not re.match(r"[a-z]+:", t) and not (ROOT/t).exists()]


def test_readme_rendering(tmp_path):
    "Hidden cells and directives go, output stays, links start from the top."
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
    cells = [new_markdown_cell("# A\n[b](../tables/b.md) [c](01_c.ipynb) [d](https://e.org/f) [g](#h)"), new_code_cell("#| hide\nsecret = 1"),
             new_code_cell("#| eval: false\nprint(2)", outputs=[new_output("stream", text="2\n")])]
    nbformat.write(new_notebook(cells=cells), tmp_path/"index.ipynb")
    text = readme.render(tmp_path/"index.ipynb")
    assert "[b](tables/b.md) [c](nbs/01_c.ipynb) [d](https://e.org/f) [g](#h)" in text
    assert "secret" not in text and "#|" not in text
    assert "print(2)" in text and "    2\n" in text


def test_small_files():
    "Nothing heavy is committed."
    big = {p.relative_to(ROOT).as_posix(): p.stat().st_size for p in tracked() if p.stat().st_size > 1_000_000}
    assert not big


def test_small_records():
    "A record is committed, so it stays small."
    big = {p.relative_to(ROOT).as_posix(): p.stat().st_size for p in (ROOT/"runs").glob("*/*/*.json") if p.stat().st_size > 30_000}
    assert not big


def test_nothing_stray():
    "No weights, no images of data sets, no executed copies, no caches."
    kinds = (".safetensors", ".pt", ".pth", ".pkl", ".npy", ".npz", ".jpeg", ".jpg", ".pyc")
    assert not [p.relative_to(ROOT).as_posix() for p in tracked() if p.suffix.lower() in kinds]
    assert not [p for p in tracked() if p.suffix == ".ipynb" and p.relative_to(ROOT).parts[0] != "nbs"]
