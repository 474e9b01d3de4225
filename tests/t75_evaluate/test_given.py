"""Matchers of others: functions of a module that Python can import."""

import json
import re
import sys
from pathlib import Path
from textwrap import dedent

import cv2
import numpy as np
import pytest

from somareg.cli.main import main
from somareg.errors import ConfigError, InputError
from somareg.lab.evaluate import run
from somareg.lab.evaluate.metrics import point_errors, rmse
from somareg.lab.evaluate.peers import make_method, make_methods
from somareg.lab.evaluate.peers.base import Known
from somareg.lab.evaluate.sampling import make_list
from somareg.lab.evaluate.table import table

MODULE = """
    import numpy as np

    def brightest(image):
        grey = image if image.ndim == 2 else image[0]
        return np.array(np.unravel_index(grey.argmax(), grey.shape))[::-1]

    def shift(reference, moving):
        assert reference.dtype == moving.dtype == np.uint8
        dx, dy = brightest(moving) - brightest(reference)
        return np.array([[1, 0, dx], [0, 1, dy]])

    def field(reference, moving):
        dx, dy = brightest(moving) - brightest(reference)
        return np.broadcast_to(np.array([dx, dy], float)[:, None, None], (2, *reference.shape[-2:]))

    def nested(reference, moving):
        return shift(reference, moving).tolist()

    def gives_up(reference, moving):
        return None

    def masks(reference, moving, moving_mask, reference_mask=None):
        assert moving_mask.shape == moving.shape[-2:] and reference_mask.shape == reference.shape[-2:]
        return np.array([[1.0, 0, (~moving_mask).sum()], [0, 1, (~reference_mask).sum()]])

    def scribbles(reference, moving):
        reference[:], moving[:] = 0, 0
        return np.eye(2, 3)

    def square(reference, moving):
        return np.eye(3)

    def smaller(reference, moving):
        return np.zeros((2, 8, 8))

    def words(reference, moving):
        return "aligned"

    def breaks(reference, moving):
        raise RuntimeError("no\\nmatches")

    def unsure(reference, moving):
        return np.full((2, 3), np.nan)

    NUMBER = 7
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """`mine.matcher`, a package in a folder on the path of this test alone."""
    package = tmp_path / "elsewhere" / "mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "matcher.py").write_text(dedent(MODULE))
    (package / "broken.py").write_text("import a_module_that_nobody_has\n")
    (package / "unfinished.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(package.parent)
    yield package
    for name in [name for name in sys.modules if name == "mine" or name.startswith("mine.")]:
        del sys.modules[name]


def test_the_example_of_the_documentation_works(module, monkeypatch):
    page = (Path(__file__).parents[2] / "benchmarks" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(# my_matcher\.py\n.*?)```", page, re.DOTALL)
    (module.parent / "my_matcher.py").write_text(code)
    assert "orb=my_matcher:match" in page
    noise = np.random.default_rng(3).uniform(0, 255, (260, 260)).astype(np.float32)
    ground = np.rint(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)).astype(np.uint8)
    moving, reference = ground[40:240, 30:230], np.stack([ground[44:244, 27:227]] * 3)
    method = make_method("orb=my_matcher:match")
    found = method(moving, reference, level="m", seed=0).displacement
    assert rmse(point_errors(found, np.array([[1.0, 0, -3], [0, 1, 4]]), (200, 200))) < 0.5
    assert method(np.zeros_like(moving), reference, level="m", seed=0).displacement is None
    monkeypatch.delitem(sys.modules, "my_matcher")


@pytest.fixture
def pair():
    """A bright dot at (20, 30) of the reference, RGB, and at (27, 26) of the moving image, grey and of another size."""
    reference, moving = np.zeros((3, 70, 64), np.uint8), np.zeros((66, 80), np.uint8)
    reference[:, 30, 20], moving[26, 27] = 200, 200
    return moving, reference


def call(function, pair, **known):
    return make_method(f"mine=mine.matcher:{function}")(
        *pair, level="m", seed=0, known=Known("sar", "optical", **known)
    )


@pytest.mark.parametrize("function", ["shift", "field", "nested"])
def test_a_matrix_and_a_displacement_say_the_same(function, pair):
    found = call(function, pair).displacement
    assert found.shape == (2, 70, 64) and found.dtype == np.float32
    assert (found[0] == 7).all() and (found[1] == -4).all()  # reference to moving, not the other way round


def test_none_is_a_refusal_and_nan_a_failure(pair):
    prediction = call("gives_up", pair)
    assert (prediction.displacement, prediction.confidence, prediction.decision) == (None, None, None)
    truth = np.array([[1.0, 0, 7], [0, 1, -4]])
    assert rmse(point_errors(call("unsure", pair).displacement, truth, (70, 64), moving_shape=(66, 80))) == np.inf


def test_masks_are_passed_to_those_who_ask(pair):
    hidden = np.ones((66, 80), bool)
    hidden[:, :2] = False
    found = call("masks", pair, moving_mask=hidden).displacement
    assert (found[0, 0, 0], found[1, 0, 0]) == (2 * 66, 0)
    assert (call("masks", pair).displacement == 0).all()  # without frames everything is data


def test_the_images_of_others_are_not_theirs_to_change(pair):
    before = [image.copy() for image in pair]
    call("scribbles", pair)
    for image, kept in zip(pair, before, strict=True):
        np.testing.assert_array_equal(image, kept)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("square", r"method 'mine' \(mine.matcher:square\) returned an array \(3, 3\); return a matrix \(2, 3\), a"),
        ("smaller", r"returned an array \(2, 8, 8\); return a matrix \(2, 3\), a displacement \(2, 70, 64\) or None"),
        ("words", "returned str, no array of numbers"),
        ("breaks", r"failed \(RuntimeError: no matches\); let it return None where it gives up"),
    ],
)
def test_bad_answers_are_told_in_one_line(function, message, pair):
    with pytest.raises(InputError, match=message) as told:
        call(function, pair)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("mine.nowhere:f", "module 'mine.nowhere' cannot be imported .*ModuleNotFoundError.*PYTHONPATH"),
        ("nobody:f", "module 'nobody' cannot be imported .*PYTHONPATH"),
        ("mine.broken:f", "module 'mine.broken' cannot be imported .*a_module_that_nobody_has"),
        ("mine.unfinished:f", "module 'mine.unfinished' cannot be imported .*SyntaxError"),
        ("mine.matcher:shif", "module 'mine.matcher' has no function 'shif'"),
        ("mine.matcher:NUMBER", "module 'mine.matcher' has no function 'NUMBER'"),
    ],
)
def test_a_function_that_is_not_there_is_told_in_one_line(place, message):
    with pytest.raises(ConfigError, match=f"method 'x': {message}") as told:
        make_method(f"x={place}")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["mine.matcher:shift", "ours=mine.matcher:shift", "identity=mine.matcher:shift"])
def test_a_function_needs_a_name_of_its_own(name):
    with pytest.raises(ConfigError, match=r"a name of its own: NAME=mine\.matcher:shift"):
        make_method(name)


def test_two_methods_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="two methods are called 'mine'"):
        make_methods(["mine=mine.matcher:shift", "mine=mine.matcher:field"])
    assert [m.name for m in make_methods(["a-1=mine.matcher:shift", "b=mine.matcher:field"])] == ["a-1", "b"]


@pytest.mark.parametrize(
    "name", ["mine=mine.matcher", "mine=mine/matcher.py:shift", "mine=:shift", "mine=mine.matcher:"]
)
def test_what_is_no_function_is_an_unknown_method(name):
    with pytest.raises(ConfigError, match="unknown method"):
        make_method(name)


def test_the_command_puts_a_matcher_into_the_table(data_dir, info, tmp_path, monkeypatch, capfd):
    made = make_list(data_dir, info, "test", levels=["m"])
    monkeypatch.setattr(run, "set_lists", lambda *_: [made])
    out = tmp_path / "out"
    arguments = ["eval", "--data", str(data_dir), "--sets", "mini", "--levels", "m", "-o", str(out), "--limit", "3"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--methods", "identity,dots=mine.matcher:shift"])
    shown = capfd.readouterr()
    assert end.value.code == 0, shown.err
    assert "| mini | m | dots | – | – | 3 |" in shown.out
    content = json.loads((out / "dots.json").read_text())
    assert (content["method"], content["function"], content["weights"]) == ("dots", "mine.matcher:shift", None)
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--methods", "dots=mine.matcher:square"])
    shown = capfd.readouterr()
    assert end.value.code == 1 and shown.err.count("\n") == 1 and "return a matrix (2, 3)" in shown.err


def test_cells_of_another_function_are_not_kept(data_dir, info, tmp_path):
    made = [make_list(data_dir, info, "test", levels=["m", "H"], count=2)]
    for level, function in (("m", "shift"), ("H", "shift"), ("H", "gives_up")):
        evaluated = run.evaluate(data_dir, [], [level], [f"x=mine.matcher:{function}"], out_dir=tmp_path, lists=made)
        assert len(evaluated) == 1
    content = json.loads((tmp_path / "x.json").read_text())
    assert [cell["level"] for cell in content["cells"]] == ["H"]
    assert content["cells"][0]["summary"]["failures"] == 2
    assert "∞" in table(tmp_path)
