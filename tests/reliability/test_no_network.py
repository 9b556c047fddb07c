"""R16: nothing is reached over the network, at import or in a run, unless the user asks for it.

Each trial is a child: an audit hook stays for the life of a process.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WATCH = """
import json, os, sys
seen = []
def hook(event, arguments):
    # the loopback device and sockets of this machine are no network
    if event in (
        "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request", "http.client.connect"
    ):
        text = str(arguments[1:] if event.startswith("socket.connect") else arguments)
        if not any(word in text for word in ("127.0.0.1", "localhost", "'/")):
            seen.append([event, text[:200]])
sys.addaudithook(hook)
"""

RUNS = {
    "importing everything": """
import importlib, pkgutil, ssl_framework
for module in pkgutil.walk_packages(ssl_framework.__path__, "ssl_framework."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
import datasets, huggingface_hub, timm, torchvision, lightly, pytorch_lightning, tensorboard
""",
    "ssl-framework tasks": "from ssl_framework import cli\nassert cli.run(['tasks']) == 0\n",
    "a pretraining, what is made of it, and a table of images": """
from ssl_framework import cli
quick = ["precision=32", "trainer.progress_bar=false", "trainer.max_steps=2"]
assert cli.run(["pretrain", "run.dir=pre", "data.batch_size=32", *quick]) == 0
assert cli.run(["downstream", "from_run=pre", "run.dir=down", "labels_per_class=2", *quick]) == 0
assert cli.run(["embed", "from_run=pre", "run.dir=embed", "precision=32"]) == 0
import io
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from PIL import Image
file = io.BytesIO()
Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "PNG")
pq.write_table(pa.table({"img": [file.getvalue()] * 20, "label": [n % 2 for n in range(20)]}), "a.parquet")
from ssl_framework.data import parquet
assert parquet("a.parquet", size=[8, 8], batch_size=4).num_samples == 14
try:
    parquet("planted/planted", size=[8, 8])
except FileNotFoundError as error:
    assert "data.download=true" in str(error)
else:
    raise AssertionError("it was found")
""",
}

CONTROLS = {
    "a library that tells the hub what it loads": """
import datasets
datasets.config.HF_HUB_OFFLINE = False
try:
    datasets.load_dataset("planted/planted")
except Exception:
    pass
""",
    "a name that is looked up": """
import socket
try:
    socket.getaddrinfo("planted.invalid", 443)
except OSError:
    pass
""",
}


def reached(program: str, folder: Path) -> list[Any]:
    """What a program asks of the network; time-outs and retries are cut short by a resolver that is not there."""
    whole = f"{WATCH}\n{program}\njson.dump(seen, open('seen.json', 'w'))\n"
    clean = {name: value for name, value in os.environ.items() if "OFFLINE" not in name and "TELEMETRY" not in name}
    settings = {"HF_HOME": str(folder / "hub"), "HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", whole], cwd=folder, env={**clean, **settings}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "seen.json").read_text())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if number else ()) for number, name in enumerate(RUNS)]
)
def test_nothing_is_reached(name: str, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    assert reached(RUNS[name], tmp_path) == []
    record_property("promise", "R16")
    record_property("kind", "healthy run")


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.slow
def test_what_reaches_out_is_seen(name: str, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    assert reached(CONTROLS[name], tmp_path) != []
    record_property("promise", "R16")
    record_property("kind", "control")
