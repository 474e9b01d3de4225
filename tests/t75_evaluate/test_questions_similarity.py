"""The script on similarity and matching, with features whose likeness is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from somareg.lab.data.batch import PairBatch
from somareg.lab.data.stacks import ProtocolSamples
from somareg.soma.network import NetworkCfg, Soma
from tests.programs import program
from tests.t75_evaluate.meadow import stack

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return program("benchmarks/questions/similarity.py")


def cells(script: ModuleType, shift: int, noise: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features of a reference, and of a moving image that is `shift` cells away from its truth, with validity."""
    draw = torch.Generator().manual_seed(0)
    room = script.ROOM // script.STRIDE
    wide = torch.randn((1, 4, 40 + 4 * room, 40 + 4 * room), generator=draw)
    reference = wide[..., 2 * room : 2 * room + 40, 2 * room : 2 * room + 40]
    moving = wide[..., room : 3 * room + 40, room - shift : 3 * room + 40 - shift]
    moving = moving + noise * torch.randn(moving.shape, generator=draw)
    return reference, torch.ones_like(reference[:, :1]), moving, torch.ones_like(moving[:, :1])


def test_windows_count_where_the_truth_is_highest(script: ModuleType) -> None:
    assert script.window_share(*cells(script, 0)) == 1.0
    assert script.window_share(*cells(script, 1)) == 1.0  # one cell away still counts
    assert script.window_share(*cells(script, 2)) == 0.0
    reference, valid, moving, seen = cells(script, 0)
    unrelated = torch.randn(moving.shape, generator=torch.Generator().manual_seed(9))
    assert script.window_share(reference, valid, unrelated, seen) < 0.35
    # Features without any content must not score by pointing at the middle of the search.
    assert script.window_share(reference * 0, valid, moving * 0, seen) == 0.0


def test_similarity_gap_and_matching_of_known_features(script: ModuleType) -> None:
    """Noise as strong as the features halves the cosine; a constant raises it and changes no match."""
    reference, _, moving, _ = cells(script, 0, noise=3.0**0.5)

    def describe(image: Tensor, mask: Tensor, modality: str) -> dict[str, Tensor]:
        features = reference if modality == "optical" else moving
        return {"plain": features, "constant": features + 5.0}

    pixels, wide = (torch.ones(1, 1, 2 * side, 2 * side) for side in (reference.shape[-1], moving.shape[-1]))
    pair = PairBatch(pixels, pixels, wide, wide, script.SHIFT, None, ("optical", "sar"))
    plain, constant = script.measure([("made", pair)], [describe])
    assert plain["similarity"] == pytest.approx(0.45, abs=0.05)  # cosine of 4 channels: a little below 1 / 2
    assert plain["control"] == pytest.approx(0.0, abs=0.05)
    assert plain["gap"] == pytest.approx(plain["similarity"] - plain["control"])
    assert plain["windows"] > 0.95
    assert constant["similarity"] > 0.9 and constant["control"] > 0.85
    assert constant["gap"] < 0.15
    assert constant["windows"] == pytest.approx(plain["windows"], abs=0.02)


def test_pairs_are_aligned_by_their_truth(script: ModuleType, tmp_path: Path) -> None:
    """The meadow's moving image is the reference itself: with truth "no shift" its features match, with 8 px not."""
    same, wrong = stack("m", [0.0, 0.0]), stack("m", [8.0, 8.0])
    rows = {}
    for name, each in (("same", same), ("wrong", wrong)):
        path = ProtocolSamples((replace(each, set=name),)).save(tmp_path / f"{name}.safetensors")
        made = script.measure(script.sample_pairs(path, "m", None), [script.without_weights])
        rows[name] = {row["features"]: row for row in made}
    assert {row["pairs"] for row in rows["same"].values()} == {2}
    for features in ("grey values", "orientation channels"):
        assert rows["same"][features]["windows"] > 0.95 > 0.2 > rows["wrong"][features]["windows"]
        assert rows["same"][features]["similarity"] > 0.8 > rows["wrong"][features]["similarity"]
    assert rows["same"]["grey values"]["d'"] > 1.0
    assert rows["same"][script.CONSTANT]["control"] > 0.9


def test_views_of_a_network(script: ModuleType) -> None:
    torch.manual_seed(0)
    network = Soma(NetworkCfg()).eval()
    image = torch.randn(1, 1, 96, 104)
    found = script.of_network(network, "it")(image, torch.ones_like(image), "sar")
    assert set(found) == {"it, before FGE", "it, after FGE", "it, output"}  # no `detail` in this network
    assert {tuple(maps.shape[-2:]) for maps in found.values()} == {(48, 52)}
    encoder = replace(network.cfg.encoder, fge=None, detail=15)
    bare = Soma(replace(network.cfg, encoder=encoder)).eval()
    views = script.of_network(bare, "it")(image, torch.ones_like(image), "sar")
    assert set(views) == {"it, output", "it, detail"}
    whole = bare.encode(image, torch.ones_like(image), "sar", (2,)).pyramid[2]
    torch.testing.assert_close(views["it, detail"], whole)  # what the network itself gives
    assert bare.encoder.cfg.detail == 15  # the given network is left as it is


def test_rank_correlations(script: ModuleType) -> None:
    def row(name: str, features: str, windows: float, gap: float) -> dict[str, object]:
        return {
            "set": name,
            "features": features,
            "windows": windows,
            "similarity": -windows,
            "gap": gap,
            "d'": windows**3,
        }

    rows = [row("a", "x", 0.1, 0.2), row("a", "y", 0.2, 0.1), row("b", "x", 0.3, 0.3), row("b", "y", 0.4, 0.4)]
    table = script.rank_correlations([*rows, row("b", script.CONSTANT, 0.0, 9.0)])
    assert table["similarity"]["all"] == pytest.approx(-1.0)
    assert table["d'"]["all"] == pytest.approx(1.0)
    assert table["gap"]["all"] == pytest.approx(0.8)  # one swap of neighbours among four
    assert table["gap"]["within"] == pytest.approx(0.0)  # -1 in a, +1 in b
    assert (table["gap"]["least"], table["gap"]["most"]) == pytest.approx((-1.0, 1.0))


def test_what_cannot_be_measured_is_one_line(
    script: ModuleType, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([]) == 2
    assert capsys.readouterr().err == "error: no pairs to measure; give --samples, --data or both\n"
    assert script.main(["--samples", str(samples), "--level", "A"]) == 2
    assert "no sample of level A" in capsys.readouterr().err


def test_command_writes_what_it_prints(
    script: ModuleType, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "figures.json"
    assert script.main(["--samples", str(samples), "--limit", "1", "--json", str(target)]) == 0
    told = json.loads(target.read_text())
    card = script.read_card(script.resolve("compact"))
    assert told["weights"] == {card.name: card.sha256}
    printed = capsys.readouterr().out
    for row in told["rows"]:
        assert f"{row['features']:34}" in printed
    assert {"grey values", "untrained, output", f"{card.name}, output"} <= {row["features"] for row in told["rows"]}
    script.draw(told["rows"], tmp_path / "picture.png")
    assert 1000 < (tmp_path / "picture.png").stat().st_size < 60_000
