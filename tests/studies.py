"""Studies that nobody ran, for tests of the page: plausible numbers by formula, real images of digits."""

import math
from typing import Any

import torch
from torch import Tensor

from ssl_framework import keyed
from ssl_framework.data import digits
from ssl_framework.report import picture, sprite

METHODS = (
    "scratch",
    "frozen linear",
    "fine-tune",
    "gradual unfreeze",
    "low-rank",
    "partial",
    "random encoder",
    "raw pixels, kNN",
)
BUDGETS = (1, 4, 10, "all")
LABELS = {1: 10, 4: 40, 10: 100, "all": 1150}
_LEAD = {"scratch": 0, "frozen linear": 0.24, "fine-tune": 0.27, "gradual unfreeze": 0.25, "low-rank": 0.22, "partial": 0.2}
CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow", "frost",
    "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip


def noise(*parts: int) -> float:
    return float(keyed.uniform(keyed.mix(*parts)[None], 0, 1)) - 0.5


def accuracy(method: str, budget: int | str, seed: int) -> float:
    share = math.log10(LABELS[budget]) / math.log10(1150)
    base = 0.28 + 0.68 * share**1.6
    lead = _LEAD.get(method, 0.04) * (1.15 - share) * 1.4 if method != "raw pixels, kNN" else 0.1 - 0.22 * share
    spread = 0.1 * (1.2 - share)
    return min(0.995, max(0.05, base + lead + spread * noise(METHODS.index(method), LABELS[budget], seed)))


def rows(seeds: int = 5) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for method in METHODS:
        for budget in BUDGETS:
            if method == "partial" and budget == 1:
                found.append({"method": method, "budget": budget, "na": "fewer labels than the layers that would learn"})
                continue
            found += [
                {
                    "method": method,
                    "budget": budget,
                    "labels": LABELS[budget],
                    "seed": seed,
                    "accuracy": accuracy(method, budget, seed),
                    "seconds": 12.5 + seed,
                    "steps": 400,
                    "rate": 1e-3,
                    "stale": method == "low-rank" and budget == 4,
                    "recipe": {"config_hash": "3f9a01c2", "code": "0.6.0", "data_fingerprint": "digits-77ab"},
                    "command": f"ssl-framework downstream freezing={method.replace(' ', '_')} data.budget={budget} seed={seed}",
                }
                for seed in range(seeds)
            ]
    return found


def images(most: int = 1000) -> tuple[Tensor, Tensor]:
    """``(N, 1, 8, 8)`` uint8 digits and ``(N,)`` targets."""
    data = digits()
    data.setup("fit")
    source = data.train
    indices = torch.arange(min(most, len(source)))
    return torch.stack([source.read(n) for n in range(len(indices))]), torch.from_numpy(source.targets)[indices]


def nearest(pictures: Tensor, most: int = 6) -> Tensor:
    """``(N, most)`` nearest other images, by pixels."""
    flat = pictures.flatten(1).double()
    return torch.cdist(flat, flat).fill_diagonal_(math.inf).argsort(dim=1)[:, :most]


