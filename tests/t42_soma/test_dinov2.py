"""Frozen DINOv2, read offline from a tiny random model in the hub's format."""

from __future__ import annotations

import copy
import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from somareg.config import from_mapping, to_mapping
from somareg.errors import ConfigError, InputError, UnsupportedError, WeightsError
from somareg.soma.dinov2 import Dinov2Cfg, FrozenDinov2, as_imagenet
from tests.tiny_dinov2 import KINDS, cached, saved, tiny

pytest.importorskip("transformers")

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("dinov2") / "with-registers")


def frozen(folder: Path, **options: Any) -> FrozenDinov2:
    return FrozenDinov2(Dinov2Cfg(folder=str(folder), **{"channels": 32} | options))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", list(KINDS))
def test_cells_are_the_patch_tokens_of_the_saved_model(tmp_path: Path, kind: str) -> None:
    saved(tmp_path, kind=kind, patch=16)  # with patches of 16 pixels nothing is resampled
    image = noise(2, 3, 80, 112)
    with torch.no_grad():
        tokens = tiny(kind, patch=16)(as_imagenet(image)).last_hidden_state
    registers = 4 if kind == "dinov2_with_registers" else 0
    assert tokens.shape[1] == 1 + registers + 5 * 7
    expected = tokens[:, 1 + registers :].unflatten(1, (5, 7)).permute(0, 3, 1, 2)
    torch.testing.assert_close(frozen(tmp_path)(image), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 5), (3, 0), (2, 4)])
def test_a_changed_patch_changes_its_own_cell_most(weights: Path, row: int, column: int) -> None:
    image = 0.1 * noise(1, 1, 64, 96)
    changed = image.clone()
    changed[..., 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] += 2.0
    vit = frozen(weights, size=84)  # 96 pixels shown at 84: one token of 14 pixels per cell
    change = (vit(changed) - vit(image)).norm(dim=1)[0]
    assert change.shape == (4, 6)
    assert int(change.argmax()) == row * 6 + column


def without_attention(folder: Path) -> FrozenDinov2:
    """Channel 0 of every token is the mean red of its patch; the other channels are constant."""
    vit = frozen(folder)
    model: Any = copy.deepcopy(vit.load())  # that one is everybody's
    vit._held.vits["cpu"] = model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lambda1" in name or name.startswith("embeddings"):
                parameter.zero_()
        model.embeddings.patch_embeddings.projection.weight[0, 0] = 1.0 / 14**2
    model.layernorm = nn.Identity()
    return vit


