import json
from dataclasses import replace

import numpy as np
import pytest

from somareg.errors import ConfigError, InputError, OutputError, ReadError
from somareg.lab.evaluate.peers.base import Prediction, affine_displacement
from somareg.lab.evaluate.results import by_lines
from somareg.lab.evaluate.run import evaluate
from somareg.lab.evaluate.sampling import make_list
from somareg.lab.evaluate.table import COLUMNS, load_results, rich_table, table


class Oracle:
    """Knows the answers of a list in order; gives up on the second and is unsure about it."""

    name = "oracle"

    def __init__(self, samples):
        self.samples, self.turn = samples, 0

    def __call__(self, moving, reference, *, level, seed, known):
        sample = self.samples[self.turn % len(self.samples)]
        self.turn += 1
        if sample.index == 1:
            return Prediction(None, confidence=0.1, decision="no-go")
        return Prediction(affine_displacement(sample.matrix, moving.shape), 0.9, "go", 0.5)


@pytest.fixture
def lists(data_dir, info):
    return [make_list(data_dir, info, "test", levels=["m", "H"], count=5)]


def run(data_dir, lists, out, methods=("identity", "border_only"), **options):
    return evaluate(data_dir, [], ["m", "H"], methods, out_dir=out, lists=lists, **options)


def stripped(path):
    """A result without what may differ between runs: times and memory."""
    content = json.loads(path.read_text())
    for cell in content["cells"]:
        del cell["summary"]["seconds_median"], cell["summary"]["peak_memory_mb"]
        for record in cell["records"]:
            del record["seconds"]
    return content


def test_a_rerun_gives_the_same_numbers(data_dir, lists, tmp_path):
    methods = ("identity", "border_only", "phase_correlation", "sift", "ecc")
    run(data_dir, lists, tmp_path / "a", methods)
    run(data_dir, lists, tmp_path / "b", methods)
    for name in methods:
        assert stripped(tmp_path / "a" / f"{name}.json") == stripped(tmp_path / "b" / f"{name}.json")


def test_a_file_has_one_record_per_line_and_can_be_read_back(data_dir, lists, tmp_path):
    run(data_dir, lists, tmp_path)
    text = (tmp_path / "identity.json").read_text()
    content = json.loads(text)
    assert by_lines(content) == text
    records = [json.dumps(record) for cell in content["cells"] for record in cell["records"]]
    assert records
    assert [line.rstrip(",") for line in text.splitlines() if line.startswith('{"index"')] == records
    empty = {"method": "none", "cells": [{"set": "a", "records": []}]}
    assert json.loads(by_lines(empty)) == empty
    with pytest.raises(ValueError, match="JSON"):
        by_lines({"method": "none", "cells": [{"set": "a", "records": [{"rmse_px": float("inf")}]}]})


def test_the_cheater_scores_exactly_like_identity(data_dir, lists, tmp_path):
    run(data_dir, lists, tmp_path)
    identity, cheater = (stripped(tmp_path / f"{name}.json")["cells"] for name in ("identity", "border_only"))
    assert identity == cheater
    assert identity[0]["records"][0]["rmse_px"] > 0.1


def test_figures_of_a_method_that_knows(data_dir, lists, tmp_path):
    samples = lists[0].samples["m"]
    (summary,) = evaluate(data_dir, [], ["m"], [Oracle(samples)], out_dir=tmp_path, lists=lists)
    assert (summary["method"], summary["n"], summary["failures"]) == ("oracle", 5, 1)
    assert set(summary["cmr"].values()) == {0.8} and summary["auc"] == pytest.approx(0.8, abs=1e-5)
    assert summary["auroc_2px"] == 1.0
    assert (summary["go"], summary["go_of_good"], summary["false_go"]) == (0.8, 1.0, 0.0)
    content = json.loads((tmp_path / "oracle.json").read_text())
    assert content["cells"][0]["records"][1]["rmse_px"] is None  # infinite
    assert content["machine"]["threads_opencv"] >= 1 and content["protocol"] == 1


def test_limit_and_progress(data_dir, lists, tmp_path):
    seen = []
    summaries = run(data_dir, lists, tmp_path, limit=2, progress=lambda *a: seen.append(a))
    assert [s["n"] for s in summaries] == [2, 2, 2, 2]
    assert seen[0] == ("identity mini m", 1, 8) and seen[-1] == ("border_only mini H", 8, 8)


def test_cells_of_other_levels_are_kept_and_the_same_cell_is_replaced(data_dir, lists, tmp_path):
    for levels in (["m"], ["H"], ["m"]):
        evaluate(data_dir, [], levels, ["identity"], out_dir=tmp_path, lists=lists)
    cells = stripped(tmp_path / "identity.json")["cells"]
    assert sorted(cell["level"] for cell in cells) == ["H", "m"]
    evaluate(data_dir, [], ["m"], ["identity"], out_dir=tmp_path, lists=lists, seed=1)
    assert [cell["level"] for cell in stripped(tmp_path / "identity.json")["cells"]] == ["m"]


