"""`prepare` finds its way back: every working pixel knows the original pixel it stands for."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from somareg.config import make_config
from somareg.errors import ConfigError, NoDataError, NoOverlapError
from somareg.geometry import AffineTransform, FieldTransform
from somareg.io import from_array, georeference
from somareg.preprocess.prepare import Prepared, _guesses, prepare
from somareg.types import BoolArray, Geotransform, Grid, Raster
from tests.synthetic import make_pair, pixel_points

UTM = "EPSG:32633"


def place(data: np.ndarray, transform: Geotransform | None = None, mask: np.ndarray | None = None) -> Raster:
    raster = from_array(data, role="test", mask=mask)
    if transform is None:
        return raster
    return replace(raster, grid=Grid(data.shape[-1], data.shape[-2], transform, UTM))


def run(moving: Raster, reference: Raster, *, longest: int = 4096, radius: float = 20.0, **options: object) -> Prepared:
    georef = georeference(reference.grid, moving.grid)
    cfg = make_config({"moving_modality": "optical", **options})
    return prepare(moving, reference, georef, cfg, longest=longest, radius_px=radius)


def ramp(height: int, width: int, transform: Geotransform = (1, 0, 0, 0, 1, 0)) -> np.ndarray:
    """Two bands that tell the map position of their pixel centres."""
    x, y = Grid(width, height, transform).to_map(pixel_points((height, width))).T
    return np.stack([x, y]).reshape(2, height, width)


def waves(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A smooth picture whose block means are itself at the blocks' centres, but for a common factor."""
    x, y = points.T
    return (np.sin(x / 2.3) * np.sin(y / 2.9)).reshape(1, *shape)


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize(("height", "width"), [(240, 240), (200, 241), (239, 122)])
@pytest.mark.parametrize("role", ["moving", "reference"])
def test_working_pixels_are_centred_where_they_say(factor: int, height: int, width: int, role: str) -> None:
    """The half-pixel rule: a reduced picture is the picture at `reference_pixels` (half a pixel off gives 0.97)."""
    image = place(waves(pixel_points((height, width)), (height, width)))
    options = {"moving_modality": "sar", "reference_modality": "sar", "moving_scale": "dB", "reference_scale": "dB"}
    prepared = run(image, image, longest=-(-max(height, width) // factor), **options)
    shape = prepared.reference_mask.shape
    assert prepared.factor == factor
    assert shape == (height // factor, width // factor)
    to_pixels = prepared.reference_pixels if role == "reference" else prepared.moving_pixels
    expected = waves(to_pixels(pixel_points(shape)), shape)
    assert np.corrcoef(getattr(prepared, role).ravel(), expected.ravel())[0, 1] > 0.998
    assert to_pixels(np.zeros((1, 2)))[0].tolist() == [(factor - 1) / 2] * 2


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_both_roads_to_working_resolution_agree(factor: int) -> None:
    """The reference is averaged in blocks, a georeferenced moving image is resampled: one picture, one result."""
    at: Geotransform = (10, 0, 500000, 0, -10, 4000000)
    image = place(waves(pixel_points((240, 180)), (240, 180)), at)
    prepared = run(image, image, longest=240 // factor)
    pad = round(prepared.starts[0].matrix[0, 2])
    np.testing.assert_allclose(prepared.moving[:, pad:-pad, pad:-pad], prepared.reference, atol=1e-4)
    assert not prepared.moving_mask[: pad - 1].any()


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("georeferenced", [False, True])
def test_affine_of_undoes_the_reduction(factor: int, georeferenced: bool) -> None:
    """What is seen at working resolution of a known affine comes back as that affine."""
    grid: Geotransform | None = (10, 0, 500000, 0, -10, 4000000) if georeferenced else None
    image = place(make_pair(3, 240).reference, grid)
    prepared = run(image, image, longest=240 // factor)
    truth = AffineTransform.from_parameters(rotation_deg=3, scale=1.05, shift=(7.25, -4.5), centre=(100, 90))
    # The definition: working reference -> reference pixels -> truth -> coordinates of the moving working pixels.
    found = prepared.moving_pixels.inverse.after(truth).after(prepared.reference_pixels)
    np.testing.assert_allclose(prepared.affine_of(found).matrix, truth.matrix, atol=1e-9)
    still = prepared.affine_of(prepared.starts[0])
    np.testing.assert_allclose(still.matrix, np.eye(2, 3), atol=1e-9)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_field_of_scales_values_and_places(factor: int) -> None:
    image = place(make_pair(3, 240).reference)
    prepared = run(image, image, longest=240 // factor)
    rng = np.random.default_rng(0)
    found = FieldTransform(rng.normal(0, 2, (2, 9, 7)), (1.0, 2.0), (8.0, 6.0))
    field = prepared.field_of(found)
    working = rng.uniform(0, 60, (50, 2))
    original = prepared.reference_pixels(working)
    np.testing.assert_allclose(field.displacement(original), factor * found.displacement(working), atol=1e-9)


@pytest.mark.parametrize("factor", [1, 2])
def test_moving_pixels_of_georeferenced_images_show_their_ground(factor: int) -> None:
    """A moving image that tells its own map position is found at the right place of the reference's grid."""
    reference_at: Geotransform = (10, 0, 500000, 0, -10, 4000000)
    moving_at: Geotransform = (7, 0, 499830, 0, -7, 4000210)
    reference = place(ramp(200, 200, reference_at), reference_at)
    moving = place(ramp(420, 420, moving_at), moving_at)
    prepared = run(moving, reference, longest=200 // factor, radius=30)
    assert prepared.factor == factor
    pad = round(prepared.starts[0].matrix[0, 2])
    assert pad == -(-30 // factor) + 8
    height, width = prepared.moving_mask.shape
    assert prepared.moving.shape[1:] == (height, width)
    # Both were stretched in the same way if they lie on the same ground, so compare where positions are equal.
    where = prepared.moving_pixels(pixel_points((height, width))).reshape(height, width, 2)
    inner = where[pad:-pad, pad:-pad]
    h, w = prepared.reference_mask.shape
    np.testing.assert_allclose(inner.reshape(-1, 2), prepared.reference_pixels(pixel_points((h, w))), atol=1e-9)


@pytest.mark.parametrize("gsd", [6.0, 10.0, 17.0])
def test_a_georeferenced_moving_image_is_resampled_to_the_right_ground(gsd: float) -> None:
    at: Geotransform = (10, 0, 500000, 0, -10, 4000000)
    moving_at: Geotransform = (gsd, 0, 500000 - 413, 0, -gsd, 4000000 + 437)

    def seen(transform: Geotransform, side: int) -> Raster:
        x, y = (Grid(side, side, transform).to_map(pixel_points((side, side))) - (500000, 4000000)).T / 40
        return place((np.sin(x) * np.sin(y)).reshape(1, side, side), transform)

    prepared = run(seen(moving_at, round(2900 / gsd)), seen(at, 200), radius=20)
    pad = round(prepared.starts[0].matrix[0, 2])
    inner = prepared.moving[0, pad : pad + 200, pad : pad + 200]
    assert prepared.moving_mask.all()
    # A quarter of a pixel of misplacement gives 0.998.
    assert np.corrcoef(inner.ravel(), prepared.reference[0].ravel())[0, 1] > 0.9995


def test_pixel_mode_starts() -> None:
    picture = make_pair(3, 256).reference
    same = run(place(picture[:, :200, :200]), place(picture[:, :200, :200]))
    np.testing.assert_array_equal(same.starts[0].matrix, np.eye(2, 3))
    near = run(place(picture[:, :210, :196]), place(picture[:, :200, :200]))
    assert len(near.starts) == 1
    np.testing.assert_allclose(near.starts[0](np.array([[99.5, 99.5]])), [[97.5, 104.5]])  # centre on centre
    double = run(place(picture), place(picture[:, ::2, ::2]))
    centres = np.array([[63.5, 63.5]])
    for start in double.starts:
        np.testing.assert_allclose(start(centres), [[127.5, 127.5]])
    stretched = double.starts[1]
    np.testing.assert_allclose(stretched(np.array([[-0.5, -0.5], [127.5, 127.5]])), [[-0.5, -0.5], [255.5, 255.5]])


# --- starts without georeferences, from what is valid ---------------------------------------------------------------


def valid(shape: tuple[int, int], rows: slice = slice(None), columns: slice = slice(None)) -> BoolArray:
    """A mask (H, W) of a frame that is valid in a part only."""
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return mask


SAME = AffineTransform.identity()


def lands(starts: tuple[AffineTransform, ...], points: list[list[float]], expected: list[list[float]]) -> list[bool]:
    """For each start whether it leads the points to the expected ones."""
    return [bool(np.allclose(one(np.array(points)), np.array(expected), atol=1e-9)) for one in starts]


def test_content_off_centre_in_a_frame_is_expected_where_it_is() -> None:
    """The frames on each other first, then the middle of what is valid on the middle of what is valid."""
    reference = valid((100, 120))
    moving = valid((160, 200), slice(50, 150), slice(70, 190))
    starts = _guesses(reference, moving, SAME)
    assert lands(starts, [[59.5, 49.5]], [[99.5, 79.5]]) == [True, True, False]  # centred, and stretched to the frame
    assert lands(starts, [[0.0, 0.0], [119.0, 99.0]], [[70.0, 50.0], [189.0, 149.0]]) == [False, False, True]


@pytest.mark.parametrize("role", ["moving", "reference"])
def test_the_frame_may_be_the_references_or_the_moving_images(role: str) -> None:
    part, frame = valid((100, 100), slice(60, 90), slice(5, 35)), valid((100, 100))
    pair = (part, frame) if role == "reference" else (frame, part)
    starts = _guesses(*pair, SAME)
    np.testing.assert_array_equal(starts[0].matrix, np.eye(2, 3))
    assert len(starts) == 3
    centres = [[19.5, 74.5]], [[49.5, 49.5]]
    here, there = centres if role == "reference" else centres[::-1]
    assert lands(starts, here, there) == [False, True, True]
    scale = starts[2].matrix[0, 0]
    assert scale == pytest.approx(100 / 30 if role == "reference" else 0.3)
    assert starts[1].matrix[0, 0] == 1.0


def test_content_of_other_sizes_is_stretched_to_the_same_extent() -> None:
    reference = valid((120, 150), slice(20, 80), slice(10, 110))
    moving = valid((150, 130), slice(30, 120), slice(40, 120))
    starts = _guesses(reference, moving, SAME)
    corners, there = [[9.5, 19.5], [109.5, 79.5]], [[39.5, 29.5], [119.5, 119.5]]  # outer edges of the outer pixels
    (stretched,) = (one for one, fits in zip(starts, lands(starts, corners, there), strict=True) if fits)
    assert np.diag(stretched.matrix[:, :2]) == pytest.approx((0.8, 1.5))
    assert any(lands(starts, [[59.5, 49.5]], [[79.5, 74.5]]))
    assert len(starts) == 4  # frames and contents, each centred and stretched: 0.87 x 1.25 is no similarity


@pytest.mark.parametrize("role", ["moving", "reference"])
def test_holes_that_leave_the_extent_change_nothing(role: str) -> None:
    """Water, clouds, a swath at an angle: the first and last valid row and column count."""
    whole = valid((100, 140), slice(10, 90), slice(50, 130))
    holed = whole & (np.random.default_rng(0).random(whole.shape) > 0.7)
    holed[10, 60], holed[89, 80], holed[40, 50], holed[70, 129] = True, True, True, True
    holed[30:60, 60:100] = False
    other = valid((100, 140))
    pairs = [(mask, other) if role == "reference" else (other, mask) for mask in (whole, holed)]
    plain, spoilt = (_guesses(*pair, SAME) for pair in pairs)
    assert len(plain) == 3
    for one, same in zip(plain, spoilt, strict=True):
        np.testing.assert_array_equal(same.matrix, one.matrix)


def test_a_hole_that_changes_the_extent_moves_the_start() -> None:
    mask = valid((100, 140))
    mask[:, :30] = False
    starts = _guesses(valid((100, 140)), mask, SAME)
    assert any(lands(starts, [[69.5, 49.5]], [[84.5, 49.5]]))


@pytest.mark.parametrize("rim", [1, 3])
def test_starts_that_nearly_agree_are_one(rim: int) -> None:
    """A rim of no-data of a few pixels moves nothing that a search would notice."""
    inner = valid((200, 200), slice(rim, -rim), slice(rim, None))
    for pair in ((valid((200, 200)), inner), (inner, valid((200, 200))), (inner, inner)):
        (only,) = _guesses(*pair, SAME)
        np.testing.assert_array_equal(only.matrix, np.eye(2, 3))


def test_masks_without_anything_valid_are_their_frames() -> None:
    nothing = np.zeros((90, 110), bool)
    (only,) = _guesses(nothing, valid((90, 110), slice(0, 88)), SAME)
    np.testing.assert_array_equal(only.matrix, np.eye(2, 3))


@pytest.mark.parametrize("factor", [1, 2])
def test_starts_know_the_masks_at_working_resolution(factor: int) -> None:
    """Through `prepare`: content of the moving image in the corner of a declared no-data frame."""
    picture = make_pair(3, 240).reference
    framed = np.zeros((3, 300, 360), picture.dtype)
    framed[:, 50:290, 100:340] = picture
    prepared = run(
        place(framed, mask=valid((300, 360), slice(50, 290), slice(100, 340))), place(picture), longest=240 // factor
    )
    assert prepared.factor == factor
    expected = AffineTransform.from_parameters(shift=(100.0, 50.0)).matrix
    off = [np.abs(prepared.affine_of(start).matrix - expected).max() for start in prepared.starts]
    assert off[0] > 20
    assert min(off) < 1e-9


@pytest.mark.parametrize("factor", [2, 3])
def test_reduction_is_the_mean_of_the_valid_pixels(factor: int) -> None:
    rng = np.random.default_rng(0)
    data = rng.uniform(0, 100, (1, 180, 180))
    mask = rng.random((180, 180)) > 0.3
    spoilt = np.where(mask, data, np.nan)
    reference = place(make_pair(3, 180).reference)
    clean = run(place(data, mask=mask), reference, longest=180 // factor)
    dirty = run(place(spoilt, mask=mask), reference, longest=180 // factor)
    np.testing.assert_array_equal(clean.moving, dirty.moving)
    blocks = (180 // factor, factor, 180 // factor, factor)
    share = mask.reshape(blocks).mean((1, 3))
    np.testing.assert_array_equal(clean.moving_mask, share > 0.5)
    mean = np.nanmean(spoilt.reshape(blocks), axis=(1, 3))
    kept = clean.moving_mask
    rank = np.argsort(np.argsort(mean[kept]))
    seen = np.argsort(np.argsort(clean.moving[0][kept], kind="stable"))
    assert np.corrcoef(rank, seen)[0, 1] > 0.999  # the stretch keeps the order


@pytest.mark.parametrize("georeferenced", [False, True])
@pytest.mark.parametrize("role", ["moving", "reference"])
@pytest.mark.parametrize("bands", [(4,), (0,), (1, 7), (-1,)])
def test_a_band_that_is_not_there_is_refused(georeferenced: bool, role: str, bands: tuple[int, ...]) -> None:
    grid: Geotransform | None = (10, 0, 500000, 0, -10, 4000000) if georeferenced else None
    image = place(make_pair(3, 128).reference, grid)
    with pytest.raises(ConfigError, match=r"has no band|band numbers from 1"):
        run(image, image, **{f"{role}_bands": bands})


def test_chosen_bands_are_the_ones_used() -> None:
    data = make_pair(3, 128).reference
    noise = np.random.default_rng(0).integers(0, 255, (2, 128, 128), dtype=np.uint8)
    image = place(np.concatenate([noise, data]))
    alone = run(place(data[1:2]), place(data))
    chosen = run(image, image, moving_bands=(4,), reference_bands=(3, 4, 5))
    np.testing.assert_array_equal(chosen.moving, alone.moving)
    np.testing.assert_array_equal(chosen.reference, alone.reference)
    assert any("band 4 of 5" in note for note in chosen.notes)


@pytest.mark.parametrize("role", ["moving", "reference"])
def test_too_few_valid_pixels_are_refused(role: str) -> None:
    good = make_pair(3, 128).reference
    mask = np.zeros((128, 128), bool)
    mask[:40, :40] = True
    bad = place(good, mask=mask)
    pair = (bad, place(good)) if role == "moving" else (place(good), bad)
    with pytest.raises(NoDataError, match="valid pixels"):
        run(*pair)


def test_footprints_that_overlap_but_hold_nothing_in_common_are_refused() -> None:
    at: Geotransform = (10, 0, 500000, 0, -10, 4000000)
    data = make_pair(3, 128).reference
    left, right = np.zeros((128, 128), bool), np.zeros((128, 128), bool)
    left[:, :60], right[:, 66:] = True, True
    with pytest.raises(NoOverlapError, match="share only"):
        run(place(data, at, left), place(data, at, right))


def prepared(moving: np.ndarray, reference: np.ndarray, given: AffineTransform = SAME) -> Prepared:
    """Without georeferences, but for a map that is given."""
    cfg = make_config({"moving_modality": "optical"})
    return prepare(place(moving), place(reference), given, cfg, longest=4096, radius_px=40.0)


@pytest.mark.parametrize("ratio", [0.27, 0.4, 3.3, 8.0])
def test_a_much_coarser_or_finer_image_is_brought_to_the_references_pixels(ratio: float) -> None:
    """One resolution for the search: the guess that both show the same ground, and no oversampled windows."""
    reference = make_pair(3, 240).reference
    side = round(240 * ratio)
    moving = np.moveaxis(cv2.resize(np.moveaxis(reference, 0, -1), (side, side), interpolation=cv2.INTER_AREA), -1, 0)
    found = prepared(moving, reference)
    assert found.moving.shape[1:] == (256, 256)  # eight pixels around
    corner = found.starts[0](np.zeros((1, 2)))
    np.testing.assert_allclose(corner, [[8.0, 8.0]], atol=1e-9)
    there = found.affine_of(found.starts[0])(np.array([[-0.5, -0.5], [239.5, 239.5]]))
    np.testing.assert_allclose(there, [[-0.5, -0.5], [side - 0.5, side - 0.5]], atol=1e-6)
    # The other guess, pixel for pixel and centre on centre, is still among the starts.
    other = found.affine_of(found.starts[1])(np.array([[119.5, 119.5], [120.5, 119.5]]))
    np.testing.assert_allclose(np.diff(other, axis=0), [[1.0, 0.0]], atol=1e-9)
    np.testing.assert_allclose(other[0], (side - 1) / 2, atol=1e-9)
    same, here = found.moving[:, 8:-8, 8:-8], found.reference
    assert np.corrcoef(same.ravel(), here.ravel())[0, 1] > (0.8 if ratio < 1 else 0.95)


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_pixels_of_about_the_same_size_stay_as_they_are(ratio: float) -> None:
    reference = make_pair(3, 240).reference
    side = round(240 * ratio)
    moving = np.moveaxis(cv2.resize(np.moveaxis(reference, 0, -1), (side, side), interpolation=cv2.INTER_AREA), -1, 0)
    assert prepared(moving, reference).moving.shape[1:] == (side, side)


def test_the_scale_of_a_given_map_counts_too() -> None:
    """Tie points may say that the moving image is six times as coarse, although both have the same size."""
    reference = make_pair(3, 240).reference
    given = AffineTransform.from_parameters(scale=1 / 6, shift=(100.0, 90.0))
    found = prepared(reference, reference, given)
    np.testing.assert_allclose(found.affine_of(found.starts[0]).matrix, given.matrix, atol=1e-9)
    assert found.moving.shape[1] > 300  # the search radius around the reference
