"""The cache of decoded blocks is as large as is meant: rasterio takes bytes where GDAL's option takes megabytes."""

from __future__ import annotations

import ast
from pathlib import Path

import rasterio
from rasterio._env import get_gdal_config

import somareg
from somareg.io import memory
from somareg.runtime.budget import allowed

SOURCES = sorted(Path(somareg.__file__).parent.rglob("*.py"))


def test_gdal_keeps_so_many_bytes() -> None:
    before = get_gdal_config("GDAL_CACHEMAX")
    with rasterio.Env(GDAL_CACHEMAX=memory.block_cache()):
        assert get_gdal_config("GDAL_CACHEMAX") == memory.block_cache()
    assert get_gdal_config("GDAL_CACHEMAX") == before
    assert 16 << 20 <= memory.block_cache() <= 192 << 20
    assert memory.block_cache(512 << 20, 100 << 20) == 100 << 20
    assert memory.block_cache(512 << 20, 1) == 16 << 20
    assert memory.block_cache(64 << 20) == max(16 << 20, min(64 << 20, allowed() // 8))


def caches(file: Path) -> list[ast.expr]:
    """What a source file gives as GDAL_CACHEMAX."""
    return [
        word.value
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg == "GDAL_CACHEMAX"
    ]


def test_every_cache_is_as_block_cache_says() -> None:
    values = [value for file in SOURCES for value in caches(file)]
    assert len(values) >= 4
    for value in values:
        assert isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "block_cache"
