"""The accessor `.somareg` of DataArrays; importing this module registers it. Needs the extra `xarray`.

import somareg.xarray

result = sar.somareg.register_to(optical)
aligned = result.to_xarray()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack, cast

from somareg.errors import UnsupportedError
from somareg.io.dataarray import INSTALL, need_rioxarray
from somareg.io.inputs import Image
from somareg.register import api
from somareg.types import Assessment, Estimate, Result
from somareg.warp.plan import Resolution

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from somareg.config import Resampling

need_rioxarray()
try:
    import xarray
except ImportError as error:  # rioxarray depends on xarray, so only a broken installation gets here
    raise UnsupportedError(f"DataArrays need xarray, which is not installed; {INSTALL}") from error


class SomaregAccessor:
    """The accessor of a DataArray that is the moving image.

    Args:
        array: with rioxarray's CRS, transform and nodata value; see `somareg.io.dataarray.from_dataarray`.
    """

    def __init__(self, array: xarray.DataArray) -> None:
        self._array = array

    def register_to(self, reference: Image, **arguments: Unpack[api.RegisterArguments]) -> Result:
        """Estimate how this image must be warped to lie on `reference`; like `somareg.register`.

        Args:
            reference: DataArray, path, array or STAC Item.
            **arguments: of `somareg.register`.
        """
        return api.register(self._array, reference, **arguments)

    def assess(self, reference: Image, **arguments: Unpack[api.RegisterArguments]) -> Assessment:
        """Judge how well this image lies on `reference` without a correction; like `somareg.assess`."""
        return api.assess(self._array, reference, **arguments)

    def warp(
        self,
        estimate: Result | Estimate | str | Path,
        *,
        nodata: float | None = None,
        bands: str | Sequence[int] | None = None,
        mask: str | Path | NDArray[Any] | None = None,
        mask_values: str | Sequence[int] | None = None,
        resampling: Resampling = "cubic",
        resolution: Resolution = "reference",
        force: bool = False,
    ) -> xarray.DataArray:
        """This image on the reference grid, by an existing estimate, perhaps of another band; like `somareg.warp`."""
        warped = api.warp(
            self._array,
            estimate,
            nodata=nodata,
            bands=bands,
            mask=mask,
            mask_values=mask_values,
            resampling=resampling,
            resolution=resolution,
            force=force,
        )
        return cast(xarray.DataArray, warped)


if not hasattr(xarray.DataArray, "somareg"):
    xarray.register_dataarray_accessor("somareg")(SomaregAccessor)  # type: ignore[no-untyped-call]
