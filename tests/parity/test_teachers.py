"""What moves, starts and computes as in the papers' official code: teachers, heads and predictors of self-distillation."""

from typing import Any

import pytest
import torch
from torch import nn

from ssl_framework.encoders import resnet_micro, vit_micro
from ssl_framework.nn import Teacher
from ssl_framework.pretext import BYOL, DINO, IBOT, IJEPA, MSN, Data2Vec, DINOv2, LeJEPA, ReSSL
from support import LinearEncoder, views_of

SMALL: dict[str, Any] = {"hidden_dim": 8, "bottleneck_dim": 4, "prototypes": 6}


def vit() -> Any:
    torch.manual_seed(0)
    return vit_micro(in_chans=1, img_size=8, patch_size=2, pool="mean").cut(4)


def images(views: int = 2, batch: int = 4) -> torch.Tensor:
    return torch.randn(views, batch, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("task", "quarter", "end"),
    [
        (lambda: BYOL(vit(), 8, 4), 1 - 0.004 * 0.8535534, 1.0),  # (1 + cos(pi / 4)) / 2; section 3.3
        (lambda: DINO(vit(), 8, 4, 6), 1 - 0.004 * 0.8535534, 1.0),  # main_dino.py
        (lambda: IBOT(vit(), **SMALL), 1 - 0.004 * 0.8535534, 1.0),  # main_ibot.py
        (lambda: DINOv2(vit(), **SMALL), 1 - 0.008 * 0.8535534, 1.0),  # ssl_default_config.yaml
        (lambda: MSN(vit(), 0.15, 8, 4, 6), 0.997, 1.0),  # src/msn_train.py: a straight line
        (lambda: IJEPA(vit(), predictor_dim=8, predictor_depth=1, predictor_heads=2), 0.997, 1.0),  # src/train.py: the same
        (lambda: Data2Vec(vit()), 0.9998, 0.9998),  # beit/README.md: constant
        (lambda: ReSSL(vit(), 8, 4, 9), 0.999, 0.999),  # network/ressl.py: constant
    ],
)
def test_teachers_move_as_in_the_papers(task: Any, quarter: float, end: float):
    module = task().double()
    student, teacher = next(module.encoder.parameters()), next(module.teacher.parameters())
    for progress, momentum in ((0.25, quarter), (1.0, end)):
        with torch.no_grad():
            student.fill_(1.0)
            teacher.fill_(0.0)
        module.teacher.follow(progress)
        assert teacher.max().item() == pytest.approx(1 - momentum, abs=1e-10)


def test_a_teacher_drops_nothing_and_its_student_does():
    encoder, x = vit_micro(in_chans=1, img_size=8, patch_size=2, drop_path=0.5), images()[0]
    task = DINO(encoder, 8, 4, 6)  # as it is built: Lightning leaves the modes of modules alone
    assert not torch.equal(task.encoder(x).pooled, task.encoder(x).pooled)
    said = task.teacher(x)
    assert torch.equal(said, task.teacher(x))
    assert torch.equal(said, task.eval().teacher(x))
    assert torch.equal(said, task.train().teacher(x))


def test_a_teacher_normalises_by_its_batch_in_training_and_by_its_averages_after():
    torch.manual_seed(0)
    teacher: Any = Teacher(nn.BatchNorm1d(3), 0.9)
    x = torch.randn(20, 3) + 5
    assert teacher(x).mean().abs() < 1e-5
    assert teacher.module.running_mean.mean() > 0.4
    assert teacher.eval()(x).mean() > 1
    assert teacher.train()(x).mean().abs() < 1e-5


def test_ressl_has_no_batch_norm_in_its_head():
    head = ReSSL(resnet_micro(in_chans=1, img_size=8), queue_size=9).projector
    assert [type(layer) for layer in head.layers] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [tuple(layer.weight.shape) for layer in head.layers if isinstance(layer, nn.Linear)] == [(4096, 128), (512, 4096)]


def test_ijepa_s_predictor_starts_small():
    predictor = IJEPA(vit(), predictor_dim=96, predictor_depth=2, predictor_heads=3).predictor
    linear = [layer for layer in predictor.modules() if isinstance(layer, nn.Linear)]
    assert len(linear) == 2 + 2 * 4
    assert all(layer.weight.std().item() == pytest.approx(0.02, rel=0.05) for layer in linear)
    assert not any(layer.bias.any() for layer in linear)
    assert all(norm.eps == 1e-6 for norm in predictor.modules() if isinstance(norm, nn.LayerNorm))


def test_msn_compares_with_its_prototypes_in_full_precision():
    task, seen = MSN(vit(), 0.15, 8, 4, 6), []
    task.prototypes.register_forward_hook(lambda _, x, y: seen.append(y.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        task(views_of(images()))
    assert seen == [torch.float32] * 2


def test_lejepa_averages_in_full_precision():
    task = LeJEPA(LinearEncoder(64, 6), 8, 4, directions=5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        step = task(views_of(images()))
    assert step.logs["prediction"].dtype == step.loss.dtype == torch.float32
