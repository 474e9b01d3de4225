"""Self- and cross-attention between the coarse features of the two images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def positions(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Sinusoidal code of every cell, (height * width, channels); wavelengths from 4 to 64 cells, any map size."""
    quarter = channels // 4
    frequency = torch.exp(torch.linspace(math.log(2 * math.pi / 4), math.log(2 * math.pi / 64), quarter, device=device))
    y = torch.arange(height, device=device, dtype=torch.float32)[:, None] * frequency
    x = torch.arange(width, device=device, dtype=torch.float32)[:, None] * frequency
    rows = torch.cat([y.sin(), y.cos()], dim=-1)[:, None].expand(-1, width, -1)
    columns = torch.cat([x.sin(), x.cos()], dim=-1)[None].expand(height, -1, -1)
    code = torch.cat([rows, columns], dim=-1).reshape(height * width, -1)
    return F.pad(code, (0, channels - code.shape[-1]))


class AttentionBlock(nn.Module):
    """Multi-head attention from tokens to a context, then a two-layer perceptron, pre-normalised.

    Args:
        channels: of the tokens.
        heads: attention heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_tokens, self.norm_context, self.norm_out = (nn.LayerNorm(channels) for _ in range(3))
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))
        self.perceptron = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))
        # Both residual branches start small: an untrained matcher compares (almost) the encoder's own features.
        for layer in (self.out, self.perceptron[-1]):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, tokens: Tensor, context: Tensor, seen: Tensor, code: Tensor | None = None) -> Tensor:
        """Update tokens (B, N, C) by attention to a context (B, M, C).

        Args:
            tokens: the queries.
            context: the keys and values.
            seen: (B, M) bool, the context tokens that may be attended to.
            code: (N, C) positions of both, for self-attention: it is added to queries and keys, not to the values.
        """
        query, key = self._where(tokens, context, code)
        value = self._split(self.value(self.norm_context(context)))
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=seen[:, None, None])
        tokens = tokens + self.out(read.transpose(1, 2).flatten(2))
        result: Tensor = tokens + self.perceptron(self.norm_out(tokens))
        return result

    def _where(self, tokens: Tensor, context: Tensor, code: Tensor | None) -> tuple[Tensor, Tensor]:
        """Queries and keys (B, heads, N or M, C / heads)."""
        looking, inner = self.norm_tokens(tokens), self.norm_context(context)
        if code is not None:
            looking, inner = looking + code, inner + code
        return self._split(self.query(looking)), self._split(self.key(inner))

    @torch.no_grad()
    def weights(self, tokens: Tensor, context: Tensor, seen: Tensor, code: Tensor | None = None) -> Tensor:
        """Attention weights (B, heads, N, M) of `forward` with the same arguments, for diagnostics."""
        query, key = self._where(tokens, context, code)
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        return scores.masked_fill(~seen[:, None, None], -torch.inf).softmax(-1)
