"""What a page is made of: plain data, as it can come from JSON. A number that is not known is null, never NaN."""

from typing import Literal, NotRequired, TypedDict

Budget = int | str
Image = int | str  # a place in the sprite of thumbnails, or a data URI
Answer = Literal["pays", "no evidence", "hurts", "not judged"]


class Verdict(TypedDict):
    """Whether pretraining paid at one budget.

    Attributes:
        budget: labels per class, or "all".
        labels: how many labels that is in all.
        verdict: "pays", "no evidence", "hurts", or "not judged" with fewer seeds than that takes.
        method: what was chosen on the validation split, and judged on the test split.
        gain: over scratch with the same labels, in [-1, 1]: mean, low and high end of the 95 % interval.
        p_holm: p-value of the verdict, after Holm's correction over all that was asked.
        sentence: the same in lay English.
        rival: something simple, without pretraining, that the method is not shown to beat, though it beats scratch.
    """

    budget: Budget
    labels: int
    verdict: Answer
    method: str
    gain: tuple[float, float | None, float | None]
    p_holm: float | None
    sentence: str
    rival: NotRequired[str | None]


class Ratio(TypedDict):
    """A factor and its interval; `censored` says that the truth lies "above" or "below" `value`, out of what was measured."""

    value: float
    low: NotRequired[float | None]
    high: NotRequired[float | None]
    censored: NotRequired[Literal["above", "below"] | None]


class Worth(TypedDict):
    """How many times as many labels scratch needs for what pretraining reaches with `labels`."""

    labels: int
    ratio: Ratio
    sentence: NotRequired[str]


class Speed(TypedDict):
    """How many times as many steps and seconds scratch takes to its own best accuracy; null where it was not reached."""

    budget: Budget
    steps_ratio: float | None
    seconds_ratio: NotRequired[float | None]
    sentence: NotRequired[str]


class Recipe(TypedDict, total=False):
    """What a row was made with."""

    config_hash: str
    code: str
    data_fingerprint: str


class Row(TypedDict):
    """One run: one method, budget and seed; or, with `na`, why there is none.

    Attributes:
        method: name of the policy, or of a floor.
        budget: labels per class, or "all".
        labels: in all.
        seed: of the run.
        accuracy: on the test split, in [0, 1].
        seconds: of training phase 2.
        steps: of training phase 2.
        rate: learning rate.
        penalty: of a logistic regression.
        stale: made with other code, data, encoder or configuration than there are now.
        na: why it was not measured.
        recipe: what it was made with.
        command: that makes it again.
    """

    method: str
    budget: Budget
    labels: NotRequired[int]
    seed: NotRequired[int]
    accuracy: NotRequired[float]
    seconds: NotRequired[float | None]
    steps: NotRequired[int | None]
    rate: NotRequired[float | None]
    penalty: NotRequired[float | None]
    stale: NotRequired[bool]
    na: NotRequired[str | None]
    recipe: NotRequired[Recipe | None]
    command: NotRequired[str | None]


class Depth(TypedDict):
    """Score of a probe on each layer, what a layer must reach, and the layer that was kept (from 0)."""

    mean: list[float]
    standard_error: list[float]
    bar: float
    chosen: int
    measure: str


class Robustness(TypedDict, total=False):
    """One method on harder inputs: accuracies in [0, 1].

    Attributes:
        clean: on the test split as it is.
        corruptions: for each corruption, at severities 1 to 5.
        fgsm: by size of a one-step attack.
        pgd: by size of a many-step attack.
        noise: by size of random signs, beside which an attack of that size is one.
        label_noise: by share of training labels that were wrong.
        ece: expected calibration error, in [0, 1].
        ood_auroc: area under the curve that tells known from unknown kinds of images.
        gradient_share: of images whose gradient did not vanish; with few, attacks understate.
    """

    clean: float
    corruptions: dict[str, list[float]]
    fgsm: dict[float, float]
    pgd: dict[float, float]
    noise: dict[float, float]
    label_noise: dict[float, float]
    ece: float | None
    ood_auroc: float | None
    gradient_share: float | None


class Thumbnails(TypedDict):
    """A sprite: `data` a PNG as data URI, `columns` thumbnails a line, each `size` pixels wide and high."""

    data: str
    columns: int
    size: int


class Map(TypedDict):
    """Embeddings in the plane: x, y, class and thumbnail (or null) of each."""

    points: list[tuple[float, float, int, int | None]]
    classes: list[str]
    thumbnails: NotRequired[Thumbnails | None]


class Neighbours(TypedDict):
    """An image and the images whose embeddings are nearest, and whether each has its class."""

    query: Image
    answers: list[Image]
    right: list[bool]


class Picture(TypedDict):
    """An image with its caption."""

    image: Image
    caption: str


class Sample(TypedDict):
    """An image and the views that were made of it."""

    original: Image
    views: list[Image]


class Study(TypedDict):
    """A whole study; see `write_page`."""

    title: str
    sentence: str
    verdicts: list[Verdict]
    rows: list[Row]
    scratch: NotRequired[str]
    label_efficiency: NotRequired[list[Worth]]
    speed: NotRequired[list[Speed]]
    pays_after_tasks: NotRequired[int | None]
    pretrain_seconds: NotRequired[float | None]
    depth: NotRequired[Depth]
    robustness: NotRequired[dict[str, Robustness]]
    robustness_note: NotRequired[str]
    more_rows: NotRequired[list[Row]]
    map: NotRequired[Map]
    neighbours: NotRequired[list[Neighbours]]
    attention: NotRequired[list[Picture]]
    training: NotRequired[dict[str, list[tuple[float, float]]]]
    views: NotRequired[list[Sample]]
    environment: NotRequired[dict[str, str | float | bool | None]]
    commands: NotRequired[list[str]]
    limits: NotRequired[list[str]]


def scratch(study: Study) -> str:
    """Name of the method that learns without pretraining."""
    return study.get("scratch", "scratch")
