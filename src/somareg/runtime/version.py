"""The version; it stands here and not in the package's `__init__` to avoid a circular import."""

__version__ = "0.2.0"
