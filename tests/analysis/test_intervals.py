"""Intervals, verdicts and words about them follow the numbers they are given."""

import numpy as np
import pytest
import torch

from fsslib.analysis import intervals


@pytest.mark.parametrize("gain, seeds, word", [
    ((1.5, 0.4, 2.6), (1.0, 2.0, 1.5), "better"), ((-1.5, -2.6, -0.4), (-1.0, -2.0, -1.5), "worse"),
    ((0.5, -0.4, 1.4), (0.2, 0.6, 0.7), "not distinguishable"),
    ((1.5, 0.4, 2.6), (-0.5, 2.0, 3.0), "the trainings disagree"),
    ((1.5, 0.0, 2.6), (1.0, 2.0, 1.5), "not distinguishable"),
])  # fmt: skip
def test_a_gain_needs_its_interval_and_every_training(gain, seeds, word):
    said = intervals.gain_verdict("a - b", gain, seeds)
    assert said.startswith(f"a - b: {gain[0]:+.1f} (") and said.endswith(f"), {word}")
    assert f"trainings {seeds[0]:+.1f}, " in said


def test_spread_is_the_mean_distance_of_pairs():
    assert intervals.spread([[0, 0], [0, 3], [4, 0]]) == pytest.approx((3 + 4 + 5) / 3)
    assert intervals.spread(torch.ones(1, 2)) == 0


def test_a_difference_is_clear_only_if_episodes_and_trainings_agree():
    assert intervals.clear((2, 1, 3), [1, 2, 3]) and intervals.clear((-2, -3, -1), [-1, -2, -3])
    assert not intervals.clear((2, -1, 5), [1, 2, 3]) and not intervals.clear((2, 1, 3), [-1, 3, 4])


PAIRS = {
    ("a", "b"): ((5.0, 4.0, 6.0), [5, 4, 6]), ("b", "a"): ((-5.0, -6.0, -4.0), [-5, -4, -6]),
    ("a", "c"): ((5.5, 4.0, 7.0), [5, 5, 6.5]), ("c", "a"): ((-5.5, -7.0, -4.0), [-5, -5, -6.5]),
    ("b", "c"): ((0.5, -1.0, 2.0), [0.5, 1, 0]), ("c", "b"): ((-0.5, -2.0, 1.0), [-0.5, -1, 0]),
}  # fmt: skip


def test_a_ranking_says_which_neighbours_can_be_told_apart():
    assert intervals.ranking({"c": 49.5, "a": 55.0, "b": 50.0}, PAIRS) == "a 55.0 > b 50.0 ≈ c 49.5"


def row(knob, value, method, miou, gain=(0, 0, 0)):
    return {"knob": knob, "value": value, "method": method, "miou": miou, "gain over panet": gain}


ROWS = [
    row("gap", 0, "panet", (50, 48, 52)), row("gap", 0, "own", (60, 58, 62), (10, 9, 11)),
    row("gap", 1, "panet", (40, 38, 42)), row("gap", 1, "own", (38, 36, 40), (-2, -3, -1)),
    row("area", 1, "panet", (50, 48, 52)), row("area", 1, "own", (60, 58, 62), (10, 9, 11)),
    row("area", 0.5, "panet", (49, 47, 51)), row("area", 0.5, "own", (63, 61, 65), (14, 13, 15)),
]  # fmt: skip
NAMES = {"panet": "PANet", "own": "Own"}


def test_words_about_a_knob_follow_the_intervals():
    said = intervals.knob_verdicts(ROWS, NAMES)
    assert said == [
        "support/query gap, 0 to 1: PANet -10.0, Own -22.0",
        "  Own - PANet: +10.0 becomes -2.0 (-3.0 to -1.0), turns round",
        "size of the objects (radius), 1 to 0.5: PANet -1.0 (overlap), Own +3.0 (overlap)",
        "  Own - PANet: +10.0 becomes +14.0 (13.0 to 15.0), rises",
    ]
    changed = [*ROWS[:3], row("gap", 1, "own", (46, 44, 48), (6, 4, 8)), *ROWS[4:7]]
    changed += [row("area", 0.5, "own", (58, 56, 60), (9, 7, 10))]
    said = intervals.knob_verdicts(changed, NAMES)
    assert said[1].endswith("falls") and said[3].endswith("no clear change")


