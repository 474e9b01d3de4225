"""A result as a QGIS project, and the style of its displacement, written without QGIS."""

from __future__ import annotations

from somareg.report.qgis.project import write_project

__all__ = ["write_project"]
