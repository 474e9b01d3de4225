"""Figures in reference pixels, and a verdict that follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from somareg.config import make_config
from somareg.geometry import AffineTransform, FieldTransform
from somareg.matching.doubts import Doubts, Rival
from somareg.matching.engine import Alignment
from somareg.matching.evidence import NO_EVIDENCE
from somareg.quality import Demands, Measured, Places, Support, judge, measure, support_of
from somareg.quality.metres import lattice_over
from somareg.types import Grid, Quality, TiePoints, Verdict

STILL = AffineTransform.identity()
SHAPE = (101, 141)
CENTRE = (70.0, 50.0)
FAILED = Alignment(STILL, None, None, NO_EVIDENCE, math.inf, math.inf, "no window could be matched")

CLEAR = Doubts(Rival(0.3, (20.0, 8.0), 0.1), second_px=0.3)


@dataclass
class Fixed:
    """A calibration that answers as told."""

    answer: float = 0.99
    error: float = 0.5
    go: float = 0.8
    review: float = 0.3
    ce90_per_rmse: float = 1.5

    def probability(self, alignment: Alignment) -> float:
        return self.answer

    def predict_rmse(self, alignment: Alignment, factor: int) -> float:
        return self.error * factor


def ties(residual: np.ndarray | None = None) -> TiePoints:
    residual = np.array([0.2, 0.4, 0.9, 30.0]) if residual is None else residual
    n = len(residual)
    points = np.random.default_rng(0).uniform(0, 90, (n, 2))
    return TiePoints(points, points, points * 0, np.ones(n), np.ones(n), residual < 4, residual)


def support(answer: float = 0.99, factor: int = 1) -> Support:
    alignment = replace(FAILED, failure="", forward_backward_px=0.4, split_half_px=0.3, doubts=CLEAR)
    return support_of(alignment, factor, Fixed(answer))  # type: ignore[arg-type]


def places(error_px: float = 0.5) -> Places:
    """The same error everywhere."""
    area = 0.0, 0.0, float(SHAPE[1]), float(SHAPE[0])
    points = lattice_over(area, 24)
    return Places(points, np.ones(len(points), bool), np.full(len(points), error_px), area)


def given(**more: object) -> Measured:
    base = Measured(
        affine=STILL,
        field=None,
        expected=STILL,
        tie_points=ties(),
        support=support(),
        overlap=1.0,
        area=(0.0, 0.0, float(SHAPE[1]), float(SHAPE[0])),
        reference=Grid(*SHAPE[::-1], (10.0, 0.0, 5e5, 0.0, -10.0, 5e6), "EPSG:32632"),
        places=places(),
    )
    return replace(base, **more)  # type: ignore[arg-type]


def figures(**more: object) -> Quality:
    return measure(given(**more))


# --- measure ----------------------------------------------------------------------------------------------------------


def test_affine_parameters_are_about_the_reference_centre() -> None:
    affine = AffineTransform.from_parameters(rotation_deg=3, scale=1.1, shift=(4.0, -2.5), centre=CENTRE)
    quality = figures(affine=affine)
    assert quality.rotation_deg == pytest.approx(3)
    assert quality.scale == pytest.approx(1.1)
    assert quality.shear_deg == pytest.approx(0, abs=1e-9)
    assert quality.shift_px == pytest.approx((4.0, -2.5))


def test_affine_parameters_are_about_the_centre_of_what_was_looked_at() -> None:
    """A small image beside the corner of a large one: far from it, a scale says nothing of the shift."""
    affine = AffineTransform.from_parameters(scale=1.01, shift=(4.0, -2.5), centre=(1070.0, 2050.0))
    quality = figures(affine=affine, area=(1000.0, 2000.0, 141.0, 101.0))
    assert quality.shift_px == pytest.approx((4.0, -2.5))
    assert quality.shift_before_px == pytest.approx(4.7, abs=0.2)


def test_parameters_are_relative_to_what_was_expected() -> None:
    expected = AffineTransform.from_parameters(scale=2.0, shift=(30.0, 12.0))
    found = expected.after(AffineTransform.from_parameters(shift=(1.5, 2.0)))
    quality = figures(affine=found, expected=expected)
    assert quality.scale == pytest.approx(1)
    assert quality.shift_px == pytest.approx((1.5, 2.0))
    assert quality.shift_before_px == pytest.approx(2.5)
    assert figures().shift_before_px == 0


def test_shift_before_is_the_rms_over_the_image() -> None:
    affine = AffineTransform.from_parameters(rotation_deg=2, centre=CENTRE)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    points = np.stack([x.ravel(), y.ravel()], axis=-1).astype(float)
    true = float(np.sqrt(((affine(points) - points) ** 2).sum(1).mean()))
    assert figures(affine=affine).shift_before_px == pytest.approx(true, rel=0.2)


def test_local_part_and_folding() -> None:
    array = np.zeros((2, 11, 15))
    array[0] = 3.0
    array[1] = 4.0
    moved = figures(field=FieldTransform(array, (0, 0), (10, 10)))
    assert moved.local_rms_px == pytest.approx(5)
    assert moved.folding == 0
    assert moved.shift_before_px == pytest.approx(5)
    array = np.zeros((2, 11, 15))
    array[0, :, 7] = -25.0  # a jump back by more than the distance of the nodes
    assert figures(field=FieldTransform(array, (0, 0), (10, 10))).folding > 0.05
    assert figures().local_rms_px == figures().folding == 0


def test_shift_before_is_that_of_global_and_local_part_together() -> None:
    """A local part that takes the global one back leaves the images in place; one that goes on moves them twice."""
    shift, array = AffineTransform.from_parameters(shift=(3.0, 4.0)), np.zeros((2, 11, 15))
    array[0], array[1] = 3.0, 4.0
    for sign, whole in ((-1.0, 0.0), (1.0, 10.0)):
        quality = figures(affine=shift, field=FieldTransform(sign * array, (0, 0), (10, 10)))
        assert quality.shift_before_px == pytest.approx(whole, abs=1e-9)
        assert quality.metres is not None
        assert quality.metres.shift_before_m == pytest.approx(10 * whole, rel=0.01, abs=1e-6)
    expected = figures(affine=shift, expected=shift, field=FieldTransform(array, (0, 0), (10, 10)))
    assert expected.shift_before_px == pytest.approx(5)


def test_lengths_of_the_working_image_are_told_in_reference_pixels() -> None:
    once, thrice = figures(), figures(support=support(factor=3))
    for name in ("forward_backward_px", "split_half_px", "predicted_rmse_px", "predicted_ce90_px"):
        assert getattr(thrice, name) == pytest.approx(3 * getattr(once, name))
    assert once.forward_backward_px == 0.4
    assert once.predicted_ce90_px == pytest.approx(Fixed.ce90_per_rmse * once.predicted_rmse_px)


@pytest.mark.parametrize(
    ("factor", "error", "most"),
    [(1, 5.0, 0.99), (2, 0.2, 0.99), (2, 0.5, 0.870), (2, 1.0, 0.400), (4, 1.0, 0.120), (2, math.inf, 0.0)],
)
def test_two_pixels_are_those_of_the_reference(factor: int, error: float, most: float) -> None:
    """At 1/4 of the resolution, an error below 2 working pixels may be one of 8 pixels."""
    found = replace(FAILED, failure="", doubts=CLEAR)
    backed = support_of(found, factor, Fixed(error=error))  # type: ignore[arg-type]
    assert backed.probability == pytest.approx(most, abs=2e-3)


def test_tie_points_and_overlap() -> None:
    quality = figures(overlap=0.25)
    assert quality.n_points == 4
    assert quality.inlier_ratio == 0.75
    assert quality.residual_median_px == pytest.approx(0.4)
    assert quality.overlap == 0.25
    none = figures(tie_points=ties(np.zeros(0)))
    assert none.n_points == none.inlier_ratio == 0
    assert math.isnan(none.residual_median_px)
    far = figures(tie_points=ties(np.array([20.0, 30.0])))
    assert far.inlier_ratio == 0
    assert math.isnan(far.residual_median_px)


def test_bias_and_sigma_of_the_inliers_per_axis_and_on_the_ground() -> None:
    off = np.array([[1.0, 0.5], [2.0, 0.5], [3.0, 0.5], [40.0, 0.0]])
    points = ties()
    quality = figures(tie_points=replace(points, displacement=off))
    assert quality.bias_px == pytest.approx((2.0, 0.5))
    assert quality.sigma_px == pytest.approx((math.sqrt(2 / 3), 0.0))
    assert quality.metres is not None
    assert quality.metres.bias_m == pytest.approx((20.0, 5.0), rel=0.01)
    assert quality.metres.sigma_m[0] == pytest.approx(10 * math.sqrt(2 / 3), rel=0.01)
    assert all(math.isnan(value) for value in figures(tie_points=ties(np.zeros(0))).bias_px)


def test_nothing_seen_has_a_ce90_all_the_same_and_no_worst_place() -> None:
    quality = figures(places=places(math.nan))
    assert quality.predicted_ce90_px == pytest.approx(Fixed.ce90_per_rmse * quality.predicted_rmse_px)
    assert math.isnan(quality.worst_px) and quality.unseen_share == 1
    assert "No part" in quality.worst_place


def test_every_figure_has_a_name_for_the_record() -> None:
    names = set(figures().as_dict())
    assert {"n_points", "predicted_rmse_px", "metres_per_pixel"} <= names


# --- judge ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probability", "decision"),
    [(0.99, "go"), (0.8, "go"), (0.79, "review"), (0.3, "review"), (0.29, "no-go"), (0.0, "no-go")],
)
def test_thresholds(probability: float, decision: str) -> None:
    verdict = judge(support(probability), figures(), Fixed())  # type: ignore[arg-type]
    assert verdict.decision == decision
    assert verdict.probability == probability
    assert verdict.reasons
    assert all(reason.endswith(".") for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("name", "value", "word"), [("folding", 0.01, "folds"), ("overlap", 0.1, "covered"), ("overlap", 0.0, "covered")]
)
def test_a_doubt_forbids_go_and_comes_first(name: str, value: float, word: str) -> None:
    quality = replace(figures(), **{name: value})
    verdict = judge(support(0.99), quality, Fixed())  # type: ignore[arg-type]
    assert verdict.decision == "review"
    assert word in verdict.reasons[0]
    hopeless = judge(support(0.01), quality, Fixed())  # type: ignore[arg-type]
    assert hopeless.decision == "no-go"


def test_what_the_images_cannot_tell_forbids_go_and_comes_first() -> None:
    doubts, agreeing = replace(CLEAR, rival=Rival(0.9, (12.0, -16.0), 0.1)), replace(NO_EVIDENCE, zscore=3.0)
    unclear = replace(FAILED, failure="", evidence=agreeing, doubts=doubts)
    backed = support_of(unclear, 3, Fixed(error=0.2))  # type: ignore[arg-type]
    verdict = judge(backed, figures(support=backed), Fixed())  # type: ignore[arg-type]
    assert verdict.decision == "review"
    assert "60 px away" in verdict.reasons[0]


def test_a_failed_estimate_is_a_no_go_whatever_the_calibration_says() -> None:
    verdict = judge(support_of(FAILED, 1, Fixed(1.0)), figures(), Fixed())  # type: ignore[arg-type]
    assert verdict.decision == "no-go"
    assert verdict.probability == 0
    assert FAILED.failure in verdict.reasons[0]


# --- what is asked of a go -------------------------------------------------------------------------------------------


def of_pair(
    probability: float = 0.99, error: float = 0.5, demands: Demands | None = None, z: float = 3.0, **more: object
) -> Verdict:
    """The verdict on pixels of 10 m."""
    backed = replace(support(probability), predicted_px=error, zscore=z, **more)  # type: ignore[arg-type]
    return judge(backed, figures(support=backed), Fixed(), demands)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "demands", "words"),
    [
        (3.0, Demands(), ""),
        (3.001, Demands(), "The expected error is 3.001 px; a go allows up to 3 px (max_error)."),
        (14.2, Demands(), "The expected error is 14.2 px; a go allows up to 3 px (max_error)."),
        (14.2, Demands(20.0), ""),
        (0.5, Demands(0.4), "The expected error is 0.50 px; a go allows up to 0.4 px (max_error)."),
        (4.0, Demands(None, 41.0), ""),
        (4.0, Demands(None, 39.0), "The expected error is 40.0 m; a go allows up to 39 m (max_error_m)."),
        (math.inf, Demands(), "The expected error is not known; a go allows up to 3 px (max_error)."),
        (math.nan, Demands(), "The expected error is not known; a go allows up to 3 px (max_error)."),
        (1e4, Demands(None), ""),
    ],
)
def test_a_larger_error_than_allowed_is_a_review_with_both_figures(error: float, demands: Demands, words: str) -> None:
    verdict = of_pair(0.99, error, demands)
    assert verdict.decision == ("review" if words else "go")
    assert verdict.reasons[0] == (words or "The chance that the error is below 2 px is 99 %.")
    assert of_pair(0.1, error, demands).decision == "no-go"


def test_metres_that_nobody_knows_are_no_go_ahead() -> None:
    backed = support(0.99)
    without = figures(reference=Grid(*SHAPE[::-1]))
    verdict = judge(backed, without, Fixed(), Demands(None, 20.0))  # type: ignore[arg-type]
    assert verdict.decision == "review"
    assert verdict.reasons[0] == "The expected error is not known; a go allows up to 20 m (max_error_m)."


@pytest.mark.parametrize(
    ("probability", "asked", "decision", "words"),
    [
        (0.9, 0.0, "go", "is 90 %."),
        (0.9, 0.5, "go", "is 90 %."),  # the calibration asks for more
        (0.7, 0.5, "review", "is 70 %; a go needs 80 %."),
        (0.9, 0.95, "review", "is 90 %; a go needs 95 % (min_probability)."),
        (0.9993, 0.9995, "review", "is 99.9 %; a go needs 99.95 % (min_probability)."),
        (0.7996, 0.0, "review", "is 79.96 %; a go needs 80 %."),
        (0.3, 0.99, "review", "is 30 %; a go needs 99 % (min_probability)."),  # review's own bar stays where it is
        (0.29, 0.01, "no-go", "is 29 %."),
        (1.0, 1.0, "go", "is more than 99 %."),
    ],
)
def test_a_smaller_chance_than_asked_is_a_review(probability: float, asked: float, decision: str, words: str) -> None:
    verdict = of_pair(probability, demands=Demands(min_probability=asked))
    assert verdict.decision == decision
    assert any(reason == f"The chance that the error is below 2 px {words}" for reason in verdict.reasons)
    assert sum("The chance that" in reason for reason in verdict.reasons) == 1


def test_options_are_demands() -> None:
    assert Demands.of(make_config({})) == Demands(3.0, None, 0.0) == Demands()
    assert Demands.of(make_config({"max_error_m": 20, "min_probability": 0.9})) == Demands(None, 20.0, 0.9)


def test_everything_that_forbids_go_is_told() -> None:
    verdict = of_pair(0.7, 5.0, Demands(), doubts=("It repeats.",))
    assert [reason.split()[1] for reason in verdict.reasons[:2]] == ["chance", "expected"]
    assert verdict.reasons[2] == "It repeats."


@pytest.mark.parametrize("z", [1.9, 0.3, -1.0])
def test_agreement_at_chance_level_is_no_reason_for_go(z: float) -> None:
    aligned = replace(FAILED, failure="", evidence=replace(NO_EVIDENCE, zscore=z), doubts=CLEAR)
    backed = support_of(aligned, 1, Fixed())  # type: ignore[arg-type]
    verdict = judge(backed, figures(support=backed), Fixed())  # type: ignore[arg-type]
    assert verdict.decision == "go"
    assert not [reason for reason in verdict.reasons if "above chance" in reason or "common ground" in reason]
    weak = replace(backed, probability=0.5)
    told = judge(weak, figures(support=weak), Fixed()).reasons  # type: ignore[arg-type]
    assert any("above chance" in reason for reason in told)
    strong = replace(aligned, evidence=replace(NO_EVIDENCE, zscore=2.1))
    backed = support_of(strong, 1, Fixed())  # type: ignore[arg-type]
    told = judge(backed, figures(support=backed), Fixed()).reasons  # type: ignore[arg-type]
    assert any("2.1 deviations above chance" in reason for reason in told)


@pytest.mark.parametrize("z", [0.5, 2.5])
@pytest.mark.parametrize("probability", [0.99, 0.5, 0.1])
def test_agreement_is_told_whatever_its_words_but_for_a_go_by_chance(probability: float, z: float) -> None:
    backed = replace(support(probability), zscore=z, agreement="They look alike.", told=("Halves agree.",))
    verdict = judge(backed, figures(support=backed), Fixed())  # type: ignore[arg-type]
    assert ("They look alike." in verdict.reasons) == (verdict.decision != "go" or z > 2)
    assert "Halves agree." in verdict.reasons
    silent = judge(replace(backed, agreement=""), figures(support=backed), Fixed())  # type: ignore[arg-type]
    assert all(silent.reasons)


# --- what is said in one line ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "line"),
    [
        (("go", 0.978, 0.4567, 4.567), "Go: 98 % chance of an error below 2 px; expected error 4.6 m (0.46 px)."),
        (("go", 0.9999, 0.4567), "Go: more than 99 % chance of an error below 2 px; expected error 0.46 px."),
        (("review", 0.712, 14.2, 142.0), "Review: 71 % chance of an error below 2 px; expected error 142 m (14.2 px)."),
        (("review", 0.712, math.inf), "Review: 71 % chance of an error below 2 px; expected error not known."),
        (("no-go", 0.001, 0.3, 3.0), "No-go: less than 1 % chance of an error below 2 px; the error is not known."),
        (("no-go", math.nan), "No-go: the error is not known."),
    ],
)
def test_headline(verdict: tuple[Any, ...], line: str) -> None:
    decision, *figures = verdict
    assert Verdict(decision, (), *figures).headline == line
    worst = Verdict(decision, (), *figures, **({} if len(figures) > 2 else {"predicted_rmse_m": math.nan}))
    told = replace(worst, worst="The north may be off by 9 m.").headline
    assert told == (line if decision == "no-go" else f"{line} The north may be off by 9 m.")


def test_no_go_has_no_error() -> None:
    for verdict in (of_pair(0.1), replace(of_pair(0.99), decision="no-go")):
        assert math.isnan(verdict.predicted_rmse_px)
        assert math.isnan(verdict.predicted_rmse_m)
    assert of_pair(0.5).predicted_rmse_px == 0.5
    assert of_pair(0.5).predicted_rmse_m == pytest.approx(5, rel=0.01)
    before, after = (quality.as_dict() for quality in (figures(), figures().without_prediction()))
    assert {name for name in before if after[name] != after[name] and before[name] == before[name]} == {
        *("predicted_rmse_px", "predicted_rmse_m", "predicted_ce90_px", "predicted_ce90_m"),
        *("worst_px", "worst_m", "unseen_share"),
    }
    assert before["worst_place"] and before["cells"]
    assert (after["worst_place"], after["cells"]) == ("", [])


@pytest.mark.parametrize("probability", [0.99, 0.5, 0.1])
def test_the_headline_ends_with_the_worst_place_unless_nothing_is_claimed(probability: float) -> None:
    quality = figures()
    verdict = judge(support(probability), quality, Fixed())  # type: ignore[arg-type]
    assert quality.worst_place.startswith("All parts")
    assert verdict.worst == ("" if verdict.decision == "no-go" else quality.worst_place)
    assert verdict.headline.endswith(verdict.worst or "the error is not known.")
    assert verdict.headline.count("off by") == bool(verdict.worst)
