"""Started by test_fsdp2.py; Lightning starts it again for the second process."""

import sys
from pathlib import Path

import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch.distributed.tensor import DTensor

sys.path.insert(0, str(Path(__file__).parent.parent))

from ssl_framework import run
from ssl_framework.optim import lars
from support import digits_data, small


def main(task: str, folder: str, kind: str) -> None:
    torch.set_num_threads(1)
    data = digits_data(batch_size=64)
    module = small(task, optimizer=lars() if kind == "lars" else None)
    strategy = "auto" if kind == "single" else ModelParallelStrategy(2, 1, save_distributed_checkpoint=False)
    trainer = run.trainer(
        steps=4,
        data=data,
        accelerator="cpu",
        devices=1 if kind == "single" else 2,
        strategy=strategy,
        logger=False,
        enable_progress_bar=False,
        default_root_dir=folder,
    )
    trainer.fit(module, data)
    if kind != "single":
        assert all(isinstance(p, DTensor) for p in module.encoder.parameters())
    sys.stdout.write(f"rank {trainer.global_rank}: done {trainer.global_step} steps\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
