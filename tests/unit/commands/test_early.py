"""What the early look lets pass: all that our own configuration chooses, and classes of users."""

import functools
from typing import TYPE_CHECKING, Any

import pytest

from ssl_framework import hints
from ssl_framework.commands import compose, early
from ssl_framework.paths import conf_dir

if TYPE_CHECKING:
    from somewhere import Elsewhere


class Own:
    """A class of a user's, one of whose annotations nobody can resolve when it runs."""

    def __init__(self, other: "Elsewhere | None" = None, count: int = 1) -> None:
        self.other, self.count = other, count


partly: Any = functools.partial(Own, None)


def node(target: str, **more: Any) -> dict[str, Any]:
    return compose.compose("pretrain", []) | {"own": {"_target_": f"{__name__}.{target}", **more}}


@pytest.mark.parametrize("group", ["logger", "monitors", "trainer", "optimizer", "debug", "data", "pretext", "encoder"])
def test_every_choice_of_ours_passes(group: str) -> None:
    for file in sorted((conf_dir() / group).glob("*.yaml")):
        here = ["trainer.accelerator=cpu", "trainer.devices=1"]  # whatever the machine has
        colours = [] if group == "data" else ["data=cifar10"]
        early.check(compose.compose("pretrain", [*colours, f"{group}={file.stem}", *here]))


@pytest.mark.parametrize("target", ["Own", "partly"])
def test_annotations_that_cannot_be_resolved_are_not_judged(target: str) -> None:
    early.check(node(target, other="anything", count=2))
    with pytest.raises(ValueError, match=r"own\.count=many: must be a whole number"):
        early.check(node(target, count="many"))


def test_what_is_not_taken_is_refused_with_what_is_near() -> None:
    with pytest.raises(ValueError, match=r"own\.cuont=3: .*test_early\.Own takes no cuont\. Did you mean count\?"):
        early.check(node("Own", cuont=3))
    with pytest.raises(ValueError, match=r"data\.name=x: ssl_framework\.data\.digits takes no name"):
        early.check(compose.compose("pretrain", ["+data.name=x"]))


def typed(first: list[Any], *, pairs: dict[str, Any] | None = None, **counts: int) -> None:
    """Takes any further key."""


def test_anything_is_taken_where_an_annotation_says_so() -> None:
    early.check(node("typed", first=[1, "a"], pairs={"a": 1}, more=2))
    assert hints.takes(typed) is None
    assert hints.fits([1, "a"], list[Any], strict=True)
    assert hints.fits({"a": 1}, dict[str, Any], strict=True)
    assert not hints.fits({1: 1}, dict[str, Any], strict=True)


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (list[int], "a list of whole numbers"),
        (tuple[int, int], "a list of whole numbers, 2 of them"),
        (tuple[list[int], list[int]], "a list, 2 of them, each a list of whole numbers"),
        (list[int | str], "a list, each a whole number or a word"),
        (tuple[int, str], "a list of a whole number, a word"),
        (list[Any], "a list"),
    ],
)
def test_annotations_in_words(hint: Any, words: str) -> None:
    assert hints.said(hint) == words


def test_a_callable_without_a_signature_is_not_judged() -> None:
    early.check(compose.compose("pretrain", []) | {"own": {"_target_": "builtins.dict", "count": 2}})


def test_only_the_first_process_of_a_host_builds_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    monkeypatch.setattr(early, "_check_pretext", lambda _: built.append("task"))
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        early.check(compose.compose("pretrain", ["data=cifar10"]))
    assert built == ["task"]
