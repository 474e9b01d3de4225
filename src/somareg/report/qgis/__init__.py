"""A result as a project that QGIS opens, and the style of its displacement; QGIS itself is not needed to write them."""

from __future__ import annotations

from somareg.report.qgis.project import write_project

__all__ = ["write_project"]
