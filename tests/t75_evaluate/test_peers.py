import builtins
import hashlib

import cv2
import numpy as np
import pytest

from somareg.errors import ConfigError, EstimationError, UnsupportedError, WeightsError
from somareg.geometry import AffineTransform
from somareg.lab.evaluate.metrics import point_errors, rmse
from somareg.lab.evaluate.peers import METHODS, make_method, make_methods
from somareg.lab.evaluate.peers.base import Known, affine_displacement, gradient_magnitude, grey, well_inside
from somareg.register import api
from somareg.soma.weights import DEFAULT_WEIGHTS, store
from tests.small_network import save_network, small_network

SIDE = 160
PEERS = ["phase_correlation", "sift", "ecc", "mattes_mi"]


@pytest.fixture
def easy_pair():
    """Same sensor, a shift of some pixels: every peer must solve it, which fixes the signs of its convention."""
    rng = np.random.default_rng(5)
    ground = cv2.GaussianBlur(rng.uniform(0, 255, (400, 400)).astype(np.float32), (0, 0), 3)
    ground = cv2.normalize(ground, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    y, x, dy, dx = 120, 120, 4, -3
    reference = ground[y : y + SIDE, x : x + SIDE]
    moving = ground[y - dy : y - dy + SIDE, x - dx : x - dx + SIDE]
    matrix = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]])
    return moving, np.stack([reference] * 3), matrix


@pytest.mark.parametrize("name", PEERS)
def test_peers_solve_an_easy_pair_and_repeat(name, easy_pair):
    if name == "mattes_mi":
        pytest.importorskip("SimpleITK")
    moving, reference, matrix = easy_pair
    method = make_method(name)
    assert method.name == name
    prediction = method(moving, reference, level="m", seed=0)
    assert prediction.displacement.dtype == np.float32 and prediction.displacement.shape == (2, SIDE, SIDE)
    assert rmse(point_errors(prediction.displacement, matrix, (SIDE, SIDE))) < 0.5
    assert prediction.confidence > 0
    again = make_method(name)(moving, reference, level="m", seed=0)
    np.testing.assert_allclose(again.displacement, prediction.displacement, rtol=0, atol=1e-4)


