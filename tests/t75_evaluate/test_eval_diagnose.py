"""`eval --diagnose`: the samples of the table are the ones that are looked at, and the alarms reach the reader."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from somareg.cli.main import main
from somareg.errors import ConfigError, OutputError, WeightsError
from somareg.lab.data.samples import load_stacks
from somareg.lab.data.stacks import TOGETHER, batches
from somareg.lab.evaluate import inside, run
from somareg.lab.evaluate.diagnose import diagnose
from somareg.lab.evaluate.diagnosis import AffineHealth, Spread, StageError, find_alarms
from somareg.lab.evaluate.inside import diagnose_methods, learned
from somareg.lab.evaluate.peers import make_method, make_methods
from somareg.lab.evaluate.peers.identity import Identity
from somareg.lab.evaluate.sample import load_sample
from somareg.lab.evaluate.sampling import make_list
from somareg.lab.evaluate.table import load_results
from somareg.preprocess.normalise import normalise
from tests.small_network import save_network, small_network


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_network(small_network(), tmp_path_factory.mktemp("model") / "meadow.safetensors")


@pytest.fixture
def lists(data_dir, info):
    return [make_list(data_dir, info, "test", levels=["m", "H"], count=6)]


# --- which samples ----------------------------------------------------------------------------------------------------


def test_stacks_hold_the_first_samples_of_each_level_as_the_protocol_cuts_them(data_dir, lists):
    stacks = list(load_stacks(lists, data_dir, ["H", "m", "R"], 2))
    assert [(stack.set, stack.split, stack.level, stack.index) for stack in stacks] == [
        ("mini", "test", "H", (0, 1)),  # nothing at level R
        ("mini", "test", "m", (0, 1)),
    ]
    for stack in stacks:
        for i, sample in enumerate(lists[0].samples[stack.level][:2]):
            expected = load_sample(data_dir, sample)
            np.testing.assert_array_equal(stack[i].moving, expected.moving)
            np.testing.assert_array_equal(stack[i].reference, expected.reference)
            np.testing.assert_array_equal(stack[i].matrix, expected.matrix)
    assert [len(stack) for stack in load_stacks(lists, data_dir, ["m"])] == [6]
    with pytest.raises(ConfigError, match="unknown level 'X'"):
        list(load_stacks(lists, data_dir, ["X"]))


def test_a_batch_is_normalised_as_registration_normalises(data_dir, lists):
    (stack,) = load_stacks(lists, data_dir, ["m"])
    shown = list(batches([stack], "cpu"))
    assert [len(batch) for batch in shown] == [TOGETHER, 6 - TOGETHER]
    valid = np.ones((96, 96), bool)
    for i in range(6):
        batch, k = shown[i // TOGETHER], i % TOGETHER
        for image, raw, modality in (
            (batch.reference[k], stack.reference[i], "optical"),
            (batch.moving[k], stack.moving[i][None], "sar"),
        ):
            expected, _ = normalise(raw.numpy(), valid, modality)
            np.testing.assert_allclose(image.numpy(), expected, atol=0.05)
        np.testing.assert_allclose(batch.truth[k].numpy(), stack.matrix[i].numpy(), rtol=1e-6)
    assert all(batch.modalities == ("optical", "sar") and batch.flow is None for batch in shown)


# --- which methods ----------------------------------------------------------------------------------------------------


def test_a_file_of_weights_is_a_learned_method(model):
    identity, free, file = make_methods(["identity", "orientation", str(model)])
    assert file.name == "meadow"
    assert file.parameters == sum(p.numel() for p in small_network().parameters())
    assert learned([identity, free, file]) == {"meadow": file.network}
    assert learned([identity, free]) == {}


def test_methods_that_share_a_name_are_refused(model, tmp_path):
    with pytest.raises(ConfigError, match="two methods are called 'identity'"):
        make_methods(["identity", "identity"])
    for ending in (".safetensors", ".json"):
        (tmp_path / f"orientation{ending}").write_bytes(model.with_suffix(ending).read_bytes())
    with pytest.raises(ConfigError, match="'orientation' is another method"):
        make_methods(["orientation", str(tmp_path / "orientation.safetensors")])
    with pytest.raises(ConfigError, match="two methods are called 'meadow'; name each once, a file as NAME=FILE"):
        make_methods([str(model), str(model)])
    with pytest.raises(WeightsError, match="does not exist"):
        make_method(str(tmp_path / "nowhere.safetensors"))


# --- what is found ----------------------------------------------------------------------------------------------------


def test_every_learned_method_is_looked_into_on_all_samples(data_dir, lists, model, tmp_path):
    told = []
    (found,) = diagnose_methods(
        data_dir,
        [],
        ["m", "H"],
        [Identity(), make_method(str(model))],
        limit=2,
        out_dir=tmp_path,
        progress=lambda *a: told.append(a),
        lists=lists,
    )
    assert told == [("inside meadow", 2, 4), ("inside meadow", 4, 4)]
    assert (found.name, found.file) == ("meadow", tmp_path / "diagnosis" / "meadow.json")
    network = make_method(str(model)).network
    expected = diagnose(network, batches(load_stacks(lists, data_dir, ["m", "H"], 2), "cpu"))
    assert found.diagnosis == expected
    assert json.loads(found.file.read_text()) == expected.to_json()
    # before any stage the error is that of the identity, which the benchmark measures on every pixel
    start = {stage.name: stage.error_px for stage in expected.stages}["start"]
    summaries = run.evaluate(data_dir, [], ["m", "H"], [Identity()], limit=2, out_dir=tmp_path, lists=lists)
    assert start.count == sum(summary["n"] for summary in summaries) == 4
    records = json.loads((tmp_path / "identity.json").read_text())["cells"]
    worst = max(record["rmse_px"] for cell in records for record in cell["records"])
    assert start.largest == pytest.approx(worst, rel=0.02)
    assert {result["method"] for result in load_results(tmp_path)} == {"identity"}  # a diagnosis is no result


def test_the_attention_of_a_real_networks_fge_is_seen_and_its_collapse_alarms(data_dir, lists):
    """In eval mode the encoder runs its enhancers without their decoder, by another method than `forward`."""
    network = small_network()
    (stack,) = load_stacks(lists, data_dir, ["m"], 1)
    gates = {
        f"encoder.branches.{branch}.enhancers.{stride}.{kind}"
        for branch in ("sar", "optical")
        for stride in (2, 4, 8)
        for kind in ("channel", "spatial")
    }
    found = diagnose(network, stack.batch(slice(0, 1), "cpu"))
    seen = {attention.name: attention for attention in found.attention}
    assert gates <= set(seen)
    assert all(0.3 < seen[name].weight.median < 0.7 for name in gates)  # nearly open before training
    assert not [name for name in gates if seen[name].alarm]
    nn.init.constant_(network.encoder.branches["sar"].enhancers["4"].attention.excite[2].bias, -9.0)
    found = diagnose(network, stack.batch(slice(0, 1), "cpu"))
    assert [a.name for a in found.attention if a.alarm == "collapsed"] == ["encoder.branches.sar.enhancers.4.channel"]
    assert any("sar.enhancers.4.channel: attention is collapsed" in alarm for alarm in found.alarms)
    assert not any(module._forward_hooks for module in network.modules())


def test_a_folder_that_cannot_be_made_is_named(data_dir, lists, model, tmp_path):
    (tmp_path / "diagnosis").write_text("")
    with pytest.raises(OutputError, match="diagnosis"):
        diagnose_methods(data_dir, [], ["m"], [make_method(str(model))], limit=1, out_dir=tmp_path, lists=lists)


# --- alarms -----------------------------------------------------------------------------------------------------------


def spread(*values):
    return Spread.of(torch.tensor(values))


def health(name, *, condition=10.0, refused=0.0, diverged=0.0):
    return AffineHealth(name, spread(condition), spread(1.0), spread(0.0), refused, diverged)


@pytest.mark.parametrize(
    ("errors", "fit", "alarm"),
    [
        ([8.0, 2.0, 0.5], {}, None),
        ([8.0, 2.0, 2.3], {}, "1/2: the median error grows from 2.00 to 2.30 px"),
        ([8.0, 2.0, 2.2], {}, None),  # within chance
        ([8.0, 2.0, 0.5], {"refused": 0.3}, "1/2: 30% of the affine fits were refused"),
        ([8.0, 2.0, 0.5], {"refused": 0.2}, None),
        ([8.0, 2.0, 0.5], {"diverged": 0.01}, "1/2: 1% of the affines diverged"),
        ([8.0, 2.0, 0.5], {"condition": 2e5}, "1/2: fits are ill-conditioned (median 2.0e+05)"),
    ],
)
def test_what_needs_action_alarms_and_nothing_else(errors, fit, alarm):
    stages = tuple(StageError(name, spread(e)) for name, e in zip(("start", "1/8", "1/2"), errors, strict=True))
    found = find_alarms(stages, (), (health("1/8"), health("1/2", **fit)), ())
    assert found == (() if alarm is None else (alarm,))


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(data_dir, lists, tmp_path, monkeypatch, capfd):
    """`somareg eval` on the miniature set; returns exit code, stdout, stderr."""
    for module in (run, inside):
        monkeypatch.setattr(module, "set_lists", lambda data, name, split: [replace(lists[0], set=name, split=split)])

    def call(*arguments):
        capfd.readouterr()
        basic = ["eval", "--data", data_dir, "--sets", "mini", "--levels", "m", "--limit", "1", "-o", tmp_path / "out"]
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in (*basic, *arguments)])
        return (end.value.code, *capfd.readouterr())

    return call


def test_the_command_prints_the_alarms_below_the_table(shell, model, tmp_path):
    code, out, _ = shell("--methods", f"identity,{model}", "--diagnose")
    assert code == 0
    file = tmp_path / "out" / "diagnosis" / "meadow.json"
    alarms = json.loads(file.read_text())["alarms"]
    assert alarms  # random weights are no good
    head, told = out.split("\nmeadow: ")
    assert "| mini | m | identity |" in head
    assert told.startswith(f"{len(alarms)} alarm")
    assert f"1 pair; numbers in {file}\n" in told
    assert [line[2:] for line in told.splitlines() if line.startswith("- ")] == alarms


def test_json_holds_the_alarms(shell, model, tmp_path):
    code, out, _ = shell("--methods", str(model), "--diagnose", "--json")
    found = json.loads(out)
    file = tmp_path / "out" / "diagnosis" / "meadow.json"
    assert code == 0
    assert found["diagnosis"]["meadow"]["file"] == str(file.resolve())
    assert found["diagnosis"]["meadow"]["alarms"] == json.loads(file.read_text())["alarms"]
    assert "diagnosis" not in json.loads(shell("--methods", "identity", "--json")[1])


@pytest.mark.parametrize("level", ["N", "N2", "whole"])
def test_levels_without_a_matrix_are_refused_before_anything_is_measured(shell, model, level, tmp_path):
    code, out, err = shell("--methods", str(model), "--diagnose", "--levels", level)
    assert code == 2 and out == ""
    assert "is no matrix between crops; take E, m, M, H, R, A" in err and err.count("\n") == 1
    assert not Path(tmp_path / "out").exists()


def test_diagnose_without_a_learned_method_is_a_usage_error(shell, tmp_path):
    code, _, err = shell("--methods", "identity,orientation", "--diagnose")
    assert code == 2
    assert err.startswith("error: --diagnose looks inside learned models")
    assert err.count("\n") == 1
    assert not Path(tmp_path / "out").exists()  # told before anything is measured
