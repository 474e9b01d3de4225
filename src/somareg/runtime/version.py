"""The version, here and not in the package's front: what needs it would otherwise import its importer."""

__version__ = "0.2.0"
