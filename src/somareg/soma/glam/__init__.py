"""GLAM, the Global-Local Affine-Flow Matcher of the network: coarse matches, affine-flow stages, local flow."""
