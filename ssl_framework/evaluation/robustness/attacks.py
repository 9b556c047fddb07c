"""Changes too small to see that a model falls for: one step along the gradient, and many.

FGSM: Goodfellow, Shlens and Szegedy, "Explaining and Harnessing Adversarial Examples", 2015, https://arxiv.org/abs/1412.6572.
PGD: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", 2018, https://arxiv.org/abs/1706.06083.

They are written here and not taken from a library: torchattacks (last release 2023) pins requests 2.25, cleverhans (2021) needs
TensorFlow Probability, foolbox (2024) eagerpy and GitPython, and the Adversarial Robustness Toolbox, which is alive, goes
through numpy arrays and draws from global generators, so that a start could not belong to (seed, sample).

Pixels change in [0, 1], before they are normalised, by at most `eps` each. The model stays as it is: no gradient of a
weight is computed, and no mode changed. Put it into evaluation mode, and give what `from_pixels` makes of it.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_framework import keyed
from ssl_framework.evaluation.robustness.confidence import require_logits
from ssl_framework.evaluation.robustness.noise import require_labels
from ssl_framework.views.kernels.reference import normalize

Logits = Callable[[Tensor], Tensor]

BUDGETS = (2 / 255, 8 / 255)  # 8/255 is Madry et al.'s for CIFAR-10; for digits black on white it is 0.3 (section 5), or 0.1
STEPS = 20

_START, _SIGNS = 0xA77AC, 0xA77AD  # name the uses of a key
STRIDE = 2.5  # steps lead this many times as far as the budget: from any start to the border, and along it (Madry et al.)


def from_pixels(model: Logits, mean: Sequence[float], std: Sequence[float]) -> Logits:
    """A classifier of pixels in [0, 1], from one of normalised images, such as an encoder and its head.

    Args:
        model: normalised ``(B, C, H, W)`` to ``(B, K)``, with a gradient. If it works at another size than that of the images,
            it resizes them itself: that comes to the same before or after they are normalised.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
    """

    def logits(x: Tensor) -> Tensor:
        return model(normalize(x, tuple(mean), tuple(std)))

    return logits


def require_alike(logits_of_uint8: Logits, logits: Logits, images: Tensor) -> None:
    """Refuse two ways to one model that do not agree, and a model whose answers depend on chance or on the batch.

    Args:
        logits_of_uint8: of stored images.
        logits: of the same pixels in [0, 1].
        images: ``(B, C, H, W)`` uint8, a few.

    Raises:
        ValueError: they differ by more than the square root of the logits' precision.
    """
    with torch.no_grad():
        stored, pixels = logits_of_uint8(images), logits(images.float() / 255)
        first = logits_of_uint8(images[:1])
    require_logits(stored)
    require_logits(pixels)
    if stored.shape != pixels.shape or _apart(stored, pixels):
        raise ValueError(
            "logits of stored images and logits of the same pixels in [0, 1] differ: give both ways one mean, std and size, "
            "and put the model into evaluation mode (model.eval())."
        )
    if _apart(stored[:1], first):
        raise ValueError(
            "an image has other logits alone than in a batch: put the model into evaluation mode (model.eval()), so that "
            "dropout is off and BatchNorm still."
        )


def fgsm(logits: Logits, x: Tensor, targets: Tensor, eps: float) -> Tensor:
    """Move each pixel by `eps` to where the loss grows.

    Args:
        logits: of pixels in [0, 1], in evaluation mode and with a gradient.
        x: ``(B, C, H, W)`` floats in [0, 1].
        targets: ``(B,)`` int64 true classes.
        eps: most that a pixel changes, in [0, 1].

    Returns:
        ``(B, C, H, W)`` in [0, 1].

    Raises:
        ValueError: `x` is not of pixels in [0, 1], labels do not match, or logits are not finite or have no gradient.
    """
    return moved(x, gradient(logits, x, targets).sign(), eps)


def pgd(
    logits: Logits,
    x: Tensor,
    targets: Tensor,
    eps: float,
    *,
    steps: int = STEPS,
    step: float | None = None,
    seed: int = 0,
    index: Tensor | None = None,
) -> Tensor:
    """Many steps along the sign of the gradient, from a random start, never further than `eps` from the image.

    A sample stops where it is misclassified, which may be at once; else its most lossy point counts. So with a `step` of one
    length more steps are never weaker.

    Args:
        logits: of pixels in [0, 1], in evaluation mode and with a gradient.
        x: ``(B, C, H, W)`` floats in [0, 1].
        targets: ``(B,)`` int64 true classes.
        eps: most that a pixel changes, in [0, 1].
        steps: 1 or more.
        step: how far one leads; None: ``2.5 * eps / steps``.
        seed: of the start, which belongs to (seed, index).
        index: ``(B,)`` int64 position of each image in its data set; None: as they come.

    Returns:
        ``(B, C, H, W)`` in [0, 1].

    Raises:
        ValueError: as `fgsm`, or there is no step.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: give 1 or more.")
    _require_pixels(x, eps)
    stride = STRIDE * eps / steps if step is None else step
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    with torch.no_grad():
        worst, fooled = _loss(logits, x, targets)
    best, rows = x.clone(), (~fooled).nonzero()[:, 0]
    start = x + eps * (2 * _drawn(x, seed, index, _START) - 1)
    at = torch.clamp(start, low, high)[rows]
    for moves in range(steps + 1):
        if len(rows) == 0:
            break
        slope, loss, fooled = _look(logits, at, targets[rows], climb=moves < steps)
        better = fooled | (loss > worst[rows])
        best[rows[better]], worst[rows[better]] = at[better], loss[better]
        at, rows, slope = at[~fooled], rows[~fooled], slope[~fooled]
        at = torch.clamp(at + stride * slope.sign(), low[rows], high[rows])
    return best


