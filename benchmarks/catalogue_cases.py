"""What the catalogue's benchmark trains on, for how long, and which numbers of a task a small budget asks for."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import hydra.utils
import yaml

from ssl_framework.paths import conf_dir
from ssl_framework.pretext.base import Card


class Case(NamedTuple):
    """A data set and its budget.

    Attributes:
        data: group of ``conf/data`` that the images come from.
        pool: samples that are pretrained on, and that lend the labels; None: the data set's training split.
        val: samples that choose the probe's penalty.
        steps: of pretraining.
        batch: samples of a step.
        draws: of 10 labels a class for the fine-tuning, for each seed.
        finetune_steps: of each draw.
        tasks: None: all of the catalogue.
    """

    data: str
    pool: int | None
    val: int
    steps: int
    batch: int
    draws: int
    finetune_steps: int
    tasks: Sequence[str] | None = None

    @property
    def samples(self) -> int:
        """Seen in pretraining; a sample counts once, however many crops it has."""
        return self.steps * self.batch


CASES = {
    "fashion_mnist": Case("fashion_mnist", pool=10_000, val=2_000, steps=391, batch=256, draws=3, finetune_steps=60),
    "cifar10": Case(
        "cifar10", 10_000, 2_000, steps=391, batch=256, draws=3, finetune_steps=60,
        tasks=("denoising_autoencoder", "mae", "aim", "colorization", "simclr", "nnclr", "moco_v2", "densecl", "rotation",
               "swav", "byol", "lejepa", "barlow_twins"),
    ),
    "digits": Case("digits", pool=None, val=0, steps=60, batch=64, draws=1, finetune_steps=20),
}  # fmt: skip
"""CIFAR-10: one task for each sub-group of the taxonomy. Digits: what the tests have time for."""

COMMON = (
    "optimizer.lr=0.002",  # of AdamW, for a batch of 256, for all tasks alike
    "logger=none",
    "monitors.knn=null",
    "monitors.probe=null",
    "monitors.throughput=null",
    "trainer.val_check_interval=0",
    "trainer.checkpoint_every_n_steps=0",
    "trainer.progress_bar=false",
)

_LARGEST = {
    "hidden_dim": 512,
    "projection_dim": 256,
    "predictor_dim": 512,
    "bottleneck_dim": 128,
    "tile_dim": 128,
    "local_hidden_dim": 256,
    "local_projection_dim": 128,
    "decoder_dim": 128,
    "decoder_depth": 2,
    "decoder_heads": 4,
    "prototypes": 512,
    "queue_size": 2048,
    "negatives": 2048,
    "permutations": 100,
    "directions": 256,
    "head_dim": 256,
    "head_depth": 2,
}
"""Heads, decoders, prototypes and queues no larger than an encoder 128 or 192 wide and a pool of 10,000 ask for. The defaults
are the papers', for encoders of ten to three hundred times the size."""

_OWN: dict[str, tuple[str, ...]] = {
    "ijepa": ("pretext.predictor_dim=96", "pretext.predictor_depth=2", "pretext.predictor_heads=3"),
    "simsiam": ("pretext.projection_dim=512",),
    "simclr": ("pretext.temperature=0.2",),  # solo-learn, scripts/pretrain/cifar, as the next two
    "dcl": ("pretext.temperature=0.2",),
    "nnclr": ("pretext.temperature=0.2",),
    "w_mse": ("pretext.projection_dim=64",),  # a batch of 256 can whiten as many
    "lejepa": ("pretext.projection_dim=64",),
    # In 391 steps the centred scores of a teacher at 0.04 and more stay uniform, and the loss at log(K)
    "dino": ("pretext.teacher_temperature=0.02", "pretext.final_teacher_temperature=0.02"),
    "ibot": ("pretext.teacher_temperature=0.02", "pretext.final_teacher_temperature=0.02"),
}

_OF_DIGITS = {**_OWN, "w_mse": ("pretext.whitening_size=64", "pretext.projection_dim=32")}  # of batches of 64

_TEACHERS = {"momentum": 0.99, "final_momentum": 0.999}
"""Of teachers: the papers' 0.996 to 0.9998 are for ten thousand steps and more, here are 391. Memory banks and covariances
keep theirs."""

_MEMORIES = ("npid", "pirl", "tico")

_VIEWS: dict[str, tuple[str, ...]] = {
    "one_crop": (),
    "two_crops": ("views.crop_scale=[0.2,1.0]", "views.strength=0.5", "views.blur_p=0.0"),  # SimCLR, appendix B.9
    "two_crops_weak": ("views.blur_p=0.0",),
    "two_crops_asymmetric": ("views.crop_scale=[0.2,1.0]", "views.blur_p=[0.0,0.0]"),
    "strong_and_weak": ("views.blur_p=0.0",),
    "multi_crop": ("views.local_crops=4", "views.local_scale=[0.2,0.4]", "views.blur_p=[0.0,0.0,0.0]"),
    "multi_crop_swav": (
        "views.local_crops=4", "views.global_scale=[0.4,1.0]", "views.local_scale=[0.2,0.4]", "views.strength=0.5",
        "views.blur_p=[0.0,0.0,0.0]",
    ),
    "multi_crop_lejepa": ("views.local_crops=4", "views.local_scale=[0.15,0.3]", "views.blur_p=[0.0,0.0,0.0]"),
}  # fmt: skip
"""At 28 and 32 pixels less than a fifth of an image is no image, and a tenth of the side blurs nothing."""


