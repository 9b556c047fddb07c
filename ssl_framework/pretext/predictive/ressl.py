"""ReSSL: Zheng et al., 2021, https://arxiv.org/abs/2107.09282."""

import math
from typing import Unpack

import torch
from lightly.models.modules.heads import ProjectionHead
from torch import nn
from torch.nn import functional as F

from ssl_framework.nn import Branch, FullPrecision, Queue, Relation, Teacher, encode_crops, together, widen
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.types import Encoder, Step, Views


class ReSSL(PretextModule):
    """How a strongly augmented view relates to the samples of the last batches is how its weak view does, for a teacher.

    Zheng et al., 2021, https://arxiv.org/abs/2107.09282. The first view is the strong one, the second the weak one
    (``views=strong_and_weak``). The official code, https://github.com/mingkai-zheng/ReSSL, shuffles the teacher's samples over
    processes for the sake of BatchNorm; we do not.

    Args:
        encoder: any.
        hidden_dim: of the projector, which has no BatchNorm; 4096 (official code, network/backbone.py, network/head.py).
        projection_dim: where samples are compared; 512 (official code, network/ressl.py).
        queue_size: samples that relations are taken to; 131,072 (official code, network/ressl.py).
        momentum: of the teacher, which stays; 0.999 (official code, network/ressl.py).
        temperature: of the student's relations; 0.1 (official code, ressl.py).
        teacher_temperature: of the teacher's, sharper; 0.04 (official code, ressl.py).
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="self-distillation",
        target="the teacher's similarities to other samples",
        prevents_collapse="a sharper teacher and a queue of samples",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2107.09282",
        views=2,
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 4096,
        projection_dim: int = 512,
        queue_size: int = 131072,
        momentum: float = 0.999,
        temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        layers = [(encoder.embed_dim, hidden_dim, None, nn.ReLU()), (hidden_dim, projection_dim, None, None)]
        self.projector = ProjectionHead(layers)
        self.teacher = Teacher(Branch(self.encoder, self.projector), momentum, momentum)
        self.queue = Queue(queue_size, projection_dim)
        self.criterion = FullPrecision(Relation(temperature, teacher_temperature))

    def forward(self, views: Views) -> Step:
        """Local crops, if there are any, are further strong views (official code, network/ressl_multi.py)."""
        k = F.normalize(widen(self.teacher(views.global_crops[1])), dim=1)  # (B, P), no gradient
        h = encode_crops(self.encoder, views._replace(global_crops=views.global_crops[:1]))  # (1 + L, B, D)
        z = together(self.projector, h)  # (1 + L, B, P)

        loss = torch.stack([self.criterion(q, k, self.queue.rows) for q in z]).mean()
        self.queue.stage(k)
        chance = math.log(len(self.queue.rows))
        return Step(loss, embedding=h.flatten(0, 1), projection=z.flatten(0, 1), chance=chance)
