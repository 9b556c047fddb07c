"""How each task is made to collapse, and how it is trained meanwhile: healthy and broken alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from collapse import removals
from collapse.removals import Removal
from ssl_framework.encoders import resnet_micro, vit_micro
from ssl_framework.optim import adamw
from ssl_framework.pretext import PretextModule
from support import channels, digit_views, narrow, task_class

Numbers = Mapping[str, int | float]


@dataclass(frozen=True)
class Trial:
    """One task, with and without what prevents its collapse.

    Attributes:
        removed: in words, for the row of the table.
        removal: takes it out.
        learning_rate: of AdamW.
        limit: steps that both train for, and within which the collapse has to be named.
        numbers: arguments that differ from those of `support.narrow`, for both.
        blocks: of the vision transformer, if the task needs tokens.
        batch_size: samples of a step.
    """

    removed: str
    removal: Removal
    learning_rate: float = 1e-2
    limit: int = 100
    numbers: Numbers = field(default_factory=dict)
    blocks: int = 1
    batch_size: int = 64


# Of 32 features, `support.narrow`'s, three are no small share; of 256 they are.
WIDE = {"hidden_dim": 256, "projection_dim": 256}
DINO = {"hidden_dim": 256, "bottleneck_dim": 256}

TRIALS = {
    "barlow_twins": Trial("the term of redundancy", removals.redundancy, numbers=WIDE),
    "byol": Trial("predictor, stop-gradient and slow teacher", removals.teacher_and_predictor, numbers=WIDE),
    "data2vec": Trial(
        "normalised targets, stop-gradient and slow teacher",
        removals.teacher_and_normalisation,
        1e-3,
        150,
        blocks=2,
        batch_size=32,
    ),
    "dcl": Trial("negatives", removals.negatives, 3e-2, numbers=WIDE),
    "deepcluster_v2": Trial(
        "k-means over all samples: centroids are learnt", removals.clustering, 2e-2, 60, {"hidden_dim": 256}, batch_size=256
    ),
    "densecl": Trial("negatives, of samples and of places", removals.negatives, numbers=WIDE),
    "dino": Trial("centring", removals.centring, 1e-4, 60, DINO),
    "dinov2": Trial(
        "equal shares (softmax instead of Sinkhorn) and KoLeo", removals.equal_shares_of_dinov2, 3e-4, 60, DINO, batch_size=32
    ),
    "frossl": Trial("the Frobenius norm", removals.frobenius_norm, numbers=WIDE),
    "ibot": Trial("centring, of crops and of tokens", removals.centring, 1e-4, 60, DINO, batch_size=32),
    "ijepa": Trial("stop-gradient and slow teacher", removals.teacher, 1e-3, 150, batch_size=32),
    "lejepa": Trial("the test for a normal distribution", removals.normality, 3e-2, 150),
    "mmcr": Trial("the nuclear norm: lengths of the means remain", removals.nuclear_norm, numbers=WIDE),
    "moco_v2": Trial("negatives", removals.negatives, numbers=WIDE),
    "moco_v3": Trial(
        "negatives, predictor, stop-gradient and slow teacher", removals.negatives_teacher_and_predictor, numbers=WIDE
    ),
    "msn": Trial(
        "entropy, and equal shares (softmax instead of Sinkhorn)",
        removals.equal_shares_of_msn,
        5e-3,
        150,
        {"hidden_dim": 256, "prototypes": 1024, "momentum": 0.9},
        batch_size=32,
    ),
    "nnclr": Trial("negatives", removals.negatives, numbers=WIDE),
    "npid": Trial("negatives", removals.negatives_of_npid, 3e-3),
    "pirl": Trial("negatives", removals.negatives_of_pirl, 5e-3),
    "ressl": Trial(
        "the sharper teacher: both temperatures are equal",
        removals.sharper_teacher,
        3e-3,
        numbers={**WIDE, "queue_size": 512, "momentum": 0.9},
    ),
    "simclr": Trial("negatives", removals.negatives, 3e-2, 60, WIDE),
    "simsiam": Trial("predictor, and with it the stop-gradient", removals.predictor, 5e-3, 60, {**WIDE, "bottleneck_dim": 64}),
    "swav": Trial("equal shares (softmax instead of Sinkhorn)", removals.equal_shares_of_swav, numbers=WIDE),
    "tico": Trial("covariance of the past, stop-gradient and slow teacher", removals.covariance_and_teacher, numbers=WIDE),
    "vicreg": Trial("variance and covariance", removals.variability, 1e-2, 150),
    "vicregl": Trial("variance and covariance, of samples and of places", removals.variability, 1e-2, 150),
    "w_mse": Trial("whitening", removals.whitening),
}


def build(task: str, trial: Trial, seed: int = 0) -> PretextModule:
    """The task on half of a `resnet_micro`, or on few blocks of a `vit_micro` that pools by the mean.

    Where only tokens are compared (data2vec, I-JEPA), nothing trains the class token.
    """
    torch.manual_seed(seed)
    cls = task_class(task)
    if cls.card.needs_tokens:
        encoder = vit_micro(in_chans=channels(task), img_size=8, patch_size=2, pool="mean").cut(6 - trial.blocks)
    else:
        encoder = resnet_micro(in_chans=channels(task), img_size=8).cut(2)
    numbers = {**narrow(task), **trial.numbers}
    optimizer = adamw(lr=trial.learning_rate, scale_lr="none")  # on a cosine over `limit` steps
    return cls(encoder, **numbers, views=digit_views(task, seed), optimizer=optimizer, seed=seed)
