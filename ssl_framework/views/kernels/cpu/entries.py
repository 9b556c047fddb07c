"""The functions that Python calls, each compiled by its first use."""

from collections.abc import Callable

from ssl_framework.views.kernels.cpu import random
from ssl_framework.views.kernels.cpu import render as rendering
from ssl_framework.views.kernels.cpu.compile import entry


def draw() -> Callable[..., None]:
    """`random.draw`, compiled."""
    return entry(random.draw, random.DRAW_SIGNATURE)


def boxes() -> Callable[..., None]:
    """`random.boxes`, compiled."""
    return entry(random.boxes, random.BOXES_SIGNATURE)


def render() -> Callable[..., None]:
    """`render.render`, compiled."""
    return entry(rendering.render, rendering.SIGNATURE)
