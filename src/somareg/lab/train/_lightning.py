"""Lightning, or one line that says how to get it; imported by the modules of the engine only."""

from somareg.errors import UnsupportedError
from somareg.lab.train.yaml_files import INSTALL

try:
    import lightning as L
    from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
    from lightning.fabric.utilities.exceptions import MisconfigurationException
except ModuleNotFoundError as missing:
    raise UnsupportedError(f"training needs Lightning, which is not installed; {INSTALL}") from missing

__all__ = ["L", "MisconfigurationException", "TorchCheckpointIO"]
