"""What is raced: the cases, who can take part in each, and the targets. Plain values, read by every contestant."""

from typing import Any, NamedTuple

HIDDEN, PROJECTED = 2048, 128
"""Widths of everybody's projector: SimCLR, sections 4.2 and 2.1."""


class Case(NamedTuple):
    """A two-view SimCLR training.

    Attributes:
        name: on the command line.
        title: for people.
        encoder: a choice of our `conf/encoder`.
        size: side of a view, pixels.
        stored: side of a stored image.
        batch: images of a step; all contestants together fit into 24 GB.
        files: JPEG files, else one array of all images.
        images: how many synthetic ones are made.
        blur: probability of the blur; SimCLR leaves it out at 32 pixels (appendix B.9).
        strength: of the colour jitter; 0.5 at 32 pixels (appendix B.9).
        held: ours may hold the images in memory, if they fit, as it does by default; not where the case stands for data that
            do not fit.
    """

    name: str
    title: str
    encoder: str
    size: int
    stored: int
    batch: int
    files: bool
    images: int
    blur: float
    strength: float
    held: bool = True


CASES = {
    case.name: case
    for case in (
        Case("resnet18-32", "ResNet-18 (small stem), 32 px", "resnet18", 32, 32, 256, False, 20_000, 0.0, 0.5),
        Case(
            "resnet18-224", "ResNet-18, 224 px from JPEG files of 256 px", "resnet18", 224, 256, 64, True, 2048, 0.5, 1.0, False
        ),
        Case("micro-32", "ResNet-micro, 32 px", "resnet_micro", 32, 32, 256, False, 20_000, 0.0, 0.5),
        Case("vit-micro-32", "ViT-micro/4, 32 px", "vit_micro", 32, 32, 256, False, 20_000, 0.0, 0.5),
        Case("vit-tiny-32", "ViT-tiny/4, 32 px", "vit_tiny", 32, 32, 128, False, 20_000, 0.0, 0.5),
        Case("paths", "ResNet-micro, 224 px from JPEG files", "resnet_micro", 224, 256, 16, True, 2048, 0.5, 1.0),
        Case("overhead", "A linear encoder, 8 px: the loop alone", "linear", 8, 8, 32, False, 4096, 0.0, 0.5),
    )
}


class Contestant(NamedTuple):
    """Who trains, and how.

    Attributes:
        name: on the command line.
        script: the file of this folder that trains it.
        kind: the function in it.
        precision: Lightning's name; "auto" is what `ssl-framework` takes on the machine.
        words: further words of our command line.
        peer: another library, whose number of loader workers is tried out.
        what: for people.
    """

    name: str
    script: str
    kind: str
    precision: str
    words: tuple[str, ...]
    peer: bool
    what: str


_HERE = "data.cache_dir=cache"  # among the files of the race
_PLAIN = ("trainer.channels_last=false", "keep_freed_memory=false")


def _own(name: str, what: str, kind: str = "ours", precision: str = "auto", words: tuple[str, ...] = ()) -> Contestant:
    return Contestant(name, "throughput_ours.py", kind, precision, words, False, what)


def _peer(name: str) -> tuple[Contestant, Contestant]:
    shipped = Contestant(name, "throughput_peers.py", name, "32-true", (), True, "as shipped")
    return shipped, shipped._replace(name=f"{name}-bf16", precision="bf16-mixed", what="in our precision")


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        _own("ours", "`ssl-framework pretrain`, all defaults"),
        _own("ours-fp32", "`precision=32`", precision="32"),
        _own("ours-plain", "float32, contiguous, the allocator left alone", precision="32", words=_PLAIN),
        _own("ours-compiled", "`trainer.compile=true`", words=("trainer.compile=true",)),
        _own("bare", "the limit: a bare loop over one ready batch of views", "bare"),
        _own("bare-fp32", "the same in float32", "bare", "32"),
        _own("bare-compiled", "the same, compiled", "bare", words=("trainer.compile=true",)),
        _own("ours-files", "decoded for each batch", words=("data.cache=false", "data.resident=false")),
        _own("ours-cache", "decoded once, mapped from a file", words=("data.cache=true", _HERE, "data.resident=false")),
        _own("ours-resident", "decoded once, held in memory", words=("data.resident=true",)),
        _own("loop", "Lightning's Trainer, our default logging and bar, no monitors", words=("monitors=none",)),
        _own("loop-bare", "the same step in a bare loop: data, views, schedule", "bare_with_data"),
        *_peer("lightly"),
        *_peer("solo-learn"),
        *_peer("stable-pretraining"),
    )
}

_ALL = tuple(name for name in CONTESTANTS if not name.startswith(("ours-", "bare-", "loop")))
DEFAULT = {
    "resnet18-32": (*_ALL, "ours-fp32"),
    "resnet18-224": (*_ALL, "ours-fp32"),
    "micro-32": _ALL,
    "vit-micro-32": _ALL,
    "vit-tiny-32": ("ours", "ours-plain", "ours-compiled", "bare", "bare-compiled"),
    "paths": ("ours", "ours-files", "ours-cache", "ours-resident", "bare"),
    "overhead": ("loop", "loop-bare"),
}
"""Who takes part in a case unless the command says otherwise; peers whose checkout is not given stay away."""


class Target(NamedTuple):
    """A ratio of rates that is asked for: ``of`` over ``to``, at least ``least``; ``stretch`` would be better still."""

    of: str
    to: str
    least: float
    stretch: float | None = None


_PEERS = ("lightly", "solo-learn", "stable-pretraining")


def targets(case: str) -> tuple[Target, ...]:
    """The ratios that are asked for in a case."""
    if case == "vit-tiny-32":
        return Target("ours", "ours-plain", 2.0), Target("ours-compiled", "ours-plain", 2.5), Target("ours", "bare", 0.97)
    if case in ("micro-32", "vit-micro-32"):
        return *(Target("ours", peer, 6.0) for peer in _PEERS), Target("ours", "bare", 0.97)
    if case not in ("resnet18-32", "resnet18-224"):
        return ()
    small = case == "resnet18-32"
    shipped = (Target("ours", peer, 3.3, 4.4 if small else None) for peer in _PEERS)
    same = (Target("ours", f"{peer}-bf16", 1.3 if peer == "solo-learn" else 1.6) for peer in _PEERS)
    same = (t._replace(stretch=1.7) if small and t.to == "solo-learn-bf16" else t for t in same)
    return *shipped, *same, Target("ours", "bare", 0.97 if small else 0.95)


OVERHEAD_TARGET = 1.0  # ms a step
MEMORY_TARGET = 0.5e9  # bytes above the bare loop's, beside the data set's where it is resident


def case_of(specification: dict[str, Any]) -> Case:
    """The case of a contestant's specification, with the batch that was asked for."""
    return Case(**specification["case"])
