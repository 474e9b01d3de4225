"""report.json: every number in both units, null and never NaN, versions checked on the way back."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from somareg.errors import InputError, ReadError, UnsupportedError
from somareg.report import Report, build_record, load_report
from somareg.report.plain import plain
from somareg.report.record import residual_vectors
from somareg.types import Decision, Result
from somareg.types.brief import crs_name
from tests.figures import on_squares

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def no_constants(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def test_round_trip_through_a_file_keeps_everything(result: Result, outputs: dict[str, Path], tmp_path: Path) -> None:
    record = build_record(result, outputs)
    path = tmp_path / "report.json"
    path.write_text(record.to_json(), encoding="utf-8")
    assert load_report(path) == record


def test_same_result_gives_same_json_apart_from_the_time(build: Callable[..., Result]) -> None:
    assert build_record(build(), {}, created=WHEN).to_json() == build_record(build(), {}, created=WHEN).to_json()
    assert json.loads(build_record(build(), {}, created=WHEN).to_json())["created"] == "2026-01-02T03:04:05Z"


def test_lengths_are_in_pixels_and_metres(result: Result) -> None:
    figures = build_record(result, {}).figures
    for name in ("predicted_rmse", "predicted_ce90", "misregistration_before", "local_rms", "residual_median"):
        length = getattr(figures, name)
        assert length.px is not None and length.px > 0
        assert length.m == pytest.approx(10 * length.px)
    assert figures.bias is not None and figures.sigma is not None
    assert (figures.bias.x.px, figures.bias.y.m) == pytest.approx((0.03, -0.8))
    assert (figures.sigma.y.px, figures.sigma.x.m) == pytest.approx((0.37, 4.1))


def test_the_error_map_is_told_cell_by_cell(result: Result) -> None:
    told = json.loads(build_record(result, {}).to_json())
    errors = told["error_map"]
    assert errors["worst_place"] == told["quality"]["worst_place"] == result.quality.worst_place
    assert errors["unseen_share"] == pytest.approx(0.214)
    assert errors["worst"] == {"px": pytest.approx(1.3 * 0.4567), "m": pytest.approx(13 * 0.4567)}
    assert [(cell["column"], cell["row"]) for cell in errors["cells"]] == [(n % 6, n // 6) for n in range(36)]
    assert errors["cells"][35]["error"] == {"px": None, "m": None} and errors["cells"][35]["seen"] == 0
    assert errors["cells"][7]["error"]["m"] == pytest.approx(10 * errors["cells"][7]["error"]["px"])
    assert "cells" not in told["quality"]


def test_reports_of_earlier_versions_are_read(result: Result, tmp_path: Path) -> None:
    old = json.loads(build_record(result, {}).to_json())
    del old["verdict"]["headline"], old["error_map"], old["figures"]["bias"], old["figures"]["sigma"]
    old["figures"]["residual_ce90"] = {"px": 1.0, "m": 10.0}
    (tmp_path / "report.json").write_text(json.dumps(old), encoding="utf-8")
    record = load_report(tmp_path / "report.json")
    assert record.error_map is None and record.figures.bias is None
    assert record.headline == replace(result.verdict, worst="").headline


def test_without_georeference_metres_are_null(build: Callable[..., Result]) -> None:
    record = build_record(build(georeferenced=False), {})
    assert record.figures.predicted_rmse.px == pytest.approx(0.4567)
    assert record.figures.predicted_rmse.m is None
    assert record.figures.metres_per_pixel is None
    assert record.moving.crs is None and record.moving.pixel_size is None


def test_affine_is_the_matrix_with_its_parameters(result: Result) -> None:
    affine = build_record(result, {}).affine
    assert np.array_equal(np.array(affine.matrix), result.affine.matrix)  # type: ignore[attr-defined]
    assert (affine.rotation_deg, affine.scale, affine.shift_x.px, affine.shift_y.m) == (0.4, 1.004, 4.2, -21.0)


def test_inputs_and_counts(result: Result) -> None:
    record = build_record(result, {})
    assert record.moving.sha256 == "ab" * 32
    assert (record.moving.width, record.moving.height, record.moving.bands, record.moving.dtype) == (
        300,
        220,
        1,
        "uint8",
    )
    assert record.reference.valid_share == pytest.approx(200 / 220)
    assert record.moving.crs_name == "EPSG:32633"
    assert record.moving.pixel_size == (10.0, 10.0)
    assert record.tie_points.total == 104
    assert record.tie_points.inliers == int(result.tie_points.inlier.sum()) < 104
    assert record.verdict.decision == "go"


@pytest.mark.parametrize("decision", ["go", "review", "no-go"])
@pytest.mark.parametrize("georeferenced", [True, False])
def test_headline_is_that_of_the_verdict(
    build: Callable[..., Result], tmp_path: Path, decision: Decision, georeferenced: bool
) -> None:
    result = build(decision, georeferenced=georeferenced)
    record = build_record(result, {})
    assert record.verdict.headline == record.headline == result.verdict.headline
    content = json.loads(record.to_json())
    del content["verdict"]["headline"]  # as of an earlier version
    (tmp_path / "report.json").write_text(json.dumps(content), encoding="utf-8")
    assert load_report(tmp_path / "report.json").headline == result.verdict.headline


def test_no_go_of_an_earlier_version_claims_no_error_any_more(result: Result, tmp_path: Path) -> None:
    content = json.loads(build_record(result, {}).to_json())
    assert content["figures"]["predicted_rmse"] == {"px": 0.4567, "m": 4.567}
    assert content["error_map"]["places"] and content["quality"]["worst_place"]
    content["verdict"] = {"decision": "no-go", "probability": 0.03, "reasons": ["It fails."]}
    (tmp_path / "report.json").write_text(json.dumps(content), encoding="utf-8")
    record = load_report(tmp_path / "report.json")
    assert record.headline == "No-go: 3 % chance of an error below 2 px; the error is not known."
    for figure in (record.figures.predicted_rmse, record.figures.predicted_ce90):
        assert (figure.px, figure.m) == (None, None)
    claims = "predicted_rmse_px", "predicted_ce90_m", "worst_px", "worst_m", "worst_place", "unseen_share"
    assert [record.quality[name] for name in claims] == [None] * len(claims)
    assert record.error_map is None
    assert record.quality["coverage"] == 0.713


def test_outputs_are_hashed(result: Result, outputs: dict[str, Path]) -> None:
    record = build_record(result, outputs)
    content = outputs["aligned.tif"].read_bytes()
    assert record.outputs["aligned.tif"].sha256 == hashlib.sha256(content).hexdigest()
    assert record.outputs["aligned.tif"].bytes == len(content)
    with pytest.raises(ReadError, match=r"gone\.tif"):
        build_record(result, {"gone.tif": Path("gone.tif")})


def test_nan_and_infinity_become_null(build: Callable[..., Result], tmp_path: Path) -> None:
    result = build("no-go", points=0)
    broken = replace(result.quality, split_half_px=math.inf, peak_zscore=np.float64("nan"), shift_px=(math.nan, 1.0))
    moving = replace(result.moving, nodata=math.nan)
    result = replace(
        result,
        quality=on_squares(broken, 10.0),
        moving=moving,
        settings={"deep": [{"x": math.nan}, np.int64(3)]},
        timings={"a": math.nan},
    )
    text = build_record(result, {}).to_json()
    content = json.loads(text, parse_constant=no_constants)
    assert content["quality"]["split_half_px"] is None
    assert content["quality"]["peak_zscore"] is None
    assert content["figures"]["residual_median"] == {"px": None, "m": None}
    assert content["affine"]["shift_x"] == {"px": None, "m": None}
    assert content["settings"] == {"deep": [{"x": None}, 3]}
    assert content["moving"]["nodata"] == "nan"
    (tmp_path / "report.json").write_text(text, encoding="utf-8")
    assert load_report(tmp_path / "report.json").timings_s == {"a": None}


def test_file_name_of_undecodable_bytes(result: Result) -> None:
    name = b"caf\xe9.tif".decode("utf-8", "surrogateescape")
    record = build_record(replace(result, moving=replace(result.moving, name=name, path=Path(name))), {})
    assert json.loads(record.to_json())["moving"]["path"] == str(Path("caf\\udce9.tif").absolute())


def test_arrays_have_no_path_and_no_hash(result: Result) -> None:
    moving = build_record(replace(result, moving=replace(result.moving, path=None, sha256="")), {}).moving
    assert moving.path is None and moving.sha256 is None


def test_schema_names_the_fields() -> None:
    schema = Report.model_json_schema()
    assert {"schema_version", "verdict", "figures", "quality", "outputs"} <= set(schema["properties"])
    assert schema["properties"]["schema_version"]["default"] == "1.0"


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"", ReadError, "not valid JSON"),
        (b"\x00\xff\xfe", ReadError, "not valid JSON"),
        (b"[" * 100_000, ReadError, "not valid JSON"),
        (b'{"schema_version": "1.0", "figures": NaN}', ReadError, "not valid JSON"),
        (b"[1, 2]", InputError, "no schema_version"),
        (b'{"a": 1}', InputError, "no schema_version"),
        (b'{"schema_version": "2.0"}', UnsupportedError, "reads 1.0"),
        (b'{"schema_version": 1.0}', UnsupportedError, "reads 1.0"),
        (b'{"schema_version": "1.0"}', InputError, "somareg_version"),
        (b'{"schema_version": "1.x"}', InputError, "schema_version"),
    ],
)
def test_bad_reports_are_refused(tmp_path: Path, content: bytes, error: type[Exception], words: str) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(error, match=words) as caught:
        load_report(path)
    assert str(path) in str(caught.value)


def test_missing_report(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="No such file"):
        load_report(tmp_path / "report.json")


def test_a_later_minor_version_stays_readable(result: Result, tmp_path: Path) -> None:
    content = json.loads(build_record(result, {}).to_json()) | {"schema_version": "1.7", "novelty": 1}
    (tmp_path / "r.json").write_text(json.dumps(content), encoding="utf-8")
    assert load_report(tmp_path / "r.json").verdict.decision == "go"


def test_an_impossible_value_is_named(result: Result, tmp_path: Path) -> None:
    content = json.loads(build_record(result, {}).to_json())
    content["moving"]["valid_share"] = 7
    (tmp_path / "r.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=r"moving\.valid_share"):
        load_report(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("wkt", "name"),
    [
        (None, None),
        ('PROJCS["UTM",GEOGCS["WGS 84",AUTHORITY["EPSG","4326"]],AUTHORITY["EPSG","32633"]]', "EPSG:32633"),
        ('PROJCRS["UTM",BASEGEOGCRS["WGS 84",ID["EPSG",4326]],ID["EPSG",32634]]', "EPSG:32634"),
        ('PROJCS["Site grid",GEOGCS["WGS 84",AUTHORITY["EPSG","4326"]],UNIT["metre",1]]', "Site grid"),
        ("garbage" * 20, ("garbage" * 20)[:60]),
    ],
)
def test_crs_name(wkt: str | None, name: str | None) -> None:
    assert crs_name(wkt) == name


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_plain_is_always_json(value: object) -> None:
    json.dumps(plain(value), allow_nan=False, ensure_ascii=False).encode("utf-8")


def test_residual_vectors_have_the_length_of_the_residuals(result: Result) -> None:
    assert np.hypot(*residual_vectors(result).T) == pytest.approx(result.tie_points.residual_px)
