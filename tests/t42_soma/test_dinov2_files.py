"""DINOv2 as files: its checksum, where it is looked for, and models that need it, which check it."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from somareg.config import to_mapping
from somareg.errors import ConfigError, UnsupportedError, WeightsError
from somareg.soma import dinov2_files
from somareg.soma.dinov2_files import Dinov2Id, find_dinov2, in_cache, in_folder
from somareg.soma.weights import load_network, read_card, save_weights
from somareg.soma.weights.card import card_path
from tests.small_network import save_network, small_network
from tests.tiny_dinov2 import cached, network_on, saved, tiny

pytest.importorskip("transformers")
FIELDS: dict[str, Any] = {
    "name": "meadow", "data": [], "synthetic_share": None, "minutes": 0.0, "device": "cpu", "seed": 0, "steps": 0,
    "scores": {}, "licence": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("travels") / "tiny-dinov2")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("travels") / "other-dinov2", seed=1)


@pytest.fixture
def model(encoder: Path, tmp_path: Path) -> Path:
    return save_network(network_on(encoder), tmp_path / "meadow.safetensors")


def sha256(folder: Path) -> str:
    return in_folder(folder).identity().sha256


# --- the checksum -----------------------------------------------------------------------------------------------------


def test_the_checksum_does_not_depend_on_how_the_files_are_laid_out(encoder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(encoder / "model.safetensors")
    settings = json.loads((encoder / "config.json").read_text())
    turned, shards, bare = (tmp_path / name for name in ("turned", "shards", "bare"))
    for folder in (turned, shards, bare):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(settings | {"transformers_version": "4.48.0"}))
    save_file(dict(reversed(tensors.items())), turned / "model.safetensors", metadata={"format": "pt", "by": "us"})
    names = sorted(tensors)
    where = {name: f"model-0000{1 + (i > 9)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(where.values()):
        chosen = {name: tensors[name] for name in names if where[name] == file}
        save_file(chosen, shards / file, metadata={"format": "pt"})
    (shards / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    del tensors["embeddings.mask_token"]  # of no use
    save_file(tensors, bare / "model.safetensors", metadata={"format": "pt"})
    assert {sha256(turned), sha256(shards), sha256(bare)} == {sha256(encoder)}
    image = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    first, *rest = (network_on(folder).encoder.dinov2 for folder in (encoder, turned, shards, bare))
    assert first is not None
    for each in rest:
        assert each is not None
        assert torch.equal(each(image), first(image))


def test_whatever_changes_the_features_changes_the_checksum(encoder: Path, other: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    found = {sha256(encoder), sha256(other)}
    found.add(sha256(saved(tmp_path / "heads", heads=4)))  # the same tensors, read otherwise
    found.add(sha256(saved(tmp_path / "plain", kind="dinov2")))
    tiny().half().save_pretrained(tmp_path / "half")  # type: ignore[operator]
    found.add(sha256(tmp_path / "half"))
    tensors = load_file(encoder / "model.safetensors")
    key, query = (f"encoder.layer.0.attention.attention.{part}.weight" for part in ("key", "query"))
    tensors[key], tensors[query] = tensors[query].clone(), tensors[key].clone()
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    (swapped / "config.json").write_bytes((encoder / "config.json").read_bytes())
    save_file(tensors, swapped / "model.safetensors", metadata={"format": "pt"})
    found.add(sha256(swapped))
    assert len(found) == 6


def test_single_precision_is_not_told_from_a_wider_copy(tmp_path: Path) -> None:
    """fp16 on the disk and the same values as float32 compute the same."""
    half = tiny().half()
    half.save_pretrained(tmp_path / "half")  # type: ignore[operator]
    copy.deepcopy(half).float().save_pretrained(tmp_path / "wide")  # type: ignore[operator]
    assert sha256(tmp_path / "half") == sha256(tmp_path / "wide")


@pytest.mark.parametrize("spoilt", ["model.safetensors", "config.json"])
def test_a_damaged_encoder_has_no_checksum(encoder: Path, tmp_path: Path, spoilt: str) -> None:
    for file in ("config.json", "model.safetensors"):
        content = (encoder / file).read_bytes()
        (tmp_path / file).write_bytes(content[: len(content) // 2] if file == spoilt else content)
    with pytest.raises(WeightsError, match="damaged DINOv2"):
        sha256(tmp_path)


def test_an_index_cannot_lead_out_of_its_folder(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((encoder / "config.json").read_bytes())
    for shard in (str(encoder / "model.safetensors"), "../tiny-dinov2/model.safetensors", 3):
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
        with pytest.raises(WeightsError, match=r"damaged .*index\.json"):
            in_folder(tmp_path)


# --- where it is looked for -------------------------------------------------------------------------------------------


def test_a_folder_comes_before_a_name_of_the_cache(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "somebody").mkdir()
    (tmp_path / "somebody" / "dinov2").symlink_to(encoder)
    assert find_dinov2("somebody/dinov2").folder == encoder.resolve()
    with pytest.raises(WeightsError, match="local cache"):  # a card's name never means a folder
        in_cache("somebody/dinov2")


@pytest.mark.parametrize("name", ["../dinov2", "/no/such/folder", "a/b/c", "~/none", "", "a b", ".", "https://x.y/z"])
def test_what_is_neither_folder_nor_name_is_said_to_be_so(name: str) -> None:
    with pytest.raises(WeightsError, match="--dinov2") as caught:
        in_cache(name)
    assert "\n" not in str(caught.value)


def test_a_cache_without_the_weights_names_the_file(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((encoder / "config.json").read_bytes())
    with pytest.raises(WeightsError, match=r"no model\.safetensors of DINOv2"):
        in_folder(tmp_path)


# --- models that need it ----------------------------------------------------------------------------------------------


def test_a_card_has_no_folder_but_name_and_checksum(model: Path, encoder: Path) -> None:
    card = read_card(model)
    assert card.dinov2 is not None
    assert (card.dinov2.name, card.dinov2.sha256) == ("tiny-dinov2", sha256(encoder))
    assert card.dinov2_settings is not None
    assert card.dinov2_settings["folder"] is None
    assert str(encoder.parent) not in card_path(model).read_text()


def test_a_model_runs_with_the_encoder_that_is_named(model: Path, encoder: Path) -> None:
    expected, found = network_on(encoder), load_network(model, dinov2=str(encoder))
    assert found is load_network(model, dinov2=str(encoder))
    image, mask = torch.randn(1, 1, 96, 80, generator=torch.Generator().manual_seed(3)), torch.ones(1, 1, 96, 80)
    with torch.no_grad():
        for network in (expected, found):
            assert network.encoder.dinov2 is not None
        features = [network.encode(image, mask, "sar").pyramid[16] for network in (expected, found)]
    torch.testing.assert_close(features[1], features[0], atol=2e-2, rtol=0)  # weights are stored as fp16
    assert found.encoder.dinov2 is not None and expected.encoder.dinov2 is not None
    assert found.encoder.dinov2.load() is expected.encoder.dinov2.load()  # one ViT per process


def test_another_encoder_is_refused_in_one_line_that_names_both(model: Path, encoder: Path, other: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        load_network(model, dinov2=str(other))
    for word in ("meadow.safetensors", "tiny-dinov2", "other-dinov2", sha256(encoder)[:12], sha256(other)[:12]):
        assert word in str(caught.value)
    assert "--dinov2" in str(caught.value) and "\n" not in str(caught.value)


def test_without_the_option_the_name_in_the_card_is_looked_up_in_the_cache(model: Path, encoder: Path) -> None:
    with pytest.raises(WeightsError, match=r"no DINOv2 named tiny-dinov2 in the local cache.*--dinov2"):
        load_network(model)
    card = json.loads(card_path(model).read_text())
    for entry in (card["dinov2"], card["network"]["encoder"]["dinov2"]):
        entry["name"] = "somebody/dinov2"
    card_path(model).write_text(json.dumps(card))
    home = model.parent / "hub-home"
    cached(encoder, "somebody/dinov2", home)
    script = (  # a process of its own: the cache's place is read when the hub's package is imported
        "import sys; from somareg.soma.weights import load_network\n"
        "print(load_network(sys.argv[1]).encoder.dinov2.identity.name)"
    )
    environment = {"PATH": os.environ["PATH"], "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    command = [sys.executable, "-c", script, str(model)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "somebody/dinov2"


def earlier(model: Path, encoder: Path) -> Path:
    """As versions before the checksum wrote the card."""
    card = json.loads(card_path(model).read_text())
    del card["dinov2"]
    card["network"]["encoder"]["dinov2"] |= {"name": "facebook/dinov2-with-registers-large", "folder": str(encoder)}
    card_path(model).write_text(json.dumps(card))
    return model


def test_a_folder_in_an_earlier_card_is_never_looked_at(model: Path, encoder: Path) -> None:
    path = earlier(model, encoder)
    with pytest.raises(WeightsError, match=r"meadow\.safetensors does not say which DINOv2.*--dinov2") as caught:
        load_network(path)
    assert "\n" not in str(caught.value)
    assert load_network(path, dinov2=str(encoder)).encoder.dinov2 is not None


def test_a_model_without_dinov2_refuses_one_and_has_no_field_for_it(encoder: Path, tmp_path: Path) -> None:
    path = save_network(small_network(), tmp_path / "plain.safetensors")
    assert "dinov2" not in json.loads(card_path(path).read_text())
    with pytest.raises(ConfigError, match=r"dinov2 is given, but .*plain\.safetensors' has no DINOv2"):
        load_network(path, dinov2=str(encoder))


def test_a_card_of_a_network_with_dinov2_says_which(encoder: Path, tmp_path: Path) -> None:
    network = network_on(encoder)
    fields = FIELDS | {"network": to_mapping(network.cfg)}
    with pytest.raises(ConfigError, match="'dinov2'"):
        save_weights(network.state_dict(), fields, tmp_path / "a.safetensors")
    wrong = fields | {"dinov2": {"name": str(encoder), "sha256": "0" * 64}}
    with pytest.raises(ConfigError, match=r"dinov2\.name"):
        save_weights(network.state_dict(), wrong, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_without_transformers_the_extra_is_named(
    model: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    fresh = saved_copy(encoder, tmp_path / "fresh")
    with pytest.raises(UnsupportedError, match=r"pip install 'somareg\[dinov2\]'"):
        load_network(model, dinov2=str(fresh))


def saved_copy(folder: Path, target: Path) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_the_vit_runs_only_where_its_level_is_wanted(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_on(encoder)
    image, mask = torch.randn(1, 1, 64, 64), torch.ones(1, 1, 64, 64)
    with torch.no_grad():
        whole = network.encode(image, mask, "optical")
        assert network.encoder.dinov2 is not None
        monkeypatch.setattr(network.encoder.dinov2, "forward", lambda *_: pytest.fail("DINOv2 ran"))
        part = network.encode(image, mask, "optical", (2, 4))
    assert set(part.pyramid) == {2, 4}
    assert all(torch.equal(part.pyramid[s], whole.pyramid[s]) for s in (2, 4))


def test_threads_that_need_one_encoder_read_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    import transformers

    files = in_folder(saved(tmp_path))
    model_class, reads = transformers.Dinov2WithRegistersModel, []
    read = model_class.from_pretrained

    def counted(*arguments: Any, **options: Any) -> Any:
        reads.append(arguments)
        return read(*arguments, **options)

    monkeypatch.setattr(model_class, "from_pretrained", counted)
    vits: list[Any] = []
    threads = [threading.Thread(target=lambda: vits.append(dinov2_files.load_vit(files, 32))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1
    assert len({id(vit) for vit in vits}) == 1 and len(vits) == 4


def test_an_identity_reads_as_name_and_beginning_of_its_checksum() -> None:
    assert str(Dinov2Id("a/b", "0123456789abcdef" * 4)) == "a/b (sha256 0123456789ab...)"
