"""What the verbs hand to the evaluation."""

import pytest

from ssl_framework import machine
from ssl_framework.checkpoint import save_encoder
from ssl_framework.commands import compose, embed, evaluate
from ssl_framework.encoders import resnet_micro

NORMAL = {"size": [8, 8], "mean": [0.5], "std": [0.25], "channels": 1}


@pytest.fixture
def words(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "keep_freed_memory", lambda: False)  # of the tests' own process
    save_encoder(resnet_micro(in_chans=1, img_size=8), tmp_path / "run", preprocessing=NORMAL, history={})
    return [f"encoder_file={tmp_path / 'run'}", "debug=short"]


@pytest.mark.parametrize(("verb", "command", "inner"), [("evaluate", evaluate, "study"), ("embed", embed, "embed")])
@pytest.mark.parametrize(
    ("said", "asked"), [(["precision=32"], "32-true"), (["precision=bf16-mixed"], "bf16-mixed"), ([], None)]
)
def test_the_precision_that_was_asked_for_is_taken(tmp_path, monkeypatch, words, verb, command, inner, said, asked):
    given = []

    class Enough(Exception):  # noqa: N818
        pass

    def noted(*args, precision, **options):
        given.append(precision)
        raise Enough

    monkeypatch.setattr(command, inner, noted)
    with pytest.raises(Enough):
        command.run(compose.compose(verb, [*words, *said], folder=str(tmp_path / "here")))
    assert given == [asked or machine.precision("cpu").name]