_VIT = (
    "encoder=timm",
    "encoder.name=vit_tiny_patch16_224",
    "encoder.pool=mean",  # several tasks do not train the class token
    "encoder.model_args={patch_size: 4, embed_dim: 96, depth: 4, num_heads: 3}",
)

ENCODERS = {
    "resnet_micro": ("encoder=resnet_micro",),
    "vit_4x96": _VIT,
    "vit_4x96_sincos": (*_VIT, "encoder.pos_embed=sincos"),
}
"""Of 0.3 and 0.5 million parameters. `vit_micro` has 2.7, and would take the time of all others together. Positions, learnt or
fixed, are those that the task's paper has, and each kind has its own floor: on Fashion-MNIST a random encoder is at 74.2 by
probe and 53.9 fine-tuned with fixed positions, at 68.7 and 43.6 with learnt ones."""

FLOORS = {
    "chance": None,
    "raw pixels": None,
    "PCA": None,
    "random resnet_micro": "resnet_micro",
    "random vit_4x96": "vit_4x96",
    "random vit_4x96_sincos": "vit_4x96_sincos",
}
"""What has learned nothing, and its encoder. Fine-tuned, a random encoder is one trained from scratch."""

NOTES: dict[str, str] = {
    "npid": "ten passes over the pool: a sample meets its own memory nine times, in the paper 200; a temperature of 0.2 made "
    "it worse (67.2 and 59.8)",
    "relative_location": "tiles are 7 pixels wide: whole pictures are new to the encoder",
    "ijepa": "with learnt positions, which begin near zero, it fell to 52.8, 36.2 and 44.0",
    "simmim": "the paper has relative positions, which this encoder has not",
}
"""What is known of a task's row on Fashion-MNIST. Percentages in the order of the columns."""

_COLOURLESS = ("fashion_mnist", "digits")


def tasks_of(name: str) -> list[str]:
    """The tasks of a case: by default all that its images can be used for."""
    asked = CASES[name].tasks
    if asked is not None:
        return list(asked)
    found = sorted(path.stem for path in (conf_dir() / "pretext").glob("*.yaml"))
    return [task for task in found if not (name in _COLOURLESS and card(task).needs_colour)]


def card(task: str) -> Card:
    """What the task says of itself."""
    return hydra.utils.get_class(_config(task)["pretext"]["_target_"]).card


def words_of(task: str, case: Case) -> list[str]:
    """What the command line is told of a task, besides its data and seed: a row can be repeated with these."""
    config = _config(task)
    said = [
        f"pretext={task}",
        *encoder_words(encoder_of(task), case),
        f"trainer.max_steps={case.steps}",
        f"data.batch_size={case.batch}",
        *COMMON,
    ]
    said += [f"pretext.{name}={value}" for name, value in _numbers(task, config["pretext"]).items()]
    said += _OF_DIGITS.get(task, ()) if case.data == "digits" else _OWN.get(task, ())
    return said + list(() if case.data == "digits" else _VIEWS[_chosen(config, "views", "two_crops")])


def encoder_of(task: str) -> str:
    """A vision transformer where the task's YAML chooses one, with the positions of its paper."""
    if "vit" not in _chosen(_config(task), "encoder", "resnet_micro"):
        return "resnet_micro"
    return "vit_4x96_sincos" if card(task).positions == "sincos" else "vit_4x96"


def encoder_words(name: str, case: Case) -> list[str]:
    """What the command line is told of an encoder; on 8 pixels its patches are 2 a side."""
    return [word.replace("patch_size: 4", "patch_size: 2") if case.data == "digits" else word for word in ENCODERS[name]]


def _config(task: str) -> dict[str, Any]:
    return yaml.safe_load((conf_dir() / "pretext" / f"{task}.yaml").read_text())


def _chosen(config: Mapping[str, Any], group: str, default: str) -> str:
    found = [entry[f"override /{group}"] for entry in config["defaults"] if f"override /{group}" in entry]
    return found[0] if found else default


def _numbers(task: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a task that differ from its YAML."""
    smaller = {name: limit for name, limit in _LARGEST.items() if (defaults.get(name) or 0) > limit}
    faster = {name: limit for name, limit in _TEACHERS.items() if task not in _MEMORIES and (defaults.get(name) or 0) > limit}
    own = {word.split("=")[0].removeprefix("pretext.") for word in _OWN.get(task, ())}
    return {name: value for name, value in {**smaller, **faster}.items() if name not in own}
