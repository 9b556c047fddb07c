"""The weights of the best validation are put back, and a run that gets no better ends."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from ssl_framework import run
from ssl_framework.downstream import Full, KeepBest, LabelledData

from .conftest import make_module, make_split

SCORES = [0.2, 0.5, 0.9, 0.4, 0.9, 0.1]


class Scores(pl.Callback):
    """Validation says what a list says."""

    def __init__(self, scores: list[float]) -> None:
        self.scores, self.seen = list(scores), dict[int, torch.Tensor]()

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("told", self.scores.pop(0))
        self.seen[trainer.global_step] = pl_module.head.task.linear.weight.detach().clone()


def fit(encoder: Any, scores: Scores, best: KeepBest, steps: int = 12):
    module = make_module(encoder, freezing=Full())
    data = LabelledData(make_split(24), make_split(12, name="val", seed=1), make_split(12, name="test", seed=2), batch_size=8)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = run.trainer(steps=steps, data=data, val_every=2, callbacks=[scores, best], **quiet)
    trainer.fit(module, datamodule=data)
    return trainer, module


def test_the_first_of_the_best_is_put_back(encoder):
    scores, best = Scores(SCORES), KeepBest("told", "max")
    trainer, module = fit(encoder, scores, best)
    assert trainer.global_step == 12
    assert best.best_step == 6
    assert torch.equal(module.head.task.linear.weight, scores.seen[6])
    assert not torch.equal(scores.seen[6], scores.seen[12])


def test_small_can_be_good(encoder):
    best = KeepBest("told", "min")
    fit(encoder, Scores(SCORES), best)
    assert best.best_step == 12


def test_statistics_of_batch_norm_go_with_the_weights(encoder):
    best = KeepBest("told", "max")
    _, module = fit(encoder, Scores(SCORES), best)
    name = next(name for name in best.best if name.endswith("running_mean"))
    assert torch.equal(module.state_dict()[name], best.best[name])


def test_training_ends_when_it_gets_no_better(encoder):
    scores = Scores(SCORES)
    trainer, module = fit(encoder, scores, KeepBest("told", "max", patience=1))
    assert trainer.global_step == 8  # 0.4 after 0.9
    assert torch.equal(module.head.task.linear.weight, scores.seen[6])


def test_the_best_weights_survive_a_stop(encoder):
    best, again = KeepBest("told", "max"), KeepBest("told", "max")
    fit(encoder, Scores(SCORES), best, steps=8)
    again.load_state_dict(best.state_dict())
    assert again.best_step == 6
    assert all(torch.equal(again.best[name], value) for name, value in best.best.items())
    assert float(again.best_score) == pytest.approx(0.9)


@pytest.mark.filterwarnings("ignore:Total length of `list`")
def test_a_training_that_ends_before_its_first_validation_is_refused(encoder):
    module = make_module(encoder)
    data = LabelledData(make_split(24), make_split(12, name="val", seed=1), batch_size=8)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    for val, options in ((data, {"val_every": 50}), (LabelledData(make_split(24), batch_size=8), {"val_every": 2})):
        trainer = run.trainer(steps=5, data=val, callbacks=[KeepBest("val/accuracy", "max")], **options, **quiet)
        with pytest.raises(ValueError, match="choose=best takes the weights of the best validation, and there would be none"):
            trainer.fit(module, datamodule=val)


def test_a_patience_of_nothing_is_refused():
    with pytest.raises(ValueError, match="patience=0"):
        KeepBest("val/accuracy", "max", 0)


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        ([float("nan")] * 6, "was not finite at any of 6 validations"),
        ([0.3] * 6, "was 0.3 at each of 6 validations"),
    ],
    ids=["never finite", "constant"],
)
def test_a_measure_that_never_gets_better_is_an_error(encoder, scores: list[float], why: str, monkeypatch):
    monkeypatch.setattr("ssl_framework.downstream.best._MANY", 6)  # the loss of these six changes
    monkeypatch.setattr("ssl_framework.downstream.best._FALLS", 1.0)  # and falls, which would say that something is learnt
    with pytest.raises(ValueError, match=why):
        fit(encoder, Scores(scores), KeepBest("told", "max"))


@pytest.mark.parametrize(
    "scores",
    [[0.3] * 6, [1.0] * 6, [float("nan"), *SCORES[1:]], [0.3] * 5 + [0.2]],
    ids=["constant but few, and the loss falls", "constant and perfect", "once not finite", "constant until it gets worse"],
)
def test_a_measure_that_can_choose_is_none(encoder, scores: list[float]):
    fit(encoder, Scores(scores), KeepBest("told", "max"))


def heard(losses: list[float]) -> KeepBest:
    best = KeepBest("told", "max")
    for loss in losses:
        best._said.hear(0.95, loss)
    return best


def test_a_plateau_on_which_the_loss_falls_is_told_of_and_loses_no_training():
    with pytest.warns(UserWarning, match=r"told was 0\.95 at each of 10 validations, while val/loss fell from 2 to 1\.1"):
        heard([2 - 0.1 * k for k in range(10)])._require_choice()
    with pytest.raises(ValueError, match=r"was 0\.95 at each of 10 validations"):
        heard([2 + 0.1 * k for k in range(10)])._require_choice()
    with pytest.raises(ValueError, match=r"was 0\.95 at each of 10 validations"):
        heard([-1 + 0.1 * k for k in range(10)])._require_choice()


def test_a_loss_that_was_infinite_at_first_falls():
    with pytest.warns(UserWarning, match="while val/loss fell from inf to 1"):
        heard([float("inf"), *(2 - 0.1 * k for k in range(11))])._require_choice()


def test_three_equal_validations_are_enough_where_the_loss_stands_too():
    best = KeepBest("told", "max")
    for _ in range(3):
        best._said.hear(0.3, 2.0)
    with pytest.raises(ValueError, match=r"was 0\.3 at each of 3 validations"):
        best._require_choice()


def test_a_measure_that_is_not_logged_is_an_error_that_names_those_that_are(encoder):
    with pytest.raises(ValueError, match=r"val/acuracy, and validation after step 2 did not log it: there is .*val/accuracy"):
        fit(encoder, Scores(SCORES), KeepBest("val/acuracy", "max"))


def test_nothing_is_chosen_on_the_test_set():
    with pytest.raises(ValueError, match="would choose on the test set"):
        KeepBest("test/accuracy", "max")


def test_what_validations_said_survives_a_stop(encoder):
    best, again = KeepBest("told", "max"), KeepBest("told", "max")
    fit(encoder, Scores(SCORES), best, steps=8)
    again.load_state_dict(best.state_dict())
    assert again._said == best._said
    assert (again._said.count, again._said.constant) == (4, False)
