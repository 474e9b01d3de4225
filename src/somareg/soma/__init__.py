"""SOMA as a network: the encoder with its FGE, GLAM, and the weights that ship. See `somareg.soma.network`."""
