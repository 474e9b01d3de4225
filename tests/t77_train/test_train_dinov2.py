"""A run with a frozen DINOv2 records which one it was, and goes on with no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from somareg.config import to_mapping
from somareg.errors import WeightsError
from somareg.lab.train.engine import Parts
from somareg.soma.dinov2 import Dinov2Cfg, FrozenDinov2
from somareg.soma.dinov2_files import in_folder
from tests.t77_train.standin import TinyNet, make_cfg, parts, read, run
from tests.tiny_dinov2 import CHANNELS, saved

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")


class WithDinov2(TinyNet):
    """The stand-in with an encoder that it holds as the network does."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.dinov2 = FrozenDinov2(Dinov2Cfg(folder=str(folder), channels=CHANNELS))

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = (
            super().forward(image) + 0.0 * self.dinov2.load()(pixel_values=image.new_zeros(1, 3, 28, 28))[0].mean()
        )
        return result


def with_dinov2(folder: Path) -> Parts:
    return parts(network=lambda cfg: WithDinov2(folder))


def test_the_record_has_the_checksum_and_the_weights_have_not_dinov2(tmp_path: Path) -> None:
    folder = saved(tmp_path / "tiny-dinov2")
    run(make_cfg(max_steps=2), tmp_path / "out", parts=with_dinov2(folder))
    content = read(tmp_path / "out" / "last.ckpt")
    assert content["somareg"]["dinov2"] == to_mapping(in_folder(folder).identity())
    assert content["somareg"]["dinov2"]["name"] == "tiny-dinov2"
    assert not any("dinov2" in name for name in (*content["state_dict"], *content["ema"]))


def test_a_run_without_dinov2_records_none(tmp_path: Path) -> None:
    run(make_cfg(max_steps=2), tmp_path / "out")
    assert "dinov2" not in read(tmp_path / "out" / "last.ckpt")["somareg"]


def test_a_run_goes_on_with_its_own_encoder_only(tmp_path: Path) -> None:
    folder, other = saved(tmp_path / "tiny-dinov2"), saved(tmp_path / "other-dinov2", seed=1)
    cfg = make_cfg(max_steps=2)
    run(cfg, tmp_path / "out", parts=with_dinov2(folder))
    longer = replace(cfg, run=replace(cfg.run, max_steps=4))
    with pytest.raises(WeightsError, match=r"learned with DINOv2 tiny-dinov2.*other-dinov2"):
        run(longer, tmp_path / "out", parts=with_dinov2(other), resume=True)
    moved = folder.rename(tmp_path / "moved")  # the same encoder in another place
    run(longer, tmp_path / "out", parts=with_dinov2(moved), resume=True)
    assert read(tmp_path / "out" / "last.ckpt")["global_step"] == 4
