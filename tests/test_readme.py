"""A stranger's walk: clone the repository, type what the README says."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
import pytest
import torch
from conftest import ROOT, need

README = (ROOT/"README.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for block in re.findall(r"^```sh\n(.*?)^```", README, re.M | re.S)
            for line in re.sub(r"\\\n\s*", "", block).splitlines() if line.strip() and not line.lstrip().startswith("#")]
BEFORE = r"git clone |cd \w+$" # What the clone below has done already
LEFT = {r"make test\b|\.ci/run": "this is the test that walks", r"make lab\b|jupyter lab": "it waits for a person", r"conda ": "conda may be absent",
        r".*\bdata get\b": "it downloads", r".*\bFRESH=": "it trains for minutes; test_reproduce does so at the smallest budget"}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    "The last commit, as everybody gets it, with the environment that is here already."
    folder = tmp_path_factory.mktemp("walk")/"clusterlab"
    said = subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(folder)], capture_output=True, text=True)
    if said.returncode: pytest.skip(f"no git checkout: {said.stderr.strip()}")
    (folder/".venv").symlink_to(sys.prefix)
    (folder.parent/"ready").touch()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def walk(clone, line):
    "One line of the README in the clone; READY tells make that the environment is set up."
    env = os.environ | {"PYTHONPATH": str(clone), "READY": str(clone.parent/"ready"), "PATH": f"{clone/'.venv'/'bin'}:{os.environ['PATH']}", "MPLBACKEND": "agg"}
    return subprocess.run(["bash", "-euo", "pipefail", "-c", line], cwd=clone, env=env, capture_output=True, text=True, timeout=400)


def test_readme_has_commands():
    if not README.strip(): pytest.skip("README.md is not written yet")
    assert any("make reproduce" in line for line in COMMANDS) and any("make test" in line for line in COMMANDS)


def leave(line):
    "Skip, and say why, what this machine or this test cannot do."
    for pattern,why in LEFT.items():
        if re.match(pattern, line): pytest.skip(why)
    if re.search(r"--budget (gpu|paper)|BUDGET=(gpu|paper)", line) and "dry" not in line and not torch.cuda.is_available(): pytest.skip("no GPU here")
    for name in re.findall(r"--dataset (cifar\S+|stl10|fashionmnist|imagenette96)|data verify (\S+)", line): need("".join(name))


@pytest.mark.parametrize("line", [line for line in COMMANDS if not re.match(BEFORE, line)] or [None])
def test_walk(clone, line):
    "In the order of the README; each line must succeed."
    if line is None: pytest.skip("README.md is not written yet")
    leave(line)
    done = walk(clone, line)
    assert done.returncode == 0, f"$ {line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_walk_uses_the_clone(clone):
    "Else the walk would prove nothing about the clone."
    done = walk(clone, "python -c 'import clusterlab; print(clusterlab.__file__)'")
    assert Path(done.stdout.strip()).resolve() == (clone/"clusterlab"/"__init__.py").resolve()


def test_walk_changes_nothing(clone):
    "What is committed is what comes out: after all these commands no record, table or figure has changed."
    if not README.strip(): pytest.skip("README.md is not written yet")
    said = subprocess.run(["git", "diff", "--stat"], cwd=clone, capture_output=True, text=True)
    assert said.returncode == 0 and not said.stdout, said.stdout
