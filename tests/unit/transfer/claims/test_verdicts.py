import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ssl_framework.transfer.claims import FEWEST, TRANSFER, Measured, Verdict, adjusted, flip, headline, holm, verdicts
from ssl_framework.transfer.claims.verdicts import comparisons

RANK = {"hurts": 0, "not judged": 1, "no evidence": 1, "pays": 2}
SPREAD = np.array([-2, -1, 0, 1, 2]) / 200


def rows(method, budget, values, **more):
    return [{"method": method, "budget": budget, "seed": seed, "accuracy": float(v), **more} for seed, v in enumerate(values)]


def study(gains, method="frozen"):
    """Scratch at one half, and a method that gains so much, give or take a point, at each budget."""
    found = []
    for budget, more in gains.items():
        found += rows("scratch", budget, [0.5] * 5) + rows(method, budget, 0.5 + more + SPREAD)
    return found


def words(rows, **more):
    return [one.word for one in verdicts(rows, **more)]


def test_each_budget_has_its_verdict_in_order():
    found = verdicts(study({"all": -0.2, 1: 0.2, 250: 0.001}))
    assert [(one.budget, one.word, one.method, one.seeds) for one in found] == [
        (1, "pays", "frozen", 5),
        (250, "no evidence", "frozen", 5),
        ("all", "hurts", "frozen", 5),
    ]
    assert found[0].reason.startswith("frozen gains +20.0 points (+19.0 to +21.0) over scratch, corrected p = ")


def test_one_method_at_one_budget_is_the_two_sided_t_test():
    """t = 0.9 / 1 * sqrt(5) / sd; the verdict turns where scipy's p crosses 5 %."""
    for more in (0.0097, 0.0099):  # 2.776 standard errors are 0.00982
        (found,) = verdicts(study({1: more}))
        p = stats.ttest_1samp(more + SPREAD, 0).pvalue
        assert found.p_adjusted == pytest.approx(p)
        assert found.word == ("pays" if p <= 0.05 else "no evidence")
        assert words(study({1: -more})) == (["hurts"] if p <= 0.05 else ["no evidence"])
    assert words(study({1: 0.0099}), confidence=0.99) == ["no evidence"]


@given(st.lists(st.floats(-0.1, 0.1), min_size=1, max_size=6))
def test_p_values_are_corrected_in_each_direction_apart(gains):
    found = study(dict(enumerate(gains, start=1)))
    tests = comparisons(found, ["frozen"], "scratch", 0.95)
    better = holm([stats.ttest_1samp(more + SPREAD, 0, alternative="greater").pvalue for more in gains])
    worse = holm([stats.ttest_1samp(more + SPREAD, 0, alternative="less").pvalue for more in gains])
    expected = [min(1, 2 * a, 2 * b) for a, b in zip(better, worse, strict=True)]
    assert list(adjusted(found, tests).values()) == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_the_family_grows_with_what_was_asked():
    """0.011 is 3.1 standard errors, p = 0.036: enough for one question, not for two."""
    one, three = study({1: 0.011}), study({1: 0.011, 10: 0.0, 50: 0.0})
    assert words(one) == ["pays"]
    assert words(three)[0] == "no evidence"
    others = [row for name in TRANSFER[1:] for row in rows(name, 1, 0.4 + SPREAD, val_accuracy=0.4)]
    several = [row | {"val_accuracy": 0.6} for row in one] + others
    (found,) = verdicts(several)
    assert (found.method, found.word) == ("frozen", "no evidence")
    assert found.p_adjusted == pytest.approx(5 * verdicts(one)[0].p_adjusted, rel=1e-6)
    assert words(several, method="frozen") == ["pays"]  # fixed in advance, it is one question again


def piloted(found, **val):
    """Rows of a pilot, in which validation saw so much of each method."""
    budgets = dict.fromkeys(row["budget"] for row in found)
    names = dict.fromkeys(row["method"] for row in found)
    return found + [
        {"method": name, "budget": budget, "seed": 99, "pilot": True, "val_accuracy": val.get(name, 0.3)}
        for budget in budgets
        for name in names
    ]


