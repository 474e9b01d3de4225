"""Steps and outliers of offsets: found where they are, and no more often in noise than is said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from somareg.batches.audit.levels import level, level_sigma
from somareg.batches.audit.steps import FALSE_ALARM, LEAST, course_of, find_steps, jumps, outlier_limit

RUNS = 200


def noise(rng: np.random.Generator, count: int, times: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Offsets around zero and their sigmas; `times`: how much more they scatter than they say."""
    sigma = rng.uniform(0.2, 0.8, count)
    return rng.normal(size=(count, 2)) * sigma[:, None] * times, sigma


@pytest.mark.parametrize("count", [6, 12, 30])
@pytest.mark.parametrize("times", [0.5, 1.0, 2.0])
def test_noise_shows_a_step_no_more_often_than_is_said(count: int, times: float) -> None:
    rng = np.random.default_rng(count)
    alarms = sum(bool(find_steps(*noise(rng, count, times))) for _ in range(RUNS))
    # 200 runs at 1 % show more than 7 alarms with a chance of 0.1 %.
    assert alarms <= 7


@pytest.mark.parametrize(("count", "times"), [(6, 1.0), (12, 1.0), (30, 1.0), (60, 2.0)])
def test_noise_shows_an_outlier_no_more_often_than_is_said(count: int, times: float) -> None:
    rng = np.random.default_rng(count + 1)
    alarms = sum(course_of(*noise(rng, count, times)).outliers.any() for _ in range(RUNS))
    assert alarms <= 7 if times == 1.0 else alarms <= 14  # the scatter must be estimated, too


@pytest.mark.parametrize(("count", "at"), [(8, 4), (12, 3), (30, 11), (30, 27)])
def test_a_step_of_many_sigmas_is_found_in_its_place(count: int, at: int) -> None:
    rng = np.random.default_rng(at)
    for _ in range(20):
        values, sigma = noise(rng, count)
        sigma = np.full(count, 0.3)
        values = 0.3 * rng.normal(size=(count, 2))
        values[at:] += (20.0, -4.0)
        (step,) = find_steps(values, sigma)
        assert step.index == at
        assert np.hypot(step.jump[0] - 20, step.jump[1] + 4) < 5 * step.sigma
        assert step.size == pytest.approx(math.hypot(20, 4), abs=1.5)
        assert step.chance <= FALSE_ALARM


def test_a_small_step_is_found_among_many_scenes_but_not_among_few() -> None:
    def found(count: int) -> int:
        rng = np.random.default_rng(5)
        total = 0
        for _ in range(20):
            values = 0.3 * rng.normal(size=(count, 2))
            values[count // 2 :, 0] += 0.6
            total += len(find_steps(values, np.full(count, 0.3))) == 1
        return total

    assert found(60) >= 18
    assert found(6) == 0


def test_up_and_down_again_are_two_steps() -> None:
    rng = np.random.default_rng(3)
    values = 0.2 * rng.normal(size=(40, 2))
    values[15:25, 1] += 3.0
    assert [step.index for step in find_steps(values, np.full(40, 0.2))] == [15, 25]


@pytest.mark.parametrize("wild", [[5], [5, 6], [2, 9, 15]])
def test_a_few_wild_scenes_are_outliers_and_no_step(wild: list[int]) -> None:
    rng = np.random.default_rng(7)
    values = 0.3 * rng.normal(size=(20, 2))
    values[wild] += (400.0, 0.0)
    course = course_of(values, np.full(20, 0.3))
    assert course.steps == ()
    assert np.flatnonzero(course.outliers).tolist() == wild


def test_a_step_and_an_outlier_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    values = 0.1 * rng.normal(size=(10, 2))
    values[5:, 0] += 2.0
    values[2] += (0.0, 6.0)
    course = course_of(values, np.full(10, 0.15))
    assert [step.index for step in course.steps] == [5]
    assert np.flatnonzero(course.outliers).tolist() == [2]


def test_what_is_uncertain_counts_less() -> None:
    values = np.array([[0.0, 0.0], [0.1, 0.0], [1.2, 0.0]])
    trusted, vague = (level(values, np.array([0.04, 0.04, last])) for last in (4.0, 0.0025))
    assert trusted[0] < 0.1
    assert vague[0] > 1.0
    # An offset far off is no outlier where its own sigma says that it may be.
    many = np.zeros((12, 2))
    many[4, 0] = 5.0
    sigma = np.full(12, 0.2)
    assert course_of(many, sigma).outliers[4]
    sigma[4] = 4.0
    assert not course_of(many, sigma).outliers.any()


def test_sigma_of_a_level_falls_with_the_root_of_their_number() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(400, 2))
    assert level_sigma(values, np.ones(400)) == pytest.approx(0.05, rel=0.1)
    # Scenes that scatter three times as much as they say are not averaged to what they say.
    assert level_sigma(3 * values, 9 * np.ones(400)) == pytest.approx(0.15, rel=0.1)


def test_scenes_without_an_order_have_no_steps_but_outliers() -> None:
    values = np.zeros((12, 2))
    values[6:] += 5.0
    assert course_of(values, np.full(12, 0.3)).steps
    assert not course_of(values, np.full(12, 0.3), in_time=False).steps


@pytest.mark.parametrize("count", range(6))
def test_fewer_than_three_a_side_show_nothing(count: int) -> None:
    values = np.arange(count)[:, None] * np.array([[50.0, 0.0]])
    course = course_of(values, np.full(count, 0.1))
    assert course.steps == ()
    assert len(course.z) == len(course.levels) == count
    assert outlier_limit(LEAST - 1) == math.inf


@given(
    count=st.integers(6, 24),
    seed=st.integers(0, 10_000),
    shift=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
    turn=st.integers(0, 3),
)
def test_the_origin_and_the_direction_of_the_axes_do_not_matter(
    count: int, seed: int, shift: tuple[float, float], turn: int
) -> None:
    rng = np.random.default_rng(seed)
    values, sigma = noise(rng, count)
    values[count // 2 :, 0] += 4.0
    quarter = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), turn)
    one, other = course_of(values, sigma), course_of(values @ quarter.T + shift, sigma)
    assert [s.index for s in one.steps] == [s.index for s in other.steps]
    assert other.z == pytest.approx(one.z, abs=1e-4)


@pytest.mark.parametrize("count", range(7, 25))
def test_time_may_run_backwards(count: int) -> None:
    """The same draws on every run: one in 2500 of such short series hides its step in noise."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        values = 0.1 * rng.normal(size=(count, 2))
        values[3:] += 6.0
        forward = find_steps(values, np.full(count, 0.1))
        backward = find_steps(values[::-1], np.full(count, 0.1))
        assert [s.index for s in forward] == [3]
        assert [count - s.index for s in backward] == [3]


def test_a_chain_tells_a_step_from_a_scene_that_is_off_by_itself() -> None:
    rng = np.random.default_rng(4)
    offsets = 0.1 * rng.normal(size=(20, 2))
    offsets[12] += (8.0, 0.0)  # from here on all lie there
    offsets[5] += (0.0, 5.0)  # one scene off
    offsets[6] -= (0.0, 5.0)
    course = jumps(offsets, np.full(20, 0.15))
    assert [step.index for step in course.steps] == [12]
    assert course.steps[0].jump == pytest.approx((8.0, 0.0), abs=0.6)
    assert np.flatnonzero(course.outliers).tolist() == [5]


def test_a_chain_of_noise_shows_nothing() -> None:
    rng = np.random.default_rng(6)
    alarms = sum(bool(jumps(*noise(rng, 20)).steps) for _ in range(RUNS))
    assert alarms <= 7
