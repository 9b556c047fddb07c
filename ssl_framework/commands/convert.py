"""``ssl-framework convert``: weights of another library as an encoder file, strictly."""

from pathlib import Path
from typing import Any

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ssl_framework import reading
from ssl_framework.checkpoint import save_encoder
from ssl_framework.commands import build, folder
from ssl_framework.commands.compose import Settings
from ssl_framework.commands.console import say
from ssl_framework.encoders import EncoderModule


def run(settings: Settings) -> dict[str, Any]:
    """Build the encoder with its weights and write it.

    Args:
        settings: of `compose("convert", ...)`.

    Returns:
        ``run``, the folder with ``encoder.yaml``; ``preprocessing``.

    Raises:
        ValueError: no weights were named, or they do not fit; nothing was written.
    """
    node, channels = settings["encoder"], settings["channels"]
    if not node.get("weights") and not node.get("pretrained"):
        raise ValueError(
            "convert needs weights: give encoder.weights=FILE, or encoder.pretrained=true, which downloads timm's."
        )
    preprocessing = {**_normalisation(settings), "size": list(settings["size"]), "channels": channels}
    known = {"in_chans": channels, "img_size": list(settings["size"])}
    made: EncoderModule = build.make({**node, **{key: value for key, value in known.items() if key in node}})
    home = folder.begin(settings)
    source = node.get("weights") or f"timm's {node['name']}"
    history = {"converted_from": source}
    save_encoder(made, home, preprocessing=preprocessing, history=history)
    numbers = sum(parameter.numel() for parameter in made.parameters())
    say(f"{source}: {len(made.state_dict())} tensors, {numbers / 1e6:.1f} M parameters, all in their places.")
    say(f"images of {' x '.join(map(str, preprocessing['size']))}, mean {preprocessing['mean']}, std {preprocessing['std']}")
    say(f"{home / 'encoder.yaml'}: use it with encoder_file={home}")
    return {"run": str(home), "preprocessing": preprocessing}


def _normalisation(settings: Settings) -> dict[str, list[float]]:
    """Mean and deviation as given, else as timm's own weights or the Hugging Face directory have them, else ImageNet's.

    A name says nothing of other weights: timm's ViT of this name was trained with 0.5, and MAE's with ImageNet's.
    """
    node, default = settings["encoder"], {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}
    beside = Path(str(node.get("weights"))) / "preprocessor_config.json"
    if node.get("pretrained") and not node.get("weights"):
        known = timm.get_pretrained_cfg(str(node["name"]), allow_unregistered=True)
        default = default if known is None else {"mean": known.mean, "std": known.std}
    elif beside.is_file():
        written = reading.json_of(beside, dict[str, Any])
        default = {name: _numbers(written.get(f"image_{name}", value), beside) for name, value in default.items()}
    elif settings["mean"] is None or settings["std"] is None:
        say("nothing says how images were normalised for these weights: ImageNet's are taken; else give mean= and std=")
    found: dict[str, list[float]] = {}
    for name, value in default.items():
        numbers = [float(one) for one in (settings[name] or value)]
        if len(numbers) != settings["channels"]:
            raise ValueError(f"{name}={numbers}: give one number for each of the {settings['channels']} channels.")
        found[name] = numbers
    return found


def _numbers(values: Any, source: Path) -> list[float]:
    if not isinstance(values, list | tuple) or not all(type(one) in (int, float) for one in values):
        raise ValueError(f"{source} says {str(values)[:80]!r} where one number a channel belongs: give mean= and std=.")
    return list(values)
