"""What must fit together before anything is trained: encoder, images, views, labels."""

from typing import cast

import torch
from torch import Tensor, nn

from ssl_framework.downstream.augment import Augmentation
from ssl_framework.downstream.heads import PooledHead, tokens_of
from ssl_framework.downstream.pooling import Pooling
from ssl_framework.downstream.tasks import Task
from ssl_framework.types import Encoder, ViewMaker


def require_channels(encoder: nn.Module, channels: int) -> None:
    """Refuse images of other channels than those of the first convolution, where there is one.

    Raises:
        ValueError: says both numbers.
    """
    first = next((layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is not None and first.in_channels != channels:
        count = "1 channel" if first.in_channels == 1 else f"{first.in_channels} channels"
        raise ValueError(f"the encoder takes {count}, and preprocessing is for {channels}: give the one of its file.")


def require_places(views: ViewMaker | None, augmentation: Augmentation) -> None:
    """Refuse augmentation that moves pixels where their labels would not follow.

    Raises:
        ValueError: names it.
    """
    if augmentation.operations > 0:
        raise ValueError(
            f"augmentation.operations={augmentation.operations}: RandAugment turns and shifts images, and labels of pixels "
            "would stay: leave it out, and take views= for crops, flips and colours."
        )
    if views is not None and getattr(views, "warps", False):
        raise ValueError("these views turn or shear images, and labels of pixels would stay: take views that crop and flip.")


def require_same(views: ViewMaker, plain_views: ViewMaker) -> None:
    """Refuse views that normalise or size images otherwise than pretraining did.

    Raises:
        ValueError: names what differs.
    """
    for name in ("mean", "std", "size"):
        given, needed = getattr(views, name), getattr(plain_views, name)
        if tuple(given) != tuple(needed):
            raise ValueError(
                f"views have {name}={given}, and the encoder was pretrained with {name}={needed}: "
                "make the views from the preprocessing of the encoder, not from the data."
            )


def head_of(task: Task, pooling: Pooling, encoder: Encoder, example: Tensor) -> PooledHead:
    """The head of the task, behind the pooling, as wide as the pooled vector is.

    Raises:
        ValueError: the task reads tokens, and they would be pooled.
    """
    layers = pooling.layers(encoder.num_layers)
    module = cast(nn.Module, encoder)
    module.eval()
    like = next((p for p in module.parameters() if p.is_floating_point()), example)
    with torch.no_grad():
        seen = encoder(example.to(like), layers=layers)
        pool = pooling.module(seen).eval()
        if task.on_tokens and pooling != Pooling():
            raise ValueError(f"pooling={pooling.kind}: {task.kind} reads every token, so nothing is pooled. Leave it out.")
        width = tokens_of(seen).shape[-1] if task.on_tokens else pool(seen).shape[-1]
    return PooledHead(pool, task.head(width), layers, width, task.on_tokens)
