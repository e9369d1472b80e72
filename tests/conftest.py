"""What several tests need. One thread, so that a run gives the same bits twice; heavy imports happen once, in this process."""
import os
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
import pytest
import torch
from clusterlab import cli, data

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)
for name in "MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES".split(): os.environ.pop(name, None) # `make` inside a test begins afresh


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    "Every test begins in the project."
    monkeypatch.chdir(ROOT)


def command(*words):
    "The command line, without a process of its own: exit status, output, messages."
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try: cli.main([str(word) for word in words])
        except SystemExit as end: code = end.code or 0
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())


def start(*command, **more):
    "A process of its own that uses this checkout."
    env = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"} | more.pop("env", {})
    return subprocess.Popen([str(c) for c in command], cwd=more.pop("cwd", ROOT), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)


def records(root):
    "All records below a folder, without their receipts, and the checksums that go with them."
    return {path: {k: v for k,v in json.loads(path.read_text()).items() if k not in ("receipt", "checksum")} for path in sorted(Path(root).glob("*/*/*.json"))}


def sandbox(root):
    "Options that keep a run away from the records of the project."
    return ["--budget", "smoke", "--runs_root", root]


def need(name):
    "Skip, and say why, where a data set is absent."
    if not data.available(name): pytest.skip(f"{name} is not in {data.data_root()}; CLUSTERLAB_DATA names another folder")
