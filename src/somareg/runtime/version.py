"""The version. It stands here, not in `somareg/__init__.py`, to avoid a circular import."""

__version__ = "0.2.0"
