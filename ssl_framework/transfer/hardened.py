"""A model of a study on images that are harder than those it was judged on."""

import torch
from torch import Tensor, nn

from ssl_framework.evaluation import robustness
from ssl_framework.transfer.bench import Bench
from ssl_framework.transfer.plan import Plan
from ssl_framework.types import Encoder, Encoding
from ssl_framework.views.preprocessing import plain


class Probe(nn.Module):
    """A logistic regression as the head of an encoder.

    Args:
        weights: ``(D + 1, C)``, the bias last.
    """

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(len(weights) - 1, weights.shape[1])
        with torch.no_grad():
            self.linear.weight.copy_(weights[:-1].T)
            self.linear.bias.copy_(weights[-1])

    def forward(self, encoding: Encoding) -> Tensor:
        """To ``(B, C)``."""
        return self.linear(encoding.pooled)


class Classifier(nn.Module):
    """Encoder and head, from stored images or from pixels in [0, 1].

    Args:
        encoder: what it begins with.
        head: what follows; its `layers` are asked of the encoder, if it has some.
        bench: whose images it is for.
    """

    def __init__(self, encoder: Encoder, head: nn.Module, bench: Bench) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.layers: tuple[int, ...] = getattr(head, "layers", ())
        self.views = plain(**bench.preprocessing)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` uint8 to ``(B, K)``."""
        return self.of_pixels(images.float() / 255)

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """Likewise, of pixels in [0, 1], with a gradient."""
        return self.head(self.encoder(self.views.center_pixels(pixels), layers=self.layers))


def hardened(model: Classifier, bench: Bench, plan: Plan) -> dict[str, float]:
    """Corruptions, attacks, calibration, and images of another kind, see `ssl_framework.evaluation.robustness`."""
    test = bench.judge.images
    rows = torch.linspace(0, len(test) - 1, min(plan.test_images, len(test))).round().long()
    device = torch.device("cuda" if plan.accelerator == "gpu" else "cpu")
    images, others = test.images(rows).to(device), bench.others
    modes = [(module, module.training) for module in model.modules()]
    model.to(device).eval()
    found = robustness(
        model,
        model.of_pixels,
        images,
        bench.judge.targets_of(rows).to(device),
        budgets=plan.attacks,
        others=None if others is None else others.to(device),
    )
    for module, training in modes:
        module.training = training
    return found
