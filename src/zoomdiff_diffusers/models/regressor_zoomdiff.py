# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""A regression of traffic on urban context: where every stage of ZoomDiff starts from."""

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from .embeddings import HOURS_PER_WEEK, TemporalPositionalEncoding, patchify, unpatchify


# Of the bounded features, in standard deviations: one resolves the usual values, the other the large ones.
WIDTHS = (1.0, 3.0)


class ZoomDiffRegressor(ModelMixin, ConfigMixin):
    """
    Forecasts the traffic of every finest cell from its own context and the hour of the week.

    All cells share one small network, so that it learns from few windows what land use means for traffic; the denoiser
    is then left with what the forecast leaves open, in the manner of CorrDiff (Mardani et al. 2023, arXiv:2309.15214)
    and of the volume estimator of KSTDiff (Zhou et al. 2023, arXiv:2305.12403). Forecasts of coarser levels are sums
    of this one.

    Args:
        context_layers (`list[dict]`, defaults to `[]`):
            Layers of the urban environment context: `name`, `channels`, `temporal` each.
        channels (`int`, defaults to 1): Traffic channels.
        token_length (`int`, defaults to 12):
            Time steps of a cell that are forecast together. They begin at multiples of this length since Monday 00:00,
            wherever a window does, so that it must divide a week.
        latent_dim (`int`, defaults to 48): Size of the embedding of a cell's context.
        hidden_dim (`int`, defaults to 64): Width of the perceptrons.
        bounded_context (`bool`, defaults to `True`):
            Whether layers that do not vary enter as tanh(x) and tanh(x / 3), x standardised. A cell beyond all that
            was seen in training then counts as the most extreme one seen, as for regression trees: that generalises
            better from few places. `False` takes x as it is and normalises the tokens.
        time_step (`float`, defaults to 1.0): Time step in hours.
    """

    @register_to_config
    def __init__(
        self,
        context_layers: list[dict] = [],
        channels: int = 1,
        token_length: int = 12,
        latent_dim: int = 48,
        hidden_dim: int = 64,
        bounded_context: bool = True,
        time_step: float = 1.0,
    ):
        super().__init__()
        steps = round(HOURS_PER_WEEK / time_step)
        if steps % token_length:
            raise ValueError(f"`token_length` must divide a week of {steps} time steps, but is {token_length}.")
        static, temporal = (
            sum(layer["channels"] for layer in context_layers if layer["temporal"] == varies)
            for varies in (False, True)
        )
        # Besides the layers: which of them are known, and a constant, so that a schema without layers works too.
        features = static * (len(WIDTHS) if bounded_context else 1) + len(context_layers) + 1
        self.static_mapper = nn.Sequential(
            nn.Linear(features, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, latent_dim)
        )
        self.temporal_mapper = nn.Linear(temporal * token_length, latent_dim) if temporal else None
        self.tpe = TemporalPositionalEncoding(128)
        self.proj_tpe = nn.Linear(128, latent_dim)
        self.layers = nn.Sequential(
            nn.Identity() if bounded_context else nn.LayerNorm(latent_dim),
            nn.Linear(latent_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
        )
        self.proj_out = nn.Linear(hidden_dim, channels * token_length)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs) -> "ZoomDiffRegressor":
        """As [`ModelMixin.from_pretrained`], but weights are read from safetensors files only."""
        return super().from_pretrained(pretrained_model_name_or_path, **{"use_safetensors": True, **kwargs})

    def forward(self, context, num_steps: int, hour_of_week: torch.Tensor | int = 0) -> torch.Tensor:
        """
        Args:
            context ([`ContextTensors`]):
                `static` (B, Cs, H, W), `temporal` (B, Ct, T, H, W) or `None`, and `present` (B, L).
            num_steps (`int`): T, number of finest time steps.
            hour_of_week (`torch.Tensor` of shape `(B,)` or `int`, defaults to 0): Of the first hour, 0 = Monday 00:00.

        Returns:
            `torch.Tensor` of shape `(B, C, T, H, W)`: forecast in the model's space.
        """
        length, time_step = self.config.token_length, self.config.time_step
        start = torch.as_tensor(hour_of_week, device=context.static.device).reshape(-1, 1)
        start = start.expand(len(context.static), 1)
        before = torch.round(start / time_step).long() % length  # steps of the first token before the window
        offsets = before[:, 0].tolist()
        count = -(-(max(offsets) + num_steps) // length)  # the last token may reach beyond the end
        positions = self.tpe(start + time_step * (length * torch.arange(count, device=start.device) - before))
        tokens = self._embed_cells(context)[:, None]
        tokens = tokens + self.proj_tpe(positions.to(tokens.dtype))[:, :, None, None]
        if context.temporal is not None and self.temporal_mapper is not None:
            shown = context.temporal * self._shown(context.present, temporal=True)[:, :, None, None, None]
            padding = [(0, 0, 0, 0, offset, count * length - num_steps - offset) for offset in offsets]
            padded = torch.stack([F.pad(item, around) for item, around in zip(shown, padding)])
            tokens = tokens + self.temporal_mapper(patchify(padded, length, 1))
        output = unpatchify(self.proj_out(self.layers(tokens)), self.config.channels, length, 1)
        return torch.stack([item[:, offset : offset + num_steps] for item, offset in zip(output, offsets)])

    def _embed_cells(self, context) -> torch.Tensor:
        """(B, H, W, latent_dim) from the layers that do not vary."""
        static, present = context.static, context.present
        flags = F.pad(present, (0, 1), value=1.0)[:, :, None, None].expand(-1, -1, *static.shape[-2:])
        static = static * self._shown(present, temporal=False)[:, :, None, None]
        if self.config.bounded_context:
            static = torch.cat([torch.tanh(static / width) for width in WIDTHS], dim=1)
        return self.static_mapper(torch.cat([static, flags], dim=1).permute(0, 2, 3, 1))

    def _shown(self, present: torch.Tensor, temporal: bool) -> torch.Tensor:
        """(B, channels of the static or the temporal layers): 1 where the channel's layer is known, else 0."""
        counts = [layer["channels"] if layer["temporal"] == temporal else 0 for layer in self.config.context_layers]
        return present.repeat_interleave(torch.tensor(counts, dtype=torch.long, device=present.device), dim=1)
