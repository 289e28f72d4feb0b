# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""One denoiser for all stages of DRDM: a small U-Net over space and time."""

from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import nn

from .context_encoder import ContextEncoder
from .embeddings import SpatialPositionalEncoding, TemporalPositionalEncoding, patchify, unpatchify


@dataclass
class ZoomDiffUNetOutput(BaseOutput):
    """
    Output of [`ZoomDiffUNet`].

    Args:
        sample (`torch.Tensor` of shape `(B, C, T_k, H_k, W_k)`):
            What the scheduler's `prediction_type` says: velocity, clean sample or noise, in the model's space.
    """

    sample: torch.Tensor


# Tokens along time that a block mixes, at the outer and at the inner resolution.
TIME_KERNEL, INNER_TIME_KERNEL = 5, 7
SPACE_KERNEL = 3


class SpaceTimeBlock(nn.Module):
    """
    Residual block on channels-last tokens `(B, T, H, W, C)`: a convolution over time, one over space and a two-layer
    perceptron, modulated by the embedding of the diffusion step (adaLN-Zero, Peebles & Xie 2023).

    Args:
        dim (`int`): Channels.
        embedding_dim (`int`): Size of the embedding of step and level.
        time_kernel (`int`): Length of the temporal convolution in tokens, odd.
    """

    def __init__(self, dim: int, embedding_dim: int, time_kernel: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.modulation = nn.Linear(embedding_dim, 4 * dim)
        # Both are two-dimensional convolutions over views of the same memory: far faster on CPUs than Conv3d.
        self.time_conv = nn.Conv2d(dim, dim, (time_kernel, 1), padding=(time_kernel // 2, 0))
        self.space_conv = nn.Conv2d(dim, dim, SPACE_KERNEL, padding=SPACE_KERNEL // 2)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(approximate="tanh"), nn.Linear(2 * dim, dim))
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, tokens: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Mix `tokens` (B, T, H, W, C); `embedding` (B or 1, embedding_dim) is that of step and level."""
        batch, time, height, width, dim = tokens.shape
        modulation = self.modulation(embedding)[:, None, None, None]  # (B, 1, 1, 1, 4 C)
        shift, scale, gate, gate_mlp = modulation.chunk(4, dim=-1)
        hidden = self.norm(tokens) * (1 + scale) + shift
        hidden = hidden.reshape(batch, time, height * width, dim).permute(0, 3, 1, 2)  # (B, C, T, H W)
        hidden = F.gelu(self.time_conv(hidden), approximate="tanh").permute(0, 2, 3, 1)
        hidden = hidden.reshape(batch * time, height, width, dim).permute(0, 3, 1, 2)  # (B T, C, H, W)
        hidden = self.space_conv(hidden).permute(0, 2, 3, 1).reshape(batch, time, height, width, dim)
        tokens = tokens + gate * hidden
        return tokens + gate_mlp * self.mlp(self.norm_mlp(tokens))


class PriorFusion(nn.Module):
    """
    Fuses the denoiser's features with the prior z in a D-dimensional latent space, with an activation between the two
    projections (Sec. V-D of the paper; D = 32 there).

    Args:
        dim (`int`): Channels of the features.
        patch_dim (`int`): Values in a patch.
        fusion_dim (`int`): D.
    """

    def __init__(self, dim: int, patch_dim: int, fusion_dim: int):
        super().__init__()
        self.proj_in = nn.Linear(dim + patch_dim, fusion_dim)
        self.proj_out = nn.Linear(fusion_dim, patch_dim)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, tokens: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        hidden = self.proj_in(torch.cat([tokens, prior], dim=-1))
        return self.proj_out(F.gelu(hidden, approximate="tanh"))


class ZoomDiffUNet(ModelMixin, ConfigMixin):
    r"""
    The denoising network of ZoomDiff, shared by all stages (Sec. IV-B4 of the paper).

    A stage's noisy level and its prior are cut into patches, one patch embedding per stage, so that all stages meet on
    token grids of similar extent. Tokens then pass a U-Net of two resolutions whose blocks mix time and space with
    convolutions: areas and weeks of any size that the hierarchy divides are accepted.

    Args:
        context_layers (`list[dict]`, defaults to `[]`):
            Layers of the urban environment context: `name`, `channels`, `temporal` each.
        channels (`int`, defaults to 1): Traffic channels that are generated jointly.
        spatial_factors (`list[int]`, defaults to `[8, 4, 2, 1]`): Side of a unit of each stage in finest cells.
        temporal_factors (`list[int]`, defaults to `[24, 4, 2, 1]`): Time step of each stage in finest time steps.
        coarsest_unit (`list[int]`, *optional*):
            Finest time steps and side in finest cells of a unit of the coarsest level. Those of the first stage by
            default; stages whose states all have the finest shape need it.
        patch_sizes (`list[list[int]]`, *optional*):
            Patch of each stage as `[time steps, cells]`. By default half a coarsest time step by two cells, or one
            cell where a coarsest unit has fewer than four along a side.
        block_channels (`list[int]`, defaults to `[64, 80]`): Channels at the outer and the inner resolution.
        layers_per_block (`list[int]`, defaults to `[1, 2]`):
            Blocks on each side of the outer resolution, and blocks at the inner one.
        embedding_dim (`int`, defaults to 64): Size of the embedding of step and level.
        context_dim (`int`, defaults to 48): Latent space of the context mappers.
        fusion_dim (`int`, defaults to 32): D of the prior fusion (Fig. 12); 0 leaves it out.
        use_tpe (`bool`, defaults to `True`): Temporal positional encoding (Eq. 6).
        use_spe (`bool`, defaults to `True`): Learned spatial positional encoding.
        time_step (`float`, defaults to 1.0): Finest time step in hours.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["SpaceTimeBlock"]

    @register_to_config
    def __init__(
        self,
        context_layers: list[dict] = [],
        channels: int = 1,
        spatial_factors: list[int] = [8, 4, 2, 1],
        temporal_factors: list[int] = [24, 4, 2, 1],
        coarsest_unit: list[int] | None = None,
        patch_sizes: list[list[int]] | None = None,
        block_channels: list[int] = [64, 80],
        layers_per_block: list[int] = [1, 2],
        embedding_dim: int = 64,
        context_dim: int = 48,
        fusion_dim: int = 32,
        use_tpe: bool = True,
        use_spe: bool = True,
        time_step: float = 1.0,
    ):
        super().__init__()
        if len(spatial_factors) != len(temporal_factors):
            raise ValueError(
                "`spatial_factors` and `temporal_factors` describe the same stages, but found "
                f"{len(spatial_factors)} and {len(temporal_factors)} entries."
            )
        self.units = _stage_units(spatial_factors, temporal_factors, coarsest_unit)
        self.patch_sizes = _patch_sizes(patch_sizes, self.units)
        outer, inner = block_channels
        patch_dims = [channels * time * space**2 for time, space in self.patch_sizes]

        self.patch_embed = nn.ModuleList([nn.Linear(2 * patch_dim, outer) for patch_dim in patch_dims])
        self.context_encoder = ContextEncoder(
            context_layers, self.patch_sizes, spatial_factors, temporal_factors, context_dim, outer
        )
        sides = [cells // space for (_, cells), (_, space) in zip(self.units, self.patch_sizes)]
        if use_tpe:
            self.tpe = TemporalPositionalEncoding(128)
            self.proj_tpe = nn.Linear(128, outer)
        if use_spe:
            self.spe = SpatialPositionalEncoding(sides, 128)
            self.proj_spe = nn.Linear(128, outer)
        self.time_proj = Timesteps(embedding_dim, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(embedding_dim, embedding_dim)
        self.level_embedding = nn.Embedding(len(spatial_factors), embedding_dim)

        count, count_inner = layers_per_block
        self.down_blocks = nn.ModuleList([SpaceTimeBlock(outer, embedding_dim, TIME_KERNEL) for _ in range(count)])
        self.down_proj = nn.Linear(outer, inner)
        self.mid_blocks = nn.ModuleList(
            [SpaceTimeBlock(inner, embedding_dim, INNER_TIME_KERNEL) for _ in range(count_inner)]
        )
        self.up_proj = nn.Linear(inner, outer)
        self.skip_proj = nn.Linear(2 * outer, outer)
        self.up_blocks = nn.ModuleList([SpaceTimeBlock(outer, embedding_dim, TIME_KERNEL) for _ in range(count)])

        self.norm_out = nn.LayerNorm(outer)
        self.proj_out = nn.ModuleList([nn.Linear(outer, patch_dim) for patch_dim in patch_dims])
        for projection in self.proj_out:
            nn.init.zeros_(projection.weight)
            nn.init.zeros_(projection.bias)
        if fusion_dim > 0:
            self.prior_fusion = nn.ModuleList([PriorFusion(outer, patch_dim, fusion_dim) for patch_dim in patch_dims])
        self.gradient_checkpointing = False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs) -> "ZoomDiffUNet":
        """As [`ModelMixin.from_pretrained`], but weights are read from safetensors files only."""
        return super().from_pretrained(pretrained_model_name_or_path, **{"use_safetensors": True, **kwargs})

    def encode_context(self, context, level: int) -> torch.Tensor:
        """
        Embed the context once per stage; every step of the stage then reuses it.

        Args:
            context ([`ContextTensors`]):
                `static` (B, Cs, H, W), `temporal` (B, Ct, T, H, W) or `None`, and `present` (B, L).
            level (`int`): Stage, 0 being the coarsest.

        Returns:
            `torch.Tensor` of shape `(B, T' or 1, H', W', outer channels)`.
        """
        return self.context_encoder(context.static, context.temporal, context.present, level)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        level: int,
        prior: torch.Tensor | None = None,
        context_embedding: torch.Tensor | None = None,
        hour_of_week: torch.Tensor | int = 0,
        return_dict: bool = True,
    ) -> ZoomDiffUNetOutput | tuple[torch.Tensor]:
        """
        Args:
            sample (`torch.Tensor` of shape `(B, C, T_k, H_k, W_k)`): Noisy state of the stage.
            timestep (`torch.Tensor` of shape `(B,)` or `float`): Global diffusion step n.
            level (`int`): Stage k, 0 being the coarsest; shared by the batch.
            prior (`torch.Tensor`, *optional*): z, of the sample's shape; absent in the first stage.
            context_embedding (`torch.Tensor`, *optional*): From [`~ZoomDiffUNet.encode_context`] for this stage.
            hour_of_week (`torch.Tensor` of shape `(B,)` or `int`, defaults to 0): Of the first hour, 0 = Monday 00:00.
            return_dict (`bool`, defaults to `True`): Whether to return a [`ZoomDiffUNetOutput`] or a tuple.

        Raises:
            ValueError: If the sample is not divisible into the stage's patches and coarsest units.
        """
        time, space = self.patch_sizes[level]
        batch, channels = sample.shape[:2]
        down_time, down_space = self._check_sample(sample, level)
        if prior is None:
            prior = torch.zeros_like(sample)

        # 1. embed
        prior_tokens = patchify(prior, time, space)
        tokens = self.patch_embed[level](torch.cat([patchify(sample, time, space), prior_tokens], dim=-1))
        if context_embedding is not None:
            tokens = tokens + context_embedding
        tokens = self._add_positions(tokens, level, hour_of_week)
        timestep = torch.as_tensor(timestep, device=sample.device).expand(batch)
        embedding = self.time_embedding(self.time_proj(timestep).to(tokens.dtype))
        level_index = torch.tensor([level], device=sample.device)
        embedding = F.silu(embedding + self.level_embedding(level_index))

        # 2. down, middle, up
        tokens = self._run(self.down_blocks, tokens, embedding)
        inner = _pool_tokens(self.down_proj(tokens), down_time, down_space)
        inner = self.up_proj(self._run(self.mid_blocks, inner, embedding))
        inner = inner.repeat_interleave(down_time, 1).repeat_interleave(down_space, 2).repeat_interleave(down_space, 3)
        tokens = self.skip_proj(torch.cat([tokens, inner], dim=-1))
        tokens = self._run(self.up_blocks, tokens, embedding)

        # 3. back to values
        tokens = self.norm_out(tokens)
        output = self.proj_out[level](tokens)
        if self.config.fusion_dim > 0:
            output = output + self.prior_fusion[level](tokens, prior_tokens)
        output = unpatchify(output, channels, time, space)
        if not return_dict:
            return (output,)
        return ZoomDiffUNetOutput(sample=output)

    def _check_sample(self, sample: torch.Tensor, level: int) -> tuple[int, int]:
        """Refuse samples that do not fit the stage; return by how much the inner resolution is coarser."""
        steps, cells = self.units[level]
        _, channels, length, height, width = sample.shape
        if channels != self.config.channels or length % steps or height % cells or width % cells:
            raise ValueError(
                f"`sample` at stage {level} must have {self.config.channels} channel(s), a number of time steps "
                f"divisible by {steps} and sides divisible by {cells}, but its shape is {tuple(sample.shape)}."
            )
        return self._inner_factors(level)

    def _inner_factors(self, level: int) -> tuple[int, int]:
        """By how much the inner resolution is coarser, along time and space."""
        (steps, cells), (time, space) = self.units[level], self.patch_sizes[level]
        return (2 if (steps // time) % 2 == 0 else 1), (2 if (cells // space) % 2 == 0 else 1)

    def reach(self, level: int) -> tuple[int, int, int]:
        """How far around a value the network looks at a stage: coarsest units along time, y and x, rounded up."""
        (steps, cells), (time, space) = self.units[level], self.patch_sizes[level]
        count, count_inner = self.config.layers_per_block
        in_time, in_space = self._inner_factors(level)
        tokens = (
            2 * count * (TIME_KERNEL // 2) + (count_inner * (INNER_TIME_KERNEL // 2) + 1) * in_time - 1,
            2 * count * (SPACE_KERNEL // 2) + (count_inner * (SPACE_KERNEL // 2) + 1) * in_space - 1,
        )
        days, units = (ceil(size / per) for size, per in zip(tokens, (steps // time, cells // space)))
        return days, units, units

    def _add_positions(self, tokens: torch.Tensor, level: int, hour_of_week: torch.Tensor | int) -> torch.Tensor:
        _, steps, height, width, _ = tokens.shape
        if self.config.use_tpe:
            hours = self.config.time_step * self.config.temporal_factors[level] * self.patch_sizes[level][0]
            hours = hours * torch.arange(steps, device=tokens.device)
            start = torch.as_tensor(hour_of_week, device=tokens.device).reshape(-1, 1)
            tokens = tokens + self.proj_tpe(self.tpe(start + hours).to(tokens.dtype))[:, :, None, None]
        if self.config.use_spe:
            tokens = tokens + self.proj_spe(self.spe(level, height, width))
        return tokens

    def _run(self, blocks: nn.ModuleList, tokens: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        for block in blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                tokens = self._gradient_checkpointing_func(block, tokens, embedding)
            else:
                tokens = block(tokens, embedding)
        return tokens


def _stage_units(
    spatial_factors: list[int], temporal_factors: list[int], coarsest_unit: list[int] | None
) -> list[tuple[int, int]]:
    """Time steps and cells along a side that a coarsest unit has at each stage."""
    length, side = coarsest_unit or (temporal_factors[0], spatial_factors[0])
    for space, time in zip(spatial_factors, temporal_factors):
        if length % time or side % space:
            raise ValueError(
                f"`coarsest_unit` must be [time steps, cells] that the factors of all stages divide, but is "
                f"{[length, side]} with `temporal_factors` {temporal_factors} and `spatial_factors` {spatial_factors}."
            )
    return [(length // time, side // space) for space, time in zip(spatial_factors, temporal_factors)]


def _patch_sizes(patch_sizes: list[list[int]] | None, units: list[tuple[int, int]]) -> list[list[int]]:
    if patch_sizes is None:
        return [[steps // 2 if steps % 2 == 0 else 1, 2 if cells % 4 == 0 else 1] for steps, cells in units]
    if len(patch_sizes) != len(units):
        raise ValueError(f"`patch_sizes` needs one entry per stage ({len(units)}), found {len(patch_sizes)}.")
    for level, ((time, space), (steps, cells)) in enumerate(zip(patch_sizes, units)):
        if steps % time or cells % space:
            raise ValueError(
                f"`patch_sizes[{level}]` must divide the {steps} time steps and {cells} cells that stage {level} has "
                f"in a coarsest unit, but is {[time, space]}."
            )
    return [list(size) for size in patch_sizes]


def _pool_tokens(tokens: torch.Tensor, time: int, space: int) -> torch.Tensor:
    batch, steps, height, width, dim = tokens.shape
    tokens = tokens.reshape(batch, steps // time, time, height // space, space, width // space, space, dim)
    return tokens.mean(dim=(2, 4, 6))
