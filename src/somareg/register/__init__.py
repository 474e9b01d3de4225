"""How a pair is registered, whatever its size: common ground, matching whole or in tiles, result, outputs."""