def test_a_pilot_chooses_and_is_not_judged():
    """So that the family is what it chose, as if it had been fixed in advance."""
    found = study({1: 0.011}) + rows("full", 1, 0.3 + SPREAD, val_accuracy=0.99)
    (one,) = verdicts(piloted(found, frozen=0.6, full=0.5))
    assert (one.method, one.word, one.seeds) == ("frozen", "pays", 5)
    assert one.p_adjusted == pytest.approx(verdicts(study({1: 0.011}))[0].p_adjusted)
    (other,) = verdicts(piloted(found, frozen=0.5, full=0.6))
    assert (other.method, other.word) == ("full", "hurts")


def test_a_pilot_has_seen_every_method_or_none():
    found = study({1: 0.2}) + rows("full", 1, 0.5 + SPREAD)
    lacking = [row for row in piloted(found) if not (row.get("pilot") and row["method"] == "full")]
    with pytest.raises(ValueError, match="full, budget 1 has no row of the pilot"):
        verdicts(lacking)
    second = [{**row, "seed": 98} for row in piloted(found) if row.get("pilot")]
    with pytest.raises(ValueError, match="two seeds are called pilot"):
        verdicts(piloted(found) + second)


def test_a_hurt_elsewhere_makes_nothing_easier():
    """With both directions in one procedure, the second budget's p would be multiplied by 1, not by 2."""
    assert words(study({1: 0.011, 10: -0.3})) == ["no evidence", "hurts"]


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0.0005, 0.1))
def test_a_better_encoder_never_loses_a_verdict(seed, more):
    generator = np.random.default_rng(seed)
    found, better = [], []
    for budget in (1, 10, "all"):
        found += rows("scratch", budget, 0.5 + 0.02 * generator.standard_normal(5))
        for name in ("frozen", "full"):
            values = 0.5 + generator.normal(0, 0.03) + 0.02 * generator.standard_normal(5)
            val = generator.random()
            found += rows(name, budget, values, val_accuracy=val)
    better = [row | {"accuracy": row["accuracy"] + more * (row["method"] != "scratch")} for row in found]
    for before, after in zip(verdicts(found), verdicts(better), strict=True):
        assert after.method == before.method
        assert after.test.mean > before.test.mean
        assert RANK[after.word] >= RANK[before.word]


@given(st.randoms())
def test_the_order_of_rows_does_not_matter(random):
    found = study({1: 0.02, 10: 0.01, "all": 0.0}) + rows("pca", 1, [0.2] * 5)
    shuffled = list(found)
    random.shuffle(shuffled)
    assert verdicts(shuffled) == verdicts(found)


def test_what_cannot_be_judged_says_why():
    few = [row for row in study({1: 0.2}) if row["seed"] < FEWEST - 1]
    (found,) = verdicts(few)
    assert (found.word, found.reason, found.p_adjusted) == ("not judged", "4 seeds are too few", None)
    assert words(few, fewest=4) == ["pays"]
    (single,) = verdicts([row for row in few if row["seed"] == 0], fewest=1)
    assert (single.word, single.reason) == ("not judged", "1 seed is too few")
    same = rows("scratch", 1, [0.5] * 5) + rows("full", 1, [0.6] * 5)
    assert "all the same" in verdicts(same)[0].reason
    assert "none of frozen, last_n" in verdicts(rows("pca", 1, [0.5] * 5) + rows("scratch", 1, [0.5] * 5))[0].reason
    assert verdicts(study({1: 0.2}) + rows("frozen", 10, [0.5] * 5))[1].reason == "scratch was not measured"


def test_seeds_without_a_pair_are_refused_and_so_is_an_unknown_method():
    with pytest.raises(ValueError, match="different seeds at budget 1"):
        verdicts(study({1: 0.2})[:-1])
    with pytest.raises(ValueError, match=r"full was measured at no budget\. There are frozen, scratch"):
        verdicts(study({1: 0.2}), method="full")