def test_contrasts_take_the_largest_lead_and_the_largest_gap():
    ious = {"a": np.array([0.9, 0.5, 0.1, 0.4, 0.3]), "b": np.array([0.2, 0.6, 0.8, 0.4, 0.2])}
    picks = intervals.contrasts(ious)
    assert picks["a"]["wins"] == 0 and picks["b"]["wins"] == 2
    assert picks["a"]["fails"] == 1, "episode 2 was shown already"
    assert len({i for kinds in picks.values() for i in kinds.values()}) == 4


def test_verdict_names_the_side_of_zero():
    assert intervals.verdict("a - b", (6.24, 3.6, 8.74)) == "a - b: +6.2 (3.6 to 8.7), higher"
    assert intervals.verdict("a - b", (-2, -3, -0.1)).endswith("lower")
    assert intervals.verdict("a - b", (-0.01, -0.2, 0.1), 2) == "a - b: -0.01 (-0.20 to 0.10), no clear difference"


def test_mean_interval_covers_the_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        value, low, high = intervals.mean_interval(generator.normal(1.0, 2.0, 80), draws=200)
        assert low < value < high
        hits += low <= 1.0 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_mean_interval_takes_tensors_and_is_repeatable():
    values = torch.arange(10.0)
    assert intervals.mean_interval(values) == intervals.mean_interval(values.numpy())
    assert intervals.mean_interval(torch.full((5,), 3.0)) == (3.0, 3.0, 3.0)
    assert intervals.percent((0.5, 0.25, 0.75)) == (50, 25, 75)


def test_independent_intervals_add_in_squares():
    assert np.allclose(intervals.apart((60, 57, 64), (50, 47, 54)), (10, 5, 15))
    low, high = intervals.apart((60, 57, 61), (50, 50, 50))[1:]
    assert np.allclose((low, high), (7, 11)), "a sure score moves the interval and leaves its width"
    assert np.allclose(intervals.over_folds([(1, 0, 5), (3, 2, 6)]), (2, 2 - 2**0.5 / 2, 2 + 5 / 2))
    assert np.allclose(intervals.over_folds([(1, 0, 5)]), (1, 0, 5))


def test_scatter_tells_rows_from_groups():
    values = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.2, 0.2], [0.2, 0.2]])
    rows, groups = intervals.scatter(values, ["a", "a", "b", "b"])
    assert rows == pytest.approx(values.numpy().std(0).mean()) and groups == pytest.approx(0.3)


def test_entropy_is_largest_for_equal_shares_and_stands_an_empty_one():
    assert intervals.entropy(torch.full((4,), 0.25)) == pytest.approx(np.log(4))
    assert intervals.entropy([1.0, 0.0]) == 0


def test_trainings_have_an_interval_of_their_own():
    """Student's t by its table: 4.303 for three values; it covers the mean as often as it says."""
    value, low, high = intervals.over_seeds([1.0, 2.0, 3.0])
    assert value == 2 and high - value == pytest.approx(4.303 / 3**0.5, abs=1e-3) and low == pytest.approx(4 - high)
    assert intervals.over_seeds([5.0]) == (5.0, -np.inf, np.inf), "one training says nothing about another"
    draws = np.random.default_rng(0).normal(size=(1000, 3))
    covered = [low < 0 < high for _, low, high in map(intervals.over_seeds, draws)]
    agree = [intervals.clear((1.0, 0.5, 1.5), row) for row in draws]
    assert 0.93 < np.mean(covered) < 0.97 and 0.2 < np.mean(agree) < 0.3, "three agree by chance one time in four"