def random_signs(x: Tensor, eps: float, *, seed: int = 0, index: Tensor | None = None) -> Tensor:
    """Move each pixel by `eps` up or down by chance: what a change of this size does without a gradient.

    Args:
        x: ``(B, C, H, W)`` floats in [0, 1].
        eps: how far each pixel goes, unless it would leave [0, 1].
        seed: of the signs, which belong to (seed, index).
        index: ``(B,)`` int64 position of each image in its data set; None: as they come.

    Raises:
        ValueError: `x` is not of pixels in [0, 1].
    """
    _require_pixels(x, eps)
    return moved(x, torch.where(_drawn(x, seed, index, _SIGNS) < 0.5, -1.0, 1.0).to(x), eps)


def moved(x: Tensor, direction: Tensor, eps: float) -> Tensor:
    """``(B, C, H, W)`` pixels `eps` further in a direction of -1, 0 and 1, and in [0, 1]."""
    _require_pixels(x, eps)
    return (x + eps * direction).clamp(0, 1)


def gradient(logits: Logits, x: Tensor, targets: Tensor) -> Tensor:
    """Where the loss grows, ``(B, C, H, W)`` with respect to the pixels; arguments as in `fgsm`.

    The cross-entropy is ``softplus(m)``, where m is logsumexp of the other classes' logits less the true class's. This is the
    gradient of m: it has the same direction, and does not vanish where a model is so sure that its loss rounds to 0.
    """
    _require_pixels(x, 0.0)
    return _look(logits, x, targets, climb=True)[0]


def gradient_share(slope: Tensor) -> float:
    """Share of samples with any gradient, of what `gradient` returns.

    Without it an attack stands still, and a model looks robust that is not: Carlini et al., "On Evaluating Adversarial
    Robustness", 2019, https://arxiv.org/abs/1902.06705; Athalye et al., "Obfuscated Gradients Give a False Sense of
    Security", 2018, https://arxiv.org/abs/1802.00420.
    """
    return float((slope.flatten(1) != 0).any(dim=1).double().mean())


def _look(logits: Logits, x: Tensor, targets: Tensor, *, climb: bool) -> tuple[Tensor, Tensor, Tensor]:
    """`gradient` or, unless it is asked for, zeros; what the loss grows with ``(B,)``; who is misclassified ``(B,)``."""
    if not climb:
        with torch.no_grad():
            return torch.zeros_like(x), *_loss(logits, x, targets)
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        loss, fooled = _loss(logits, x, targets)
        if not loss.requires_grad:
            raise ValueError(
                "logits have no gradient with respect to pixels: give a function of floats without no_grad or rounding, "
                "from_pixels(model, mean, std) for one."
            )
        (slope,) = torch.autograd.grad(loss.sum(), x)
    return slope, loss.detach(), fooled


def _loss(logits: Logits, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """What the loss grows with, see `gradient`, and whether a sample is misclassified, both ``(B,)``."""
    outputs = logits(x)
    require_logits(outputs)
    require_labels(targets, outputs.shape[1], len(outputs))
    outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    true = F.one_hot(targets, outputs.shape[1]).bool()
    margin = outputs.masked_fill(true, -torch.inf).logsumexp(dim=1) - outputs[true]
    return margin, outputs.argmax(dim=1) != targets


def _drawn(x: Tensor, seed: int, index: Tensor | None, stream: int) -> Tensor:
    """Uniform numbers in [0, 1) in the shape of `x`."""
    index = torch.arange(len(x)) if index is None else index.cpu()
    if index.shape != (len(x),):
        raise ValueError(f"index has the shape {tuple(index.shape)} for {len(x)} images: give one position an image.")
    return keyed.uniform(keyed.mix(seed, index), stream, x[0].numel()).view(x.shape).to(x)


def require_budget(eps: float) -> None:
    """Refuse what is no change of a pixel in [0, 1]."""
    if not 0 <= eps <= 1:
        raise ValueError(f"eps={eps}: give the most that a pixel in [0, 1] may change, from 0 to 1, such as 8/255.")


def _require_pixels(x: Tensor, eps: float) -> None:
    if not x.is_floating_point() or x.ndim != 4 or x.numel() == 0:
        raise ValueError(f"pixels are {x.dtype} {tuple(x.shape)}: give floats of (B, C, H, W), none of them 0: images / 255.")
    require_budget(eps)
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"pixels go from {low:.3g} to {high:.3g}: give them in [0, 1], before they are normalised.")


def _apart(a: Tensor, b: Tensor) -> bool:
    """Whether logits differ by more than rounding on the way to them explains."""
    coarser = max(torch.finfo(a.dtype).eps, torch.finfo(b.dtype).eps)
    scale = max(1.0, float(a.abs().max()))
    return float((a.double() - b.double()).abs().max()) > scale * coarser**0.5