def test_a_method_that_could_not_be_measured_is_not_a_candidate():
    missing = [{"method": "lora", "budget": 1, "seed": s, "na": "no linear layer", "labels": 0} for s in range(5)]
    assert verdicts(study({1: 0.2}) + missing) == verdicts(study({1: 0.2}))


def floored(gain, floor, name="raw_pixels"):
    """A study at one label, with a floor that is so much better than scratch."""
    return study({1: gain}) + rows(name, 1, 0.5 + floor - SPREAD)


def test_what_needs_no_pretraining_has_to_be_beaten_too():
    assert words(floored(0.2, 0.1)) == ["pays"]
    (found,) = verdicts(floored(0.2, 0.2))
    assert (found.word, found.rival) == ("no evidence", "raw_pixels")
    assert "gains +20.0 points" in found.reason
    assert ", but +0.0 points (-2.0 to +2.0) over raw_pixels, which needs no pretraining: corrected p = " in found.reason
    assert words(floored(0.2, 0.2), floors=()) == ["pays"]
    assert words(floored(0.2, 0.2, "another")) == ["pays"]  # is no floor
    assert words(floored(0.2, 0.4)) == ["no evidence"]  # to be worse than a floor is not to be worse than scratch
    assert verdicts(floored(0.0, 0.4))[0].rival is None  # scratch is not beaten, which says it all
    assert words(floored(-0.2, -0.3)) == ["hurts"]


def test_a_rival_is_named_by_what_holds_for_the_whole_family():
    """0.011 over scratch is enough alone and not beside other budgets: then no sentence says that scratch is beaten."""
    alone, among = floored(0.011, 0.011), floored(0.011, 0.011) + study({10: 0.0, 50: 0.0})
    assert verdicts(alone)[0].rival == "raw_pixels"
    assert verdicts(among)[0].rival is None
    # a floor that is beaten alone, at p = 0.04, and not among others, is named
    barely = floored(0.2, 0.2 - 0.0215)
    assert (verdicts(barely)[0].word, verdicts(barely)[0].rival) == ("pays", None)
    (first, *_) = verdicts(barely + study({10: 0.0, 50: 0.0}))
    assert (first.word, first.rival) == ("no evidence", "raw_pixels")


def test_the_floor_that_is_hardest_to_beat_decides():
    found = floored(0.2, 0.1) + rows("pca", 1, 0.5 + 0.197 - SPREAD)
    alone = stats.ttest_1samp(0.003 + 2 * SPREAD, 0, alternative="greater").pvalue
    (one,) = verdicts(found)
    assert one.rival == "pca"
    assert one.p_adjusted == pytest.approx(min(1, 2 * alone), rel=1e-6)


def test_floors_have_the_same_seeds():
    with pytest.raises(ValueError, match="different seeds at budget 1"):
        verdicts(floored(0.2, 0.1)[:-1])


def test_the_headline_names_what_is_as_good_without_pretraining():
    found = verdicts(floored(0.2, 0.2) + study({10: 0.2}))
    assert headline(found) == (
        "Transfer pays at 10 labels a class. At 1 label a class, it beats training from scratch, but a logistic regression on "
        "raw pixels may do as well or better without pretraining."
    )
    (beaten,) = verdicts(floored(0.2, 0.4))
    assert "-20.0 points (-22.0 to -18.0) over raw_pixels" in beaten.reason
    assert headline([beaten]).endswith(" may do as well or better without pretraining.")
    several = [
        Verdict(budget, "no evidence" if rival else "pays", "frozen", 5, None, None, "", rival)
        for budget, rival in ((1, "pca"), (10, "raw_pixels"), (50, None), (250, "pca"))
    ]
    assert headline(several).endswith(
        " From 1 up to 10 labels a class and at 250 labels a class, it beats training from scratch, but a logistic regression "
        "on principal components or raw pixels may do as well or better without pretraining."
    )
    (alone,) = verdicts(floored(0.2, 0.2))
    assert headline([alone]) == (
        "Transfer is nowhere shown to pay. At 1 label a class, it beats training from scratch, but a logistic regression on "
        "raw pixels may do as well or better without pretraining."
    )
    mixed = [*said((5, "hurts"), (10, "no evidence")), alone._replace(budget=50)]
    assert headline(mixed).startswith(
        "Transfer is nowhere shown to pay: there is no evidence either way at 10 labels a class; transfer hurts at 5 labels a "
        "class. At 50 labels a class, it beats"
    )


