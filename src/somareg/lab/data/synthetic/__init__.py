"""An endless source of synthetic SAR-optical pairs, perfectly aligned, made on the device that trains."""

from somareg.lab.data.synthetic.generator import SyntheticCfg, SyntheticSource

__all__ = ["SyntheticCfg", "SyntheticSource"]
