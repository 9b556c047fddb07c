"""DINO: Caron et al., 2021, https://arxiv.org/abs/2104.14294."""

from typing import Unpack

from torch.nn import functional as F

from ssl_framework.nn import (
    Branch,
    Centre,
    DINOHead,
    FullPrecision,
    Teacher,
    compare_crops,
    cross_entropy,
    encode_crops,
    require_positive,
    together,
    widen,
)
from ssl_framework.pretext.base import Card, PretextModule, Training
from ssl_framework.schedules import ramp
from ssl_framework.types import Encoder, Step, Views


class DINO(PretextModule):
    """A crop says to which prototypes a slowly moving average of the encoder assigns another, larger crop.

    Caron et al., 2021, https://arxiv.org/abs/2104.14294

    Args:
        encoder: any.
        hidden_dim: of the head; 2048 (official code, vision_transformer.py, DINOHead).
        bottleneck_dim: where samples meet prototypes; 256 (official code, vision_transformer.py, DINOHead).
        prototypes: how many prototypes; 65,536 (official code, main_dino.py, as what follows).
        momentum: of the teacher at the start, rising to 1 on a cosine; 0.996.
        centre_momentum: of the mean that the teacher's scores are centred by; 0.9.
        temperature: of the student; 0.1.
        teacher_temperature: of the teacher; 0.04 at the start, and by the code's default to the end, too.
        final_teacher_temperature: what it rises to, for vision transformers 0.07 (section 3.2).
        warmup_share: share of training in which it rises; 30 of 100 epochs (section 3.2).
        freeze_share: share of training in which prototypes stand still; 1 of 100 epochs (official code).
        training: see `PretextModule`.
    """

    card = Card(
        family="predictive",
        group="self-distillation",
        target="the teacher's prototypes of another crop",
        prevents_collapse="centring and sharpening of the teacher",
        judged_by="linear probe",
        paper="https://arxiv.org/abs/2104.14294",
        views=2,
        exports="teacher",
    )

    def __init__(
        self,
        encoder: Encoder,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        prototypes: int = 65536,
        momentum: float = 0.996,
        centre_momentum: float = 0.9,
        temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        final_teacher_temperature: float = 0.07,
        warmup_share: float = 0.3,
        freeze_share: float = 0.01,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(encoder, **training)
        require_positive(
            temperature=temperature,
            teacher_temperature=teacher_temperature,
            final_teacher_temperature=final_teacher_temperature,
        )
        self.temperature, self.freeze_share = temperature, freeze_share
        self.teacher_temperatures, self.warmup_share = (teacher_temperature, final_teacher_temperature), warmup_share
        self.head = DINOHead(encoder.embed_dim, hidden_dim, bottleneck_dim, prototypes)
        self.teacher = Teacher(Branch(self.encoder, self.head), momentum)
        self.centre = Centre(prototypes, centre_momentum)
        self.criterion = FullPrecision(cross_entropy)

    def forward(self, views: Views) -> Step:
        """Crops of one size go through together (official code, utils.py, MultiCropWrapper)."""
        h = encode_crops(self.encoder, views, joined=True)  # (V, B, D)
        s = self.head(h, frozen=self.progress < self.freeze_share)  # (V, B, K)
        t = widen(together(self.teacher, views.global_crops[:2]))  # (2, B, K), no gradient

        sharpness = ramp(self.progress, self.warmup_share, *self.teacher_temperatures)
        target = F.softmax((t - self.centre.value) / sharpness, dim=-1)
        self.centre.stage(t)
        loss = compare_crops(self.criterion, s / self.temperature, target)  # algorithm 1
        return Step(loss, embedding=h.flatten(0, 1), projection=s.flatten(0, 1), target=target.flatten(0, 1))