def test_table_quotes_nothing_below_the_residual(data_dir, lists, tmp_path):
    coarse = [replace(lists[0], quoted_from=3.0)]
    evaluate(data_dir, [], ["m"], ["identity", Oracle(lists[0].samples["m"])], out_dir=tmp_path, lists=coarse)
    text = table(tmp_path)
    head, _, first, second = text.splitlines()[:4]
    assert head == "| " + " | ".join(COLUMNS) + " |"
    cells = dict(zip(COLUMNS, (cell.strip() for cell in second.strip("|").split("|")), strict=True))
    assert [cells[c] for c in ("set", "level", "method", "n")] == ["mini", "m", "oracle", "5"]
    assert [cells[f"CMR@{k}"] for k in ("0.5", "1", "2", "3", "5")] == ["–", "–", "–", "80", "80"]
    assert cells["CE90 px"] == "∞"  # a fifth of the check points belongs to a failure
    assert "identity" in first and "CMR quoted from 3 px" in text
    assert len(rich_table(tmp_path).rows) == 2


class Affine:
    """Knows the affine of every sample in order, and nothing of its warp."""

    name = "affine"

    def __init__(self, samples):
        self.samples, self.turn = samples, 0

    def __call__(self, moving, reference, *, level, seed, known):
        sample = self.samples[self.turn]
        self.turn += 1
        return Prediction(affine_displacement(sample.matrix, moving.shape))


def cells_of(line):
    return dict(zip(COLUMNS, (cell.strip() for cell in line.strip("|").split("|")), strict=True))


def test_rows_of_level_n_tell_what_is_left_of_the_warp(data_dir, info, tmp_path):
    made = make_list(data_dir, replace(info, crop=128), "test", levels=["m", "N1", "N4"], count=4)
    made = replace(made, quoted_from=2.0)
    samples = [sample for level in ("m", "N1", "N4") for sample in made.samples[level]]
    summaries = evaluate(data_dir, [], ["m", "N"], [Affine(samples)], out_dir=tmp_path, lists=[made])
    assert [(s["level"], s["n"]) for s in summaries] == [("m", 4), ("N1", 4), ("N4", 4)]
    assert summaries[0]["left"] is None
    for summary in summaries[1:]:  # over the whole crop it would be 1
        assert list(summary["left"]) == ["60", "120"]
        assert all(0.8 < share < 1.2 for share in summary["left"].values())
    assert summaries[2]["median_px"] == pytest.approx(4 * np.mean(list(summaries[2]["left"].values())), rel=0.1)
    records = json.loads((tmp_path / "affine.json").read_text())["cells"][2]["records"]
    assert [(r["warp_px"], r["warp_length_px"]) for r in records] == [(4.0, 60.0), (4.0, 120.0)] * 2
    rows = [cells_of(line) for line in table(tmp_path).splitlines()[2:5]]
    left = [(row["level"], row["left@60"], row["left@120"]) for row in rows]
    assert left[0] == ("m", "–", "–") and left[1] == ("N1", "–", "–")  # 1 px, with labels off by up to 2
    assert left[2][0] == "N4" and 80 < int(left[2][1]) < 120 and 80 < int(left[2][2]) < 120


def test_a_method_that_gives_up_leaves_infinitely_much(data_dir, info, tmp_path):
    class Never:
        name = "never"

        def __call__(self, moving, reference, *, level, seed, known):
            return Prediction(None)

    made = make_list(data_dir, replace(info, crop=128), "test", levels=["N4"], count=1)  # 60 px alone
    (summary,) = evaluate(data_dir, [], ["N4"], [Never()], out_dir=tmp_path, lists=[made])
    assert summary["left"] == {"60": None}
    row = cells_of(table(tmp_path).splitlines()[2])
    assert (row["left@60"], row["left@120"]) == ("∞", "–")


def test_pairs_without_labels_get_verdicts_only(data_dir, lists, tmp_path):
    unlabelled = replace(lists[0], quoted_from=None, role="unlabelled", residual="an unknown amount")
    samples = lists[0].samples["m"]
    found = evaluate(data_dir, [], ["m"], ["identity", Oracle(samples)], out_dir=tmp_path, lists=[unlabelled])
    assert (found[1]["go"], found[1]["n"]) == (0.8, 5)
    for key in ("cmr", "median_px", "auc", "left", "ce90_px", "auroc_2px", "false_go", "failures"):
        assert found[1][key] is None
    assert found[0]["go"] is None
    records = json.loads((tmp_path / "oracle.json").read_text())["cells"][0]["records"]
    assert {record["rmse_px"] for record in records} == {None} and records[0]["decision"] == "go"
    identity, oracle = (cells_of(line) for line in table(tmp_path).splitlines()[2:4])
    assert (oracle["set"], oracle["go"], identity["go"]) == ("mini (unlabelled)", "80", "–")
    told = COLUMNS[COLUMNS.index("CMR@0.5") : COLUMNS.index("go")]
    assert {oracle[column] for column in (*told, "false go")} == {"–"}
    assert "verdicts only" in table(tmp_path)


