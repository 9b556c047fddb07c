"""What an encoder says of a split, computed once and kept in memory or in a file."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ssl_framework import machine
from ssl_framework.types import Encoder

_LOWER = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Images(Protocol):
    """A split in a fixed order, `ssl_framework.data.Labelled` for one."""

    @property
    def index(self) -> Tensor:
        """``(N,)`` position of each sample in the data as they were loaded."""
        ...

    @property
    def targets(self) -> Tensor:
        """``(N,)`` labels."""
        ...

    def images(self, positions: Sequence[int]) -> Tensor:
        """``(B, C, H, W)`` uint8."""
        ...

    def __len__(self) -> int:
        """Number of samples."""
        ...


class Embeddings(NamedTuple):
    """Embeddings of a split, on the CPU.

    Attributes:
        x: ``(N, D)`` float32, `Encoding.pooled`.
        y: ``(N,)`` int64 labels.
        index: ``(N,)`` int64 position of each sample in the data as they were loaded. (It hides tuple.index.)
        layers: ``(N, D_i)`` float32 for every layer asked for, pooled as if it were the last: what an encoder cut there gives.
    """

    x: Tensor
    y: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  (hides tuple.index: the name that batches use too)
    layers: tuple[Tensor, ...] = ()


@torch.inference_mode()
def embed(
    encoder: Encoder,
    split: Images,
    prepare: Callable[[Tensor], Tensor],
    *,
    batch_size: int = 512,
    layers: Sequence[int] = (),
    device: torch.device | str | None = None,
    precision: str = "auto",
    progress: bool = False,
) -> Embeddings:
    """Encode every sample of a split once, in evaluation mode; the encoder's modes and device are restored afterwards.

    The same call gives the same rows, to the bit.

    Args:
        encoder: what encodes.
        split: images and labels.
        prepare: uint8 images to the normalised floats that the encoder saw, `ViewMaker.center` for one.
        batch_size: samples encoded at a time. The result depends on it in the last bits of the precision only.
        layers: layers to keep as well, as `Encoder` counts them.
        device: where to compute; where the encoder is, by default.
        precision: of the encoder's products: Lightning's "32-true", "bf16-mixed" or "16-mixed", or "auto", what the device is
            fast at. In bfloat16 rows keep a cosine of 0.999 with those of float32, and accuracies move by noise only. What has
            no parameters, raw pixels and PCA, is encoded in float32 always.
        progress: show a bar.

    Raises:
        ValueError: there is no such precision, or an embedding is not finite; the message says what to look for.
    """
    module = cast(nn.Module, encoder)
    home = next((tensor.device for tensor in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    device = home if device is None else torch.device(device)
    lower = _lower(precision, device, module)
    modes = {part: part.training for part in module.modules()}
    pooled: list[Tensor] = []
    deep: list[list[Tensor]] = [[] for _ in layers]
    try:
        module.eval().to(device)
        for start in tqdm(range(0, len(split), batch_size), desc="embedding", disable=not progress, leave=False):
            images = split.images(range(start, min(start + batch_size, len(split))))
            x = _fast_layout(prepare(images.to(device)))
            with torch.autocast(device.type, lower, enabled=lower is not None):
                encoding = encoder(x, layers=layers)
            pooled.append(encoding.pooled.float().cpu())
            for kept, vectors in zip(deep, encoding.pooled_layers, strict=True):
                kept.append(vectors.float().cpu())
    finally:
        module.to(home)
        for part, training in modes.items():
            part.training = training
    x = torch.cat(pooled) if pooled else torch.empty(0, encoder.embed_dim)
    if not bool(x.isfinite().all()):
        raise ValueError(
            f"{int((~x.isfinite()).any(dim=1).sum())} of {len(x)} embeddings are not finite: "
            "the encoder's training has diverged, or its file is damaged. Pretrain with a lower learning rate."
        )
    # clones: what inference mode made cannot be used where gradients are wanted, by a probe for one
    with torch.inference_mode(mode=False):
        return Embeddings(x.clone(), split.targets, split.index, tuple(torch.cat(kept).clone() for kept in deep))


def _lower(precision: str, device: torch.device, module: nn.Module) -> torch.dtype | None:
    """What products are rounded to, or None for float32."""
    name = machine.precision(device).name if precision == "auto" else precision
    if name not in _LOWER:
        raise ValueError(f"precision={precision}: embeddings are computed in auto or {', '.join(_LOWER)}.")
    return _LOWER[name] if any(True for _ in module.parameters()) else None


def _fast_layout(x: Tensor) -> Tensor:
    """Images with channels last in memory: convolutions follow their input, and are faster so. Others as they are."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def write_embeddings(path: Path | str, embeddings: Embeddings, classes: Sequence[str] | None = None) -> Path:
    """Write embeddings with ids and labels, whole or not at all.

    Args:
        path: ``.npz`` (arrays ``id``, ``label``, ``embedding``, and ``class_names`` if known) or ``.parquet`` (columns alike;
            ``embedding`` is a list of fixed length, ``class_name`` is spelt out).
        embeddings: of one split.
        classes: names of the labels.

    Returns:
        The path.

    Raises:
        ValueError: another ending.
    """
    path = Path(path)
    writers = {".npz": _write_npz, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise ValueError(f"{path.name} must end in {' or '.join(writers)}: the ending says how embeddings are written.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    writers[path.suffix](partial, embeddings, classes)
    os.replace(partial, path)  # noqa: PTH105  (Path.replace is the same call; os.replace says that it overwrites)
    return path


def _write_npz(path: Path, embeddings: Embeddings, classes: Sequence[str] | None) -> None:
    columns: dict[str, Any] = {"id": embeddings.index, "label": embeddings.y, "embedding": embeddings.x}
    arrays = {name: value.numpy() for name, value in columns.items()}
    if classes is not None:
        arrays["class_names"] = np.array(list(classes), dtype=np.str_)  # not objects: numpy would pickle them
    np.savez(path, allow_pickle=False, **arrays)


def _write_parquet(path: Path, embeddings: Embeddings, classes: Sequence[str] | None) -> None:
    flat = pa.array(embeddings.x.numpy().reshape(-1))
    columns: dict[str, Any] = {
        "id": pa.array(embeddings.index.numpy()),
        "label": pa.array(embeddings.y.numpy()),
        "embedding": pa.FixedSizeListArray.from_arrays(flat, embeddings.x.shape[1]),
    }
    if classes is not None:
        columns["class_name"] = pa.array([classes[label] for label in embeddings.y.tolist()])
    pq.write_table(pa.table(columns), path)
