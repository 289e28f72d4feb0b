# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Encoder of the urban environment context (UEC, Sec. IV-A of the paper)."""

import torch
from torch import nn

from .embeddings import patchify


class ContextEncoder(nn.Module):
    """
    Maps every layer of the urban environment context into one latent space with an MLP of its own and adds them, then
    coarsens the sum to the resolution of a stage. A layer that is absent contributes a learned vector instead.

    Args:
        context_layers (`list[dict]`):
            One entry per layer: `name`, `channels` and `temporal` (whether the layer varies over time).
        patch_sizes (`list[list[int]]`): Patch of each stage as `[time steps, cells]`.
        spatial_factors (`list[int]`): Side of a unit of each stage in finest cells.
        temporal_factors (`list[int]`): Length of a time step of each stage in finest time steps.
        latent_dim (`int`): Size of the shared latent space.
        out_dim (`int`): Size of the embedding of a token.
    """

    def __init__(
        self,
        context_layers: list[dict],
        patch_sizes: list[list[int]],
        spatial_factors: list[int],
        temporal_factors: list[int],
        latent_dim: int,
        out_dim: int,
    ):
        super().__init__()
        self.layers = [dict(layer) for layer in context_layers]
        self.patch_sizes = patch_sizes
        self.spatial_factors = spatial_factors
        self.temporal_factors = temporal_factors
        self.latent_dim = latent_dim
        self.mappers = nn.ModuleList([self._make_mapper(layer, latent_dim) for layer in context_layers])
        self.absent = nn.Parameter(torch.zeros(len(context_layers), latent_dim))
        self.proj_static = nn.ModuleList([nn.Linear(latent_dim * space**2, latent_dim) for _, space in patch_sizes])
        self.norm = nn.LayerNorm(latent_dim)
        self.out = nn.Sequential(nn.Linear(latent_dim, 2 * latent_dim), nn.GELU(), nn.Linear(2 * latent_dim, out_dim))

    def _make_mapper(self, layer: dict, latent_dim: int) -> nn.Module:
        if not layer["temporal"]:
            return nn.Sequential(
                nn.Linear(layer["channels"], latent_dim), nn.GELU(), nn.Linear(latent_dim, latent_dim)
            )
        # Layers that vary over time are mapped patch by patch: value by value they would cost more than the denoiser.
        sizes = [layer["channels"] * time * space**2 for time, space in self.patch_sizes]
        return nn.ModuleList(
            [
                nn.Sequential(nn.Linear(size, latent_dim), nn.GELU(), nn.Linear(latent_dim, latent_dim))
                for size in sizes
            ]
        )

    def forward(
        self, static: torch.Tensor, temporal: torch.Tensor | None, present: torch.Tensor, level: int
    ) -> torch.Tensor:
        """
        Args:
            static (`torch.Tensor` of shape `(B, Cs, H, W)`): Layers that do not vary, on the finest grid.
            temporal (`torch.Tensor` of shape `(B, Ct, T, H, W)`, *optional*): Layers that vary over time.
            present (`torch.Tensor` of shape `(B, L)`): 1 where a layer is known, 0 where it is absent.
            level (`int`): Stage, 0 being the coarsest.

        Returns:
            `torch.Tensor` of shape `(B, T' or 1, H', W', out_dim)` on the token grid of the stage.
        """
        factor, (time, space) = self.spatial_factors[level], self.patch_sizes[level]
        cells = static.permute(0, 2, 3, 1)
        still = cells.new_zeros(*cells.shape[:-1], self.latent_dim)
        moving = 0.0
        if temporal is not None:
            temporal = _pool(temporal, self.temporal_factors[level], factor)
        first_static = first_temporal = 0
        for index, layer in enumerate(self.layers):
            shown, absent = present[:, index], self.absent[index]
            if not layer["temporal"]:
                values = self.mappers[index](cells[..., first_static : first_static + layer["channels"]])
                still = still + _where_shown(shown, values, absent)
                first_static += layer["channels"]
            elif temporal is None:
                moving = moving + absent
            else:
                values = patchify(temporal[:, first_temporal : first_temporal + layer["channels"]], time, space)
                moving = moving + _where_shown(shown, self.mappers[index][level](values), absent)
                first_temporal += layer["channels"]
        # Pooling comes after the mappers: the traffic of a coarse unit is a sum over its cells of a function of each.
        still = _pool(still.permute(0, 3, 1, 2)[:, :, None], 1, factor)
        return self.out(self.norm(self.proj_static[level](patchify(still, 1, space)) + moving))


def _where_shown(shown: torch.Tensor, values: torch.Tensor, absent: torch.Tensor) -> torch.Tensor:
    shown = shown.reshape(-1, *[1] * (values.ndim - 1))
    return shown * values + (1 - shown) * absent


def _pool(values: torch.Tensor, time: int, space: int) -> torch.Tensor:
    batch, channels, steps, height, width = values.shape
    values = values.reshape(batch, channels, steps // time, time, height // space, space, width // space, space)
    return values.mean(dim=(3, 5, 7))