@pytest.mark.parametrize("size", [None, 40, 112])
@pytest.mark.parametrize(("height", "width"), [(128, 160), (131, 155)])
def test_cells_are_centred_by_the_half_pixel_rule(weights: Path, height: int, width: int, size: int | None) -> None:
    vit = without_attention(weights)
    object.__setattr__(vit, "cfg", Dinov2Cfg(channels=32, size=size))
    y, x = torch.meshgrid(torch.arange(height) - 60.0, torch.arange(width) - 70.0, indexing="ij")
    image = (0.012 * x - 0.009 * y)[None, None]  # a plane: linear resampling returns its value at any centre
    found = vit(image)[0, 0]
    rows, columns = torch.meshgrid(
        torch.arange(height // 16) * 16 + 7.5 - 60.0, torch.arange(width // 16) * 16 + 7.5 - 70.0, indexing="ij"
    )
    z = 0.012 * columns - 0.009 * rows
    expected = (z * DEVIATION.mean() + MEAN.mean() - MEAN[0, 0]) / DEVIATION[0, 0]
    assert found.shape == expected.shape
    rim = 3 if size == 40 else 1  # in cells: half a token, and the padded border's own tokens
    inside = (slice(rim, -rim), slice(rim, -rim))
    torch.testing.assert_close(found[inside], expected[inside], atol=1e-3, rtol=0)  # 0.1 px of the steeper slope


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 79), (100, 71), (143, 80)])
@pytest.mark.parametrize("size", [None, 56, 90])
def test_any_size(weights: Path, height: int, width: int, size: int | None) -> None:
    image = noise(2, 1, height, width)
    features = frozen(weights, size=size)(image)
    assert features.shape == (2, 32, height // 16, width // 16)
    assert features.dtype == torch.float32
    assert bool(features.isfinite().all())


def test_what_is_masked_is_not_seen(weights: Path) -> None:
    vit, image, mask = frozen(weights), noise(1, 2, 64, 80), torch.ones(1, 1, 64, 80)
    mask[..., 20:50, :33] = 0.0
    wild = torch.where(mask > 0, image, torch.tensor(float("nan")))
    assert torch.equal(vit(wild, mask), vit(image * mask))
    assert not torch.allclose(vit(image * mask), vit(image))
    assert torch.equal(vit(image, torch.ones_like(mask)), vit(image))


def test_z_scores_become_imagenet_brightness() -> None:
    image = torch.tensor([-9.0, 0.0, 1.0, 9.0]).view(1, 1, 2, 2)
    shown = as_imagenet(image) * DEVIATION + MEAN
    brightness = torch.tensor([0.0, 0.449, 0.449 + 0.226, 1.0]).view(1, 1, 2, 2)
    torch.testing.assert_close(shown, brightness.expand(1, 3, 2, 2), atol=1e-3, rtol=0)


def test_bands_become_colours() -> None:
    image = 0.3 * noise(1, 4, 8, 8)

    def shown(bands: Tensor, choice: tuple[int, int, int] | None = None) -> Tensor:
        return as_imagenet(bands, choice) * DEVIATION + MEAN

    one = shown(image[:, :1])
    assert torch.allclose(one[:, 0], one[:, 1]) and torch.allclose(one[:, 0], one[:, 2])
    two = shown(image[:, :2])
    torch.testing.assert_close(two[:, 2], (two[:, 0] + two[:, 1]) / 2)
    assert torch.equal(shown(image), shown(image[:, :3]))
    torch.testing.assert_close(shown(image, (3, 0, 3)), shown(image[:, [3, 0, 3]]))
    with pytest.raises(InputError, match="5 bands"):
        as_imagenet(noise(1, 5, 8, 8))
    with pytest.raises(InputError, match=r"\(0, 1, 2\).*2 bands"):
        as_imagenet(image[:, :2], (0, 1, 2))


class Owner(nn.Module):
    def __init__(self, dinov2: FrozenDinov2) -> None:
        super().__init__()
        self.dinov2 = dinov2
        self.head = nn.Conv2d(32, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.head(self.dinov2(image))
        return result


def test_it_is_frozen_and_never_in_train_mode(weights: Path) -> None:
    owner = Owner(frozen(weights)).train()
    image = noise(1, 1, 64, 64).requires_grad_()
    features = owner.dinov2(image)
    assert owner.training and not owner.dinov2.training
    assert not any(module.training for module in owner.dinov2.load().modules())
    assert not features.requires_grad
    assert torch.equal(features, owner.dinov2(image))  # no dropout
    before = {name: p.clone() for name, p in owner.dinov2.load().named_parameters()}
    optimiser = torch.optim.SGD(owner.parameters(), lr=1.0)
    owner(image).square().mean().backward()
    optimiser.step()
    for name, parameter in owner.dinov2.load().named_parameters():
        assert not parameter.requires_grad and parameter.grad is None
        assert torch.equal(parameter, before[name])


def test_it_is_no_part_of_its_owner(weights: Path) -> None:
    owner = Owner(frozen(weights))
    owner(noise(1, 1, 64, 64))  # the weights are read now
    assert set(owner.state_dict()) == {"head.weight", "head.bias"}
    assert len(list(owner.parameters())) == 2 and not list(owner.buffers())[2:]
    assert len(pickle.dumps(owner)) < 20_000
    owner.load_state_dict(Owner(frozen(weights)).state_dict())


def test_all_of_a_process_share_the_weights_and_pickles_hold_none(weights: Path) -> None:
    vit, image = frozen(weights), noise(1, 1, 64, 64)
    expected = vit(image)
    assert expected.shape[1] == vit.channels
    assert copy.deepcopy(vit).load() is vit.load()
    arrived = pickle.loads(pickle.dumps(vit))
    assert len(pickle.dumps(vit)) < 5_000
    assert arrived.load() is vit.load() is frozen(weights, size=448).load()
    assert torch.equal(arrived(image), expected)


def test_changed_files_are_another_encoder(tmp_path: Path) -> None:
    saved(tmp_path)
    before = frozen(tmp_path)
    first, loaded = before.identity, before.load()
    saved(tmp_path, seed=1)
    after = frozen(tmp_path)
    assert after.identity.name == first.name == tmp_path.name
    assert after.identity.sha256 != first.sha256
    assert after.load() is not loaded


def test_a_network_is_built_without_weights(tmp_path: Path) -> None:
    owner = Owner(frozen(tmp_path / "absent"))
    owner.load_state_dict(copy.deepcopy(owner).state_dict())
    with pytest.raises(WeightsError):
        owner(noise(1, 1, 64, 64))


def test_missing_weights_say_what_to_fetch_and_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as absent:
        frozen(tmp_path / "absent").load()
    with pytest.raises(WeightsError) as uncached:
        FrozenDinov2(Dinov2Cfg(name="nobody/no-such-dinov2")).load()
    for message, where in ((str(absent.value), "absent"), (str(uncached.value), "local cache")):
        assert "config.json" in message and "model.safetensors" in message
        assert "--dinov2" in message and "network.encoder.dinov2.folder" in message
        assert where in message and "\n" not in message
    assert "hf download nobody/no-such-dinov2" in str(uncached.value)


def test_weights_are_found_by_name_in_the_local_cache(weights: Path, tmp_path: Path) -> None:
    cached(weights, "somebody/dinov2", tmp_path)
    script = (  # a process of its own: the cache's place is read when the hub's package is imported
        "from somareg.soma.dinov2 import Dinov2Cfg, FrozenDinov2\n"
        "vit = FrozenDinov2(Dinov2Cfg(name='somebody/dinov2', channels=32)).load()\n"
        "print(sum(float(p.double().sum()) for p in vit.parameters()))"
    )
    environment = {"PATH": os.environ["PATH"], "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    expected = sum(float(p.double().sum()) for p in frozen(weights).load().parameters())
    assert float(done.stdout) == pytest.approx(expected, abs=1e-9)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    saved(tmp_path)
    torch.save(tiny().state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        frozen(tmp_path).load()


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_truncated_file_is_named_damaged(tmp_path: Path, file: str) -> None:
    saved(tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="damaged"):
        frozen(tmp_path).load()


def test_absent_tensors_are_refused_not_left_random(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    saved(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["embeddings.mask_token"]  # harmless: pretraining only
    save_file(tensors, file, metadata={"format": "pt"})
    frozen(tmp_path).load()
    del tensors["layernorm.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks 1 tensors of DINOv2.*layernorm\.weight"):
        frozen(tmp_path).load()


def test_other_models_and_other_widths_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(ConfigError, match=r"32 channels.*1024.*\bchannels 32"):
        FrozenDinov2(Dinov2Cfg(folder=str(tmp_path))).load()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(UnsupportedError, match=r"'bert'.*dinov2"):
        frozen(tmp_path).load()


def test_without_transformers_the_extra_is_named(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'somareg\[dinov2\]'"):
        frozen(weights).load()


def test_half_precision_files_are_computed_in_single(tmp_path: Path, weights: Path) -> None:
    tiny().half().save_pretrained(tmp_path)  # type: ignore[operator]
    image = noise(1, 1, 64, 64)
    torch.testing.assert_close(frozen(tmp_path)(image), frozen(weights)(image), atol=2e-2, rtol=0)
    assert {p.dtype for p in frozen(tmp_path).load().parameters()} == {torch.float32}


def test_the_settings_survive_a_file() -> None:
    cfg = Dinov2Cfg(folder="weights", size=448, bands=(2, 1, 0))
    assert from_mapping(Dinov2Cfg, to_mapping(cfg)) == cfg
