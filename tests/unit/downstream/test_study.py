import logging

from ssl_framework.downstream import Classification, Full, fit_and_measure
from ssl_framework.optim import adamw

from .conftest import PREPROCESSING, make_split


def _row(encoder, seed):
    return fit_and_measure(
        encoder,
        make_split(30).subset(3, seed),
        make_split(15, name="test", seed=3),
        task=Classification(3),
        freezing=Full(),
        optimizer=adamw(lr=3e-3, scale_lr="none"),
        preprocessing=PREPROCESSING,
        method="fine-tuned",
        budget=3,
        seed=seed,
        steps=5,
    )


def test_a_cell_is_reproducible_quiet_and_leaves_no_files(encoder, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    level = logging.getLogger("pytorch_lightning").level
    first, again, other = _row(encoder, 0), _row(encoder, 0), _row(encoder, 1)
    plain = {"method": "fine-tuned", "classifier": "trained", "budget": 3, "seed": 0, "penalty": None}
    assert {key: first[key] for key in plain} == plain
    assert {type(value) for value in first.values()} <= {str, int, float, type(None)}
    assert first["loss"] == again["loss"] != other["loss"]
    assert not list(tmp_path.iterdir())
    assert logging.getLogger("pytorch_lightning").level == level
    assert "".join(capfd.readouterr()) == ""
