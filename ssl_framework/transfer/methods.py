"""What a study compares: floors, an encoder trained from scratch, and the pretrained one used in several ways."""

from typing import Literal, NamedTuple

from ssl_framework.downstream import Full, LastN, Lora, Policy

Start = Literal["pretrained", "fresh", "pixels", "pca"]


class Method(NamedTuple):
    """A row of the table.

    Attributes:
        start: the encoder that it begins with.
        policy: what of it learns, with a head; None: nothing does, and a logistic regression reads its vectors.
        from_probe: the head begins as that logistic regression.
    """

    start: Start
    policy: Policy | None
    from_probe: bool = False

    @property
    def transfers(self) -> bool:
        """Whether pretraining had a part in it."""
        return self.start == "pretrained"


METHODS: dict[str, Method] = {
    "scratch": Method("fresh", Full()),
    "random_frozen": Method("fresh", None),
    "raw_pixels": Method("pixels", None),
    "pca": Method("pca", None),
    "frozen": Method("pretrained", None),
    "last_n": Method("pretrained", LastN(n=1)),
    "lp_ft": Method("pretrained", Full(), from_probe=True),  # Kumar et al., 2022, https://arxiv.org/abs/2202.10054
    "full": Method("pretrained", Full()),
    "lora": Method("pretrained", Lora()),
}
