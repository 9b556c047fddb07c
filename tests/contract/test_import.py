"""Importing the package changes nothing global."""

import json
import subprocess
import sys

PROBE = """
import json, logging, os, random, signal, sys, threading, warnings
import numpy, torch, pytorch_lightning, lightly.loss, timm, torchvision
import hydra, omegaconf, datasets, sklearn.datasets, matplotlib

def state():
    return {
        "environment": dict(os.environ),
        "filters": [str(f) for f in warnings.filters],
        "handlers": [str(h) for h in logging.getLogger().handlers],
        "level": logging.getLogger().level,
        "threads": torch.get_num_threads(),
        "dtype": str(torch.get_default_dtype()),
        "precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "tf32": torch.backends.cudnn.allow_tf32,
        "torch": torch.get_rng_state().sum().item(),
        "numpy": str(numpy.random.get_state()[1].sum()),
        "python": str(hash(random.getstate())),
        "resolvers": sorted(omegaconf.OmegaConf.has_resolver(n) and n or "" for n in ("eval", "oc.env", "now")),
        "excepthook": str(sys.excepthook),
        "signals": [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
        "running": threading.active_count(),
        "path": sys.path,
        "backend": matplotlib.rcParams._get("backend") is None or str(matplotlib.rcParams._get("backend")),
    }

before = state()
import pkgutil, importlib, ssl_framework
found = pkgutil.walk_packages(ssl_framework.__path__, "ssl_framework.")
names = ["ssl_framework"] + [m.name for m in found if "__main__" not in m.name]
for name in names:
    importlib.import_module(name)
after = state()
print(json.dumps({"modules": len(names), "changed": [k for k in before if before[k] != after[k]]}))
"""


def test_importing_everything_changes_nothing_global():
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["modules"] > 30
    assert found["changed"] == []
