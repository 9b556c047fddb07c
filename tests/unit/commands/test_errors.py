"""Which errors are a user's mistake."""

from pathlib import Path

import pytest
import torch
from hydra.errors import InstantiationException
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from ssl_framework import cli, machine
from ssl_framework.commands import build, errors
from ssl_framework.run import trainer


def raised_by(work: object) -> BaseException:
    assert callable(work)
    with pytest.raises(Exception) as caught:
        work()
    return caught.value


def test_what_our_code_refuses_is_a_sentence() -> None:
    assert "Give a positive number" in (errors.sentence(raised_by(lambda: trainer(steps=0))) or "")


def test_a_value_error_from_elsewhere_is_a_crash() -> None:
    assert errors.sentence(raised_by(lambda: torch.zeros(2).view(3))) is None
    assert errors.sentence(raised_by(lambda: int("x"))) is None


def test_a_path_that_is_not_there_is_named() -> None:
    assert errors.sentence(raised_by(lambda: Path("no/such").read_text())) == "no/such: no such file or directory."


def test_a_mistake_that_a_worker_found_is_a_sentence() -> None:
    text = "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    text += (
        '  File "/x/ssl_framework/data/labelled.py", line 3, in images\n    raise\nValueError: 3 of 90 samples cannot be read.'
    )
    assert errors.sentence(ValueError(text)) == "3 of 90 samples cannot be read."
    assert errors.sentence(ValueError(text.replace("ssl_framework/data", "torch/data"))) is None


def test_wrapped_errors_are_unwrapped() -> None:
    inner = raised_by(lambda: trainer(steps=0))
    outer = InstantiationException("Error in call to target")
    outer.__cause__ = inner
    assert errors.sentence(outer) == str(inner)


def test_lightning_says_what_the_machine_has_not() -> None:
    assert errors.sentence(MisconfigurationException("No GPU here.")) == "No GPU here."


def test_a_crash_keeps_its_traceback_and_exits_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(cli.launch, "launch", broken)
    assert cli.run(["pretrain"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_exits_with_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise errors.StoppedError("kept it")

    monkeypatch.setattr(cli.launch, "launch", stopped)
    assert cli.run(["pretrain"]) == 130
    assert capsys.readouterr().err == "kept it\n"


@pytest.mark.parametrize(("asked", "said"), [("16-mixed", "needs a CUDA GPU"), ("bf61-mixed", "Did you mean bf16-mixed?")])
def test_a_precision_that_cannot_be_is_refused(asked: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        build.precision({"precision": asked}, "cpu")
    assert build.precision({"precision": 32}, "cpu") == "32-true"


def test_the_machine_decides_a_precision_left_to_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(machine, "precision", lambda device: machine.Precision("bf16-mixed", f"the {device} says so"))
    monkeypatch.setattr(machine, "keep_freed_memory", lambda: kept.append(True) or True)
    settings = {"precision": "auto", "keep_freed_memory": True}
    assert build.on_this_machine(settings, "cpu")["precision"] == "bf16-mixed"
    said = capsys.readouterr().out
    assert "bf16-mixed (the cpu says so; precision=32 turns it off)" in said
    assert "freed memory is kept" in said
    settings = {"precision": "32", "keep_freed_memory": False}
    assert build.on_this_machine(settings, "cpu")["precision"] == "32"
    assert kept == [True]
    assert "freed" not in capsys.readouterr().out


def test_tf32_is_for_gpus_and_stays_tf32_in_the_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"precision": "tf32", "keep_freed_memory": False}
    with pytest.raises(ValueError, match="precision=tf32 needs a CUDA GPU"):
        build.on_this_machine(settings, "cpu")
    asked: list[str] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert build.on_this_machine(settings, "gpu")["precision"] == "tf32"
    assert asked == ["high"]
    assert "32-true with tf32 matrix products" in capsys.readouterr().out
