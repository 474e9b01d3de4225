"""What the files of a result are called."""

from __future__ import annotations

ALIGNED = "aligned.tif"
ITEM_NAME = "item.json"
OUTPUTS = (ALIGNED, "displacement.tif", "tie_points.geojson", "gcps.points", "report.json", "report.html")
OWNED = (*OUTPUTS, ITEM_NAME)
"""All that somareg may write into an output folder; a later run replaces it."""