def study(seeds: int = 5, points: int = 1000) -> dict[str, Any]:
    pictures, targets = images(points)
    thumbnails = sprite(pictures)._asdict()
    spread = keyed.normal(keyed.mix(7, torch.arange(len(pictures))), 0, 2)
    angle = 2 * math.pi * targets / 10
    plane = torch.stack([5 * angle.cos(), 4 * angle.sin()], 1) + 0.75 * spread
    verdict_words = {
        1: ("pays", "With 10 labels, pretraining gives 28 more right answers in 100."),
        4: ("pays", "With 40 labels, pretraining clearly helps."),
        10: ("pays", "With 100 labels, pretraining still helps."),
        "all": ("no evidence", "With all labels, we cannot tell the two apart."),
    }
    gains = {1: (0.281, 0.214, 0.348), 4: (0.174, 0.121, 0.227), 10: (0.117, 0.071, 0.163), "all": (0.011, -0.012, 0.034)}
    robust = {
        method: {
            "clean": clean,
            "corruptions": {
                name: [
                    max(0.1, clean - (0.03 + 0.03 * m * (name == "fog") + 0.09 * abs(noise(1, c, m))) * s * (1 + c % 3) / 2)
                    for s in range(1, 6)
                ]
                for c, name in enumerate(CORRUPTIONS)
            },
            "fgsm": {"0": clean, "0.01": clean - 0.08, "0.03": clean - 0.2 - 0.1 * m, "0.1": clean - 0.5},
            "pgd": {"0": clean, "0.01": clean - 0.12, "0.03": clean - 0.35, "0.1": 0.05},
            "noise": {"0": clean, "0.1": clean - 0.05, "0.2": clean - 0.14 + 0.03 * m, "0.4": clean - 0.33},
            "label_noise": {"0": clean, "0.2": clean - 0.1 + 0.04 * m, "0.4": clean - 0.24 + 0.08 * m},
            "ece": 0.07 + 0.01 * m,
            "ood_auroc": 0.81 + 0.04 * m,
        }
        for m, (method, clean) in enumerate((("scratch", 0.71), ("frozen linear", 0.83), ("fine-tune", 0.86)))
    }
    steps = range(0, 4000, 5)
    return {
        "title": "Handwritten digits, SimCLR on a micro ResNet",
        "sentence": "Yes, pretraining pays while labels are few: with 100 labels or fewer it is clearly more accurate.",
        "verdicts": [
            {
                "budget": budget,
                "labels": LABELS[budget],
                "verdict": verdict_words[budget][0],
                "method": "fine-tune",
                "gain": list(gains[budget]),
                "p_holm": {1: 0.0004, 4: 0.003, 10: 0.012, "all": 0.31}[budget],
                "sentence": verdict_words[budget][1],
            }
            for budget in BUDGETS
        ],
        "rows": rows(seeds),
        "label_efficiency": [
            {"labels": 10, "ratio": {"value": 5.3, "low": 3.9, "high": 7.1, "censored": None}, "sentence": ""},
            {"labels": 40, "ratio": {"value": 3.2, "low": 2.4, "high": 4.4, "censored": None}, "sentence": ""},
            {"labels": 100, "ratio": {"value": 11.5, "low": None, "high": None, "censored": "above"}, "sentence": ""},
        ],
        "speed": [
            {"budget": 1, "steps_ratio": 6.1, "seconds_ratio": 5.4, "sentence": "Six times fewer steps."},
            {"budget": 10, "steps_ratio": 2.2, "seconds_ratio": 2.0, "sentence": "Half the steps."},
            {"budget": "all", "steps_ratio": None, "seconds_ratio": None, "sentence": "Scratch's best was not reached."},
        ],
        "pays_after_tasks": 4,
        "pretrain_seconds": 187.0,
        "depth": {
            "mean": [0.61, 0.78, 0.875, 0.91, 0.905, 0.87],
            "standard_error": [0.02, 0.015, 0.012, 0.01, 0.011, 0.014],
            "bar": 0.9,
            "chosen": 3,
            "measure": "accuracy",
        },
        "robustness": robust,
        "map": {
            "points": [
                [round(float(x), 3), round(float(y), 3), int(kind), i]
                for i, ((x, y), kind) in enumerate(zip(plane, targets, strict=True))
            ],
            "classes": [str(n) for n in range(10)],
            "thumbnails": thumbnails,
        },
        "neighbours": [
            {"query": q, "answers": near, "right": [bool(targets[n] == targets[q]) for n in near]}
            for q, near in enumerate(nearest(pictures)[:5].tolist())
        ],
        "attention": [{"image": picture(pictures[n]), "caption": f"head {n + 1} of 4"} for n in range(4)],
        "training": {
            "train/loss": [[s, 4.2 * math.exp(-s / 1200) + 1.1 + 0.2 * noise(3, s)] for s in steps],
            "knn/accuracy": [[s, 0.95 - 0.7 * math.exp(-s / 900)] for s in range(0, 4000, 250)],
            "collapse/effective_rank": [[s, 5 + 40 * (1 - math.exp(-s / 700))] for s in range(0, 4000, 100)],
        },
        "views": [
            {"original": n, "views": [picture(view) for view in (image.flip(-1), image.roll(1, -1), image.roll(-2, -2))]}
            for n, image in enumerate(pictures[:4])
        ],
        "environment": {"python": "3.11.7", "torch": "2.14.0", "machine": "2 CPU cores", "commit": "b7dd388", "seeds": seeds},
        "commands": [
            "ssl-framework pretrain pretext=simclr data=digits encoder=resnet_micro seed=0",
            "ssl-framework transfer encoder=runs/pretrain/encoder.safetensors data=digits budgets=[1,4,10,all] seeds=5",
        ],
        "limits": [
            "One data set: what holds for digits of 8 x 8 pixels may not hold for photographs.",
            "One pretraining run: its own luck is not part of the intervals.",
            "Scratch got the same search over learning rates, but no longer training.",
        ],
    }  # fmt: skip
