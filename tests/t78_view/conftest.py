"""Results of real runs on a small synthetic pair: georeferenced, in another CRS, and without any georeference."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from starlette.testclient import TestClient

import somareg
from somareg.types import Result
from somareg.view import Scene, Server, find_folder, make_app
from tests.synthetic import make_pair

TOKEN, PORT = "a-token", 8000
SIDE = 300
UTM, NORTH = "EPSG:32633", Affine(10, 0, 500_000, 0, -10, 5_000_000)


@dataclass(frozen=True)
class Made:
    folder: Path
    result: Result


@dataclass(frozen=True)
class Asked:
    """Requests below the token, as the page makes them."""

    client: TestClient

    def __call__(self, path: str, **more: object) -> object:
        return self.client.get(f"/{TOKEN}/{path}", **more)


def write(path: Path, data: np.ndarray, crs: str | None, transform: Affine | None) -> Path:
    place = {} if crs is None else {"crs": crs, "transform": transform}
    shape = {"count": len(data), "height": data.shape[1], "width": data.shape[2], "dtype": data.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as dataset:
        dataset.write(data)
    return path


def register(place: Path, crs: str | None) -> Made:
    pair = make_pair(3, SIDE, shift=(5.0, -3.0))
    there = NORTH if crs else None
    moving = write(place / "moving.tif", pair.moving, crs, there)
    reference = write(place / "reference.tif", pair.reference, crs, there)
    result = somareg.register(str(moving), str(reference), model="orientation", preset="fast")
    return Made(result.save(place / "out"), result)


@pytest.fixture(scope="session")
def georeferenced(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return register(tmp_path_factory.mktemp("georeferenced"), UTM)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return register(tmp_path_factory.mktemp("plain"), None)


@pytest.fixture(scope="session")
def address(georeferenced: Made) -> Iterator[str]:
    """Of the page, for a browser."""
    with Scene(find_folder(georeferenced.folder)) as scene, Server(scene) as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        yield server.url
        server.stop()
        thread.join()


@pytest.fixture
def opened(georeferenced: Made) -> Iterator[Scene]:
    with Scene(find_folder(georeferenced.folder)) as scene:
        yield scene


@pytest.fixture
def ask(opened: Scene) -> Asked:
    return Asked(TestClient(make_app(opened, TOKEN, PORT), base_url=f"http://127.0.0.1:{PORT}"))


Register = Callable[[Path, str | None], Made]