def test_ecc_goes_through_its_pyramid():
    rng = np.random.default_rng(2)
    ground = cv2.GaussianBlur(rng.uniform(0, 255, (512, 512)).astype(np.float32), (0, 0), 6)
    ground = cv2.normalize(ground, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    matrix = AffineTransform.from_parameters(rotation_deg=2, shift=(9, -6), centre=(255.5, 255.5)).matrix
    moving = cv2.warpAffine(ground, matrix, (512, 512), borderMode=cv2.BORDER_REFLECT)
    prediction = make_method("ecc")(moving, np.stack([ground] * 3), level="m", seed=0)
    assert rmse(point_errors(prediction.displacement, matrix, (512, 512))) < 0.5


@pytest.mark.parametrize("name", ["sift", "ecc", "phase_correlation", "border_only", "identity"])
def test_constant_images_do_not_crash(name):
    flat = np.full((SIDE, SIDE), 77, np.uint8)
    prediction = make_method(name)(flat, np.stack([flat] * 3), level="H", seed=0)
    assert prediction.displacement is None or np.isfinite(prediction.displacement).all()


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("side", ["moving", "reference"])
def test_peers_take_images_of_two_sizes_in_colour_or_grey(name, side, easy_pair):
    if name == "mattes_mi":
        pytest.importorskip("SimpleITK")
    moving, reference, matrix = easy_pair
    moving = np.stack([moving] * 3)
    if side == "moving":
        moving = np.pad(moving, ((0, 0), (0, 7), (0, 12)), mode="reflect")
    else:
        reference = np.pad(reference[0], ((0, 12), (0, 7)), mode="reflect")
    prediction = make_method(name)(moving, reference, level="whole", seed=0, known=Known("other", "other"))
    assert prediction.displacement.shape == (2, *reference.shape[-2:])
    errors = point_errors(prediction.displacement, matrix, reference.shape[-2:], moving_shape=moving.shape[-2:])
    assert rmse(errors) < 1.0


@pytest.mark.parametrize("name", PEERS)
def test_what_is_declared_as_no_data_has_no_say(name, easy_pair):
    """Both images carry the same loud overlay, fixed to their pixels, that says "no shift"."""
    if name == "mattes_mi":
        pytest.importorskip("SimpleITK")
    moving, reference, matrix = easy_pair
    seen = np.zeros((SIDE, SIDE), bool)
    seen[25:140, 20:145] = True
    overlay = (
        np.random.default_rng(1).choice(np.array([0, 255], np.uint8), (SIDE // 4, SIDE // 4)).repeat(4, 0).repeat(4, 1)
    )
    moving, reference = np.where(seen, moving, overlay), np.where(seen, reference, overlay)
    method = make_method(name)
    errors = []
    for masks in ((seen, seen), (None, None)):
        found = method(moving, reference, level="whole", seed=0, known=Known("other", "other", *masks)).displacement
        errors.append(rmse(point_errors(found, matrix, (SIDE, SIDE), reference_mask=seen, moving_mask=seen)))
    assert errors[0] < 0.6
    assert errors[1] > 2.0 or name in ("ecc", "mattes_mi")


def test_key_points_and_gradients_keep_away_from_frames():
    mask = np.ones((60, 60), bool)
    mask[:, :20] = False
    inside = well_inside(mask)
    assert not inside[:, :27].any() and inside[:, 27:].all()  # the edge of the array is no frame
    ground = np.random.default_rng(0).integers(0, 256, (60, 60)).astype(np.uint8)
    black, white = (np.where(mask, ground, np.uint8(value)) for value in (0, 255))
    np.testing.assert_array_equal(gradient_magnitude(black, mask), gradient_magnitude(white, mask))
    assert np.abs(gradient_magnitude(black) - gradient_magnitude(white)).max() > 0.3


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installation's folder of weights, empty."""
    monkeypatch.setattr(store, "files", lambda name: tmp_path)
    return tmp_path


@pytest.fixture
def shipped(package):
    """Its default weights, small and random."""
    return save_network(small_network(), package / f"{DEFAULT_WEIGHTS}.safetensors")


@pytest.mark.parametrize(
    ("name", "model", "preset"),
    [
        ("orientation", "orientation", "base"),
        ("ours-fast", DEFAULT_WEIGHTS, "fast"),
        ("ours", DEFAULT_WEIGHTS, "base"),
        ("ours-precise", DEFAULT_WEIGHTS, "precise"),
        ("published=FILE", "FILE", "base"),
        ("FILE", "FILE", "base"),
    ],
)
def test_somareg_passes_the_level_and_reports_its_verdict(name, model, preset, shipped, monkeypatch):
    calls = []
    file = save_network(small_network(3), shipped.parent / "meadow.safetensors")
    name, model = name.replace("FILE", str(file)), model.replace("FILE", str(file))

    class Result:
        class displacement:
            array = np.ones((2, 8, 8), np.float32)

        class verdict:
            probability, decision = 0.25, "review"

        predicted_rmse_px = 1.5

    def register(moving, reference, **options):
        calls.append(options)
        return Result

    monkeypatch.setattr(api, "register", register)
    image = np.zeros((8, 8), np.uint8)
    for level in ("m", "R"):
        prediction = make_method(name)(image, np.stack([image] * 3), level=level, seed=4)
    assert [call["search"] for call in calls] == ["auto", "full"]
    assert {(call["model"], call["preset"]) for call in calls} == {(model, preset)} and calls[0]["seed"] == 4
    assert (prediction.confidence, prediction.decision, prediction.predicted_rmse) == (0.25, "review", 1.5)


@pytest.mark.parametrize(
    ("name", "modalities", "model"),
    [
        ("ours", ("sar", "optical"), DEFAULT_WEIGHTS),
        ("ours", ("optical", "sar"), DEFAULT_WEIGHTS),
        ("ours", ("optical", "other"), "auto"),
        ("ours-fast", ("other", "other"), "auto"),
        ("orientation", ("optical", "other"), "orientation"),
        ("published=FILE", ("optical", "other"), "FILE"),
    ],
)
def test_somareg_is_told_what_a_user_would_tell_it(name, modalities, model, shipped, monkeypatch):
    """Where the weights that ship do not apply, `ours` leaves the choice to `auto`; other models are asked for."""
    calls = []
    file = str(save_network(small_network(3), shipped.parent / "meadow.safetensors"))

    def register(moving, reference, **options):
        calls.append(options)
        raise EstimationError("no")

    monkeypatch.setattr(api, "register", register)
    mask = np.ones((8, 8), bool)
    known = Known(modalities[0], modalities[1], moving_mask=mask)
    image = np.zeros((8, 8), np.uint8)
    prediction = make_method(name.replace("FILE", file))(image, image, level="whole", seed=0, known=known)
    assert (prediction.displacement, prediction.decision) == (None, "no-go")
    (asked,) = calls
    assert (asked["moving_modality"], asked["reference_modality"]) == modalities
    assert asked["moving_mask"] is mask and asked["reference_mask"] is None
    assert (asked["model"], asked["search"]) == (model.replace("FILE", file), "auto")


def test_methods_say_which_weights_they_use(shipped):
    file = save_network(small_network(3), shipped.parent / "meadow.safetensors")
    methods = make_methods(["orientation", "ours-fast", "ours", "ours-precise", f"published={file}", str(file)])
    assert [m.name for m in methods] == ["orientation", "ours-fast", "ours", "ours-precise", "published", "meadow"]
    assert [m.preset for m in methods] == ["base", "fast", "base", "precise", "base", "base"]
    ours, theirs = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (shipped, file))
    assert [m.weights for m in methods] == [None, ours, ours, ours, theirs, theirs]
    count = sum(p.numel() for p in small_network().parameters())
    assert [m.parameters for m in methods] == [0] + [count] * 5


@pytest.mark.parametrize("name", ["a b", "../evil", "", "-x", "a/b"])
def test_a_name_that_is_no_file_name_is_not_taken_for_one(name, shipped):
    """The name becomes that of the file of results; what is no name belongs to the path."""
    with pytest.raises(WeightsError, match="does not exist"):
        make_method(f"{name}={shipped}")


def test_a_file_cannot_pose_as_another_method(shipped):
    for name in ("identity", "ours"):
        with pytest.raises(ConfigError, match=f"'{name}' is another method; call the file otherwise: NAME="):
            make_method(f"{name}={shipped}")


def test_ours_needs_the_weights_that_ship(package):
    with pytest.raises(WeightsError, match="not in this installation"):
        make_method("ours")


def test_unknown_method_suggests_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'mattes_mi'"):
        make_method("matesmi")
    assert {"identity", "border_only", "orientation"} <= set(METHODS)


def test_a_missing_extra_is_named(monkeypatch):
    real = builtins.__import__

    def no_sitk(name, *args, **kwargs):
        if name == "SimpleITK":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_sitk)
    with pytest.raises(UnsupportedError, match=r"somareg\[bench\]"):
        make_method("mattes_mi")


def test_helpers_of_the_peers():
    matrix = np.array([[1.0, 0.5, 2.0], [0.0, 1.0, -1.0]])
    displacement = affine_displacement(matrix, (3, 4))
    assert displacement[:, 2, 1].tolist() == [3.0, -1.0]  # x 1 -> 1 + 0.5 * 2 + 2 = 4
    rgb = np.zeros((3, 2, 2), np.uint8)
    rgb[0] = 100
    assert grey(rgb)[0, 0] == 30  # red weighs 0.299
    assert grey(rgb[0]) is not rgb and (grey(rgb[0]) == 100).all()
    edge = np.zeros((20, 20), np.uint8)
    edge[:, 10:] = 200
    assert gradient_magnitude(edge)[10, 9:11].min() > 0.9 and gradient_magnitude(edge)[10, 0] < 0.01
