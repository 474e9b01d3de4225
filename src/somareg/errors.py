"""Everything that can go wrong, as one family.

Each error is also the builtin a caller would expect (`OSError`, `ValueError`), and its message is one line that says
what happened, where (file or parameter) and the way out.
"""

from __future__ import annotations


class SomaregError(Exception):
    """Base of all errors that somareg raises on purpose."""


class InputError(SomaregError, ValueError):
    """An input image or array cannot be used as given (shape, size, dtype, content)."""


class ReadError(SomaregError, OSError):
    """A file is missing, not a raster of an allowed format, truncated or damaged."""


class NoDataError(InputError):
    """An image holds no valid pixel, or too few."""


class GeoreferenceError(InputError):
    """The georeferences of a pair cannot be combined (CRS in one image only, degenerate geotransform)."""


class NoOverlapError(GeoreferenceError):
    """The two images do not cover common ground."""


class UnsupportedError(SomaregError, ValueError):
    """A valid input that somareg does not handle; the message says what does."""


class ConfigError(SomaregError, ValueError):
    """An unknown option, preset or value; the message suggests the nearest valid one."""


class WeightsError(SomaregError, OSError):
    """Model weights are missing, damaged or not what their card says."""


class OutputError(SomaregError, OSError):
    """An output cannot be written (exists, read-only, disk full); nothing half-written is left behind."""


class EstimationError(SomaregError, RuntimeError):
    """No transform can be computed from the matches (too few, ill-conditioned)."""


class JobError(SomaregError, RuntimeError):
    """One job of many failed in a way that has no class here, or every worker that tried it died."""


class ClusterError(SomaregError, OSError):
    """The cluster that should do the work cannot be reached, has lost its workers, or runs another somareg."""
