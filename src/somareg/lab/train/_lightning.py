"""Import of Lightning, with an installation hint when it is missing; only modules of the engine use it."""

from somareg.errors import UnsupportedError
from somareg.lab.train.yaml_files import INSTALL

try:
    import lightning as L
    from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
    from lightning.fabric.utilities.exceptions import MisconfigurationException
except ModuleNotFoundError as missing:
    raise UnsupportedError(f"training needs Lightning, which is not installed; {INSTALL}") from missing

__all__ = ["L", "MisconfigurationException", "TorchCheckpointIO"]
