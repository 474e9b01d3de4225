"""The few values that travel between rooms.

Conventions (DESIGN.md): arrays are (bands, height, width); points are (x, y) with +x right, +y down; an integer
coordinate is a pixel **centre**; `displacement` is the backward map on the reference grid in pixels,
`moving_xy = reference_xy + (dx, dy)`. Only `io` converts to the corner convention of geotransforms.

Nothing here imports torch or rasterio.
"""

from somareg.types.classes import Classes
from somareg.types.estimates import IN_MEMORY, MOVING_PART, Displacement, Estimate, Reading, TiePoints, Transform
from somareg.types.images import ControlPoints, Grid, Header, Raster, StacOrigin
from somareg.types.kinds import (
    HEIGHTS,
    IDENTITY,
    BoolArray,
    ControlMethod,
    Decision,
    FloatArray,
    Geotransform,
    Modality,
    Progress,
    Reports,
    SarScale,
)
from somareg.types.later import Deferred, Later
from somareg.types.metric import GroundMetric, metric_of, square_metric
from somareg.types.places import ACROSS, Cell, Closeup, Place
from somareg.types.quality import Metres, Quality
from somareg.types.results import Assessment, Panel, Previews, Result
from somareg.types.verdicts import Verdict

__all__ = [
    "ACROSS",
    "HEIGHTS",
    "IDENTITY",
    "IN_MEMORY",
    "MOVING_PART",
    "Assessment",
    "BoolArray",
    "Cell",
    "Classes",
    "Closeup",
    "ControlMethod",
    "ControlPoints",
    "Decision",
    "Deferred",
    "Displacement",
    "Estimate",
    "FloatArray",
    "Geotransform",
    "Grid",
    "GroundMetric",
    "Header",
    "Later",
    "Metres",
    "Modality",
    "Panel",
    "Place",
    "Previews",
    "Progress",
    "Quality",
    "Raster",
    "Reading",
    "Reports",
    "Result",
    "SarScale",
    "StacOrigin",
    "TiePoints",
    "Transform",
    "Verdict",
    "metric_of",
    "square_metric",
]
