"""SOMA as a network: the encoder with its FGE, GLAM, and the weights that ship. Its code is `somareg.soma.network`."""