def test_a_displacement_of_another_size_is_refused(data_dir, lists, tmp_path):
    class Small:
        name = "small"

        def __call__(self, moving, reference, *, level, seed, known):
            return Prediction(np.zeros((2, 8, 8), np.float32))

    with pytest.raises(
        InputError, match=r"'small' returned a displacement \(2, 8, 8\); it is \(2, H, W\) \(2, 96, 96\)"
    ):
        evaluate(data_dir, [], ["m"], [Small()], out_dir=tmp_path, lists=lists)


class Learned(Oracle):
    """An oracle with weights."""

    def __init__(self, samples, name, preset, parameters, weights):
        super().__init__(samples)
        self.name, self.preset, self.parameters, self.weights = name, preset, parameters, weights


def test_one_table_holds_all_methods_in_order_with_what_they_cost(data_dir, lists, tmp_path):
    samples = lists[0].samples["m"]
    methods = [
        Learned(samples, "ours-precise", "precise", 1_312_000, "a"),
        Learned(samples, "ours", "base", 1_312_000, "a"),
        Learned(samples, "ours-fast", "fast", 1_312_000, "a"),
        Learned(samples, "published", "base", 522_267, "b"),
        Learned(samples, "orientation", "base", 0, None),
        "identity",
    ]
    evaluate(data_dir, [], ["m"], methods, out_dir=tmp_path, lists=lists)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(tmp_path).splitlines()[:8]]
    assert [line[2:5] for line in lines[2:]] == [
        ["identity", "–", "–"],
        ["orientation", "base", "–"],
        ["published", "base", "522 k"],
        ["ours-fast", "fast", "1.31 M"],
        ["ours", "base", "1.31 M"],
        ["ours-precise", "precise", "1.31 M"],
    ]
    for line in lines[2:]:
        assert float(line[COLUMNS.index("s/pair")]) >= 0 and float(line[COLUMNS.index("MB")]) > 20


def test_results_of_other_weights_are_not_kept_beside_the_new_ones(data_dir, lists, tmp_path):
    def measure(level, weights):
        method = Learned(lists[0].samples[level], "ours", "base", 10, weights)
        evaluate(data_dir, [], [level], [method], out_dir=tmp_path, lists=lists)
        content = json.loads((tmp_path / "ours.json").read_text())
        assert content["weights"] == weights
        return [cell["level"] for cell in content["cells"]]

    assert measure("m", "a") == ["m"]
    assert measure("H", "a") == ["m", "H"]
    assert measure("H", "b") == ["H"]


def test_bad_requests_are_named(data_dir, lists, tmp_path):
    with pytest.raises(ConfigError, match="unknown level 'X'"):
        evaluate(data_dir, [], ["X"], ["identity"], out_dir=tmp_path, lists=lists)
    with pytest.raises(ConfigError, match="unknown set"):
        evaluate(data_dir, ["nowhere"], ["m"], ["identity"], out_dir=tmp_path)
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        evaluate(data_dir, [], ["m"], ["identity"], out_dir=tmp_path)
    with pytest.raises(ReadError, match="not found"):
        evaluate(data_dir, ["sih"], ["m"], ["identity"], out_dir=tmp_path, limit=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        run(data_dir, lists, tmp_path / "file")


def test_bad_result_folders_are_named(tmp_path):
    with pytest.raises(ReadError, match="holds no result"):
        table(tmp_path)
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(InputError, match=r"x\.json is not a result"):
        load_results(tmp_path)


def test_a_folder_that_the_table_cannot_read_is_told_before_anything_is_measured(data_dir, lists, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "x.json").write_text("[]")
    told = []
    with pytest.raises(InputError, match=r"x\.json is not a result .*; give another folder"):
        evaluate(
            data_dir,
            [],
            ["m"],
            ["identity"],
            out_dir=out,
            lists=lists,
            progress=lambda *what: told.append(what),
        )
    assert not told
    assert [path.name for path in out.iterdir()] == ["x.json"]


def test_infinite_medians_are_written_as_such(data_dir, lists, tmp_path):
    class Never:
        name = "never"

        def __call__(self, moving, reference, *, level, seed, known):
            return Prediction(None, confidence=0.0)

    (summary,) = evaluate(data_dir, [], ["m"], [Never()], out_dir=tmp_path, lists=lists)
    assert summary["median_px"] is None and summary["auroc_2px"] is None
    assert "| ∞ | 0.000 | ∞ |" in table(tmp_path)
