import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ssl_framework.transfer.claims import clopper_pearson, holm

ps = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(ps, st.floats(0.001, 0.5))
def test_it_rejects_what_holms_definition_rejects(p, alpha):
    """Go through the values from the smallest; reject while p <= alpha / (how many are left); stop at the first that is not."""
    rejected = set()
    for rank, place in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        if p[place] * (len(p) - rank) > alpha:
            break
        rejected.add(place)
    assert {place for place, value in enumerate(holm(p)) if value <= alpha} == rejected


@given(ps)
def test_it_never_lowers_a_value_and_never_beats_bonferroni(p):
    for before, after in zip(p, holm(p), strict=True):
        assert before <= after <= min(1, len(p) * before) + 1e-12


@given(ps, st.randoms())
def test_the_order_does_not_matter(p, random):
    places = list(range(len(p)))
    random.shuffle(places)
    corrected = holm(p)
    assert holm([p[k] for k in places]) == [corrected[k] for k in places]


def test_what_is_no_p_value_is_refused():
    for odd in (float("nan"), -0.1, 1.1):
        with pytest.raises(ValueError, match="no p-value"):
            holm([0.5, odd])


@given(st.integers(1, 60), st.data())
def test_the_interval_of_a_share_is_scipys(of, data):
    hits = data.draw(st.integers(0, of))
    expected = stats.binomtest(hits, of).proportion_ci(0.95, method="exact")
    assert clopper_pearson(hits, of) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_no_share_of_nothing():
    for hits, of in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="is no share"):
            clopper_pearson(hits, of)