def said(*pairs):
    return [Verdict(budget, word, "frozen", 5, None, None, "4 seeds are too few") for budget, word in pairs]


def test_each_reason_is_said_where_reasons_differ():
    first, second = said((1, "not judged"), (10, "not judged"))
    assert headline([first._replace(reason="scratch was not measured"), second]).endswith(
        "from 1 up to 10 labels a class: scratch was not measured; 4 seeds are too few."
    )


PAYS, NONE, HURTS, OPEN = "pays", "no evidence", "hurts", "not judged"


@pytest.mark.parametrize(
    ("pairs", "sentence", "where"),
    [
        (
            [(1, PAYS), (10, PAYS), (50, PAYS), (250, NONE), ("all", NONE)],
            "Transfer pays from 1 up to 50 labels a class; there is no evidence either way from 250 labels a "
            "class up to all labels.",
            250,
        ),
        (
            [(1, PAYS), (10, NONE)],
            "Transfer pays at 1 label a class; there is no evidence either way at 10 labels a class.",
            10,
        ),
        ([(1, PAYS), (10, PAYS)], "Transfer pays wherever it was measured, from 1 up to 10 labels a class.", None),
        ([(1, PAYS), ("all", PAYS)], "Transfer pays wherever it was measured, from 1 label a class up to all labels.", None),
        (
            [(1, NONE), (10, NONE)],
            "There is no evidence that transfer pays or hurts at any number of labels measured, from 1 up to 10 labels a "
            "class.",
            None,
        ),
        (
            [(1, HURTS), (5, HURTS)],
            "Transfer hurts wherever it was measured, from 1 up to 5 labels a class: training from scratch is better.",
            None,
        ),
        ([("all", PAYS)], "Transfer pays with all labels.", None),
        (
            [("5%", PAYS), ("10%", PAYS), ("all", NONE)],
            "Transfer pays from 5% of the labels up to 10% of the labels; there is no evidence either way with all labels.",
            "all",
        ),
        ([(5, NONE)], "There is no evidence that transfer pays or hurts at 5 labels a class.", None),
        ([(5, OPEN)], "Whether transfer pays cannot be said at 5 labels a class: 4 seeds are too few.", None),
        (
            [(1, NONE), (5, HURTS)],
            "Transfer is nowhere shown to pay: there is no evidence either way at 1 label a class; transfer "
            "hurts at 5 labels a class.",
            None,
        ),
        (
            [(1, PAYS), (5, NONE), (10, PAYS), (50, HURTS), ("all", OPEN)],
            "Transfer pays at 1 label a class; transfer pays at 10 labels a class; there is no evidence either way at 5 "
            "labels a class; transfer hurts at 50 labels a class; nothing can be said with all labels.",
            None,
        ),
    ],
)
def test_the_headline_is_true_at_its_ends(pairs, sentence, where):
    assert headline(said(*pairs)) == sentence
    assert flip(said(*pairs)) == where


@given(st.lists(st.sampled_from([PAYS, NONE, HURTS, OPEN]), min_size=1, max_size=7))
def test_the_flip_is_where_paying_ends_for_good(found):
    where = flip(said(*enumerate(found, start=1)))
    naive = [k for k in range(1, len(found)) if set(found[:k]) == {PAYS} and PAYS not in found[k:]]
    assert where == (naive[0] + 1 if naive else None)


def test_rows_may_be_checked_once():
    found = study({1: 0.2})
    assert verdicts(Measured(found)) == verdicts(found)
