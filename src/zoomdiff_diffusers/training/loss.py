# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The training objective of DRDM over all stages (Eq. 12 of the paper), as one module with one forward per step."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn

from ..data.datasets import ZONES
from ..hierarchy import Hierarchy
from ..models import ZoomDiffRegressor, ZoomDiffUNet
from ..processors import ContextTensors, TrafficProcessor
from ..schedulers import DRDMScheduler


ITEM_STREAM, STAGE_STREAM, DROP_STREAM, VALIDATION_STREAM, CONTEXT_STREAM, EFFECT_STREAM = range(6)


def seeded_generator(*keys: int) -> torch.Generator:
    """A CPU generator whose numbers are a pure function of non-negative integer keys."""
    seed = np.random.SeedSequence(keys).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(seed[0]) << 32 | int(seed[1]))


def masked_pyramid(
    traffic: torch.Tensor, hierarchy: Hierarchy, mask: torch.Tensor | None = None, zones: dict | None = None
) -> tuple[list[torch.Tensor], list[torch.Tensor] | None]:
    """
    All levels of finest traffic, as means over what was measured.

    Args:
        traffic (`torch.Tensor`): (B, C, T, H, W), physical.
        hierarchy (`Hierarchy`): The levels.
        mask (`torch.Tensor`, *optional*): (B, T, H, W) bool, true where measured.
        zones (`dict[str, torch.Tensor]`, *optional*): Those of the areas, if the hierarchy has any.

    Returns:
        `(levels, weights)`: per level the means (B, C, T_k, H_k, W_k), and the measured fraction (B, 1, T_k, H_k, W_k)
        of every unit (None without a mask). A unit without any measurement takes the value of its coarser unit, at the
        coarsest level the mean of the area.
    """
    if mask is None:
        return hierarchy.pyramid(traffic, zones), None
    measured = mask[:, None].to(traffic.dtype)
    weights = hierarchy.pyramid(measured, zones)
    sums = hierarchy.pyramid(traffic * measured, zones)
    total = measured.sum((2, 3, 4), keepdim=True)
    parent = (traffic * measured).sum((2, 3, 4), keepdim=True) / total.clamp(min=1)
    levels = []
    for level, (summed, weight) in enumerate(zip(sums, weights)):
        if level > 0:
            parent = hierarchy.upsample(parent, level - 1, level)
        parent = torch.where(weight > 0, summed / weight.clamp(min=1e-12), parent)
        levels.append(parent)
    return levels, weights


def zones_of(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """The layers of zones of stacked training windows (see `TrafficWindows`), or `None`."""
    zones = {name.removeprefix(ZONES): labels for name, labels in batch.items() if name.startswith(ZONES)}
    return zones or None


class DRDMLoss(nn.Module):
    """
    Weighted sum over stages of the mean squared error of what the network must predict.

    Every random number is a pure function of (seed, step, index of the item in the global batch), so that resuming
    is exact and the number of processes does not matter. The coarse level that guides a stage is noised in the model's
    space, since a generated coarse level is not exact either.

    Args:
        unet (`ZoomDiffUNet`): The denoiser, the only part that this loss trains.
        scheduler (`DRDMScheduler`): Noise, prior and prediction type.
        hierarchy (`Hierarchy`): The levels.
        traffic_processor (`TrafficProcessor`): From physical traffic to the model's space.
        batch_size (`int`): Items in the global batch of one step.
        stage_items (`list[int]`, *optional*):
            Items of the batch that each stage learns from, or one number for every stage; all by default.
        stage_weights (`list[float]`, *optional*): Weight of each stage's mean loss; ones by default.
        prior_noise (`float`, defaults to 0.1):
            Largest standard deviation of the noise on the guiding level; the actual one is uniform below it.
        layer_dropout (`float` or `list[float]`, defaults to 0.0):
            Probability that a context layer is absent for an item: of every layer, or one per layer.
        context_dropout (`float`, defaults to 0.0): Probability that all of them are.
        context_noise (`float`, defaults to 0.0):
            Standard deviation of the noise on the normalised static layers: it keeps a network that sees few places
            from knowing them by heart.
        random_effects (`float`, defaults to 0.0):
            Standard deviation of the logarithm of a random factor of mean 1 on the traffic of every unit, those of all
            levels multiplied. The regressor does not see it, so that stages learn how far forecasts are off in places
            that it was not fitted to. Where places are few, those that it was fitted to are forecast too well, and
            samples of others would be too sure of their volume.
        seed (`int`, defaults to 0): Seed.
        regressor (`ZoomDiffRegressor`, *optional*): Its forecasts guide every stage. The loss does not train it.
    """

    def __init__(
        self,
        unet: ZoomDiffUNet,
        scheduler: DRDMScheduler,
        hierarchy: Hierarchy,
        traffic_processor: TrafficProcessor,
        batch_size: int,
        stage_items: list[int] | None = None,
        stage_weights: list[float] | None = None,
        prior_noise: float = 0.1,
        layer_dropout: float | list[float] = 0.0,
        context_dropout: float = 0.0,
        context_noise: float = 0.0,
        random_effects: float = 0.0,
        seed: int = 0,
        regressor: ZoomDiffRegressor | None = None,
    ):
        super().__init__()
        stages = len(hierarchy)
        stage_items = stage_items or [batch_size]
        stage_items = stage_items * stages if len(stage_items) == 1 else stage_items
        stage_weights = stage_weights or [1.0] * stages
        if len(stage_items) != stages or not all(1 <= count <= batch_size for count in stage_items):
            raise ValueError(f"`stage_items` must be {stages} numbers from 1 to {batch_size}, got {stage_items}.")
        if len(stage_weights) != stages or min(stage_weights) < 0:
            raise ValueError(f"`stage_weights` must be {stages} numbers that are not negative, got {stage_weights}.")
        self.unet, self.scheduler, self.hierarchy, self.traffic_processor = (
            unet,
            scheduler,
            hierarchy,
            traffic_processor,
        )
        self.regressor = None if regressor is None else regressor.requires_grad_(False)
        self.stage_weights = stage_weights
        self.prior_noise, self.context_noise, self.random_effects = prior_noise, context_noise, random_effects
        self.layer_dropout, self.context_dropout = layer_dropout, context_dropout
        self.seed = seed
        self.positions = [
            _spread(count, batch_size, stage) for stage, count in enumerate(stage_items)
        ]  # per stage: item of the batch -> position among the stage's items

    def forward(
        self, batch: dict[str, torch.Tensor], step: int, indices: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        This process's part of the loss of one step.

        Args:
            batch (`dict`): Stacked training windows: traffic, static, present, hour_of_week, maybe temporal and mask.
            step (`int`): Number of the optimiser step.
            indices (`list[int]`): Index of each item in the global batch.

        Returns:
            The weighted loss and the unweighted loss of every stage (K,), both to be summed over the parts of the
            batch: each is the sum over the items at hand divided by the number of items in the global batch.
        """
        levels, weights, context = self._encoded(self._with_random_effects(batch, step, indices), step, indices)
        forecast = self.forecast(context, levels[-1].shape[2], batch["hour_of_week"])
        losses = []
        for stage, positions in enumerate(self.positions):
            rows = [row for row, index in enumerate(indices) if index in positions]
            if not rows:
                losses.append(0 * next(self.unet.parameters()).sum())  # with a gradient, even if no stage has any
                continue
            errors = self._stage_errors(levels, context, forecast, batch["hour_of_week"], stage, step, indices, rows)
            weight = None if weights is None else weights[self.scheduler.target_level(stage)]
            losses.append(_item_means(errors, weight if weight is None else weight[rows]).sum() / len(positions))
        losses = torch.stack(losses)
        return (losses * losses.new_tensor(self.stage_weights)).sum(), losses.detach()

    def _stage_errors(self, levels, context, forecast, hour_of_week, stage, step, indices, rows) -> torch.Tensor:
        """Squared errors (b, C, T_k, H_k, W_k) of the items `rows` at one stage, in the shape of the level."""
        items = [indices[row] for row in rows]
        generators = [seeded_generator(self.seed, ITEM_STREAM, step, stage, item) for item in items]
        selected = [level[rows] for level in levels]
        part = context if len(rows) == len(indices) else context[rows]
        guesses = (None, None) if forecast is None else (forecast[stage][rows], forecast[-1][rows])
        original, prior = self.original_and_prior(selected, stage, generators, *guesses, part.zones)
        noise = self.hierarchy.noise_over_units(_randn(original, generators), stage, part.zones)
        timesteps = self._timesteps(stage, step, items).to(original.device)
        noisy = self.scheduler.add_noise(original, noise, timesteps, prior)
        target = self.scheduler.get_target(original, noise, timesteps, prior)
        embedding = self.unet.encode_context(part, stage)
        output = self.unet(noisy, timesteps, stage, prior, embedding, hour_of_week[rows]).sample
        output = self.hierarchy.over_units(output.float(), stage, part.zones)
        errors = (output - target) ** 2
        state, goal = self.scheduler.state_level(stage), self.scheduler.target_level(stage)
        return errors if state == goal else self.hierarchy.aggregate(errors, goal, source=state)

    def regression_loss(self, batch: dict[str, torch.Tensor], step: int, indices: list[int]) -> torch.Tensor:
        r"""
        Gamma deviance of the regressor at the finest level, a scalar; arguments as in `forward`.

        With r = (1 + x / o) / (1 + forecast / o) it is $2 (r - 1 - \log r) / \sigma^2$ (McCullagh & Nelder 1989, Sec.
        8.3): about the squared error in the model's space, but smallest at the mean of x and not of its logarithm,
        so that sums of the forecast are forecasts of the sums.
        """
        levels, weights, context = self._encoded(batch, step, indices)
        forecast = self.regressor(context, levels[-1].shape[2], batch["hour_of_week"]).float()
        scale = levels[-1].new_tensor(self.traffic_processor.config.std).reshape(-1, 1, 1, 1)
        logarithm = scale * (levels[-1] - forecast)
        deviance = 2 * (torch.expm1(logarithm) - logarithm) / scale**2
        return _item_means(deviance, None if weights is None else weights[-1]).mean()

    @torch.no_grad()
    def forecast(
        self, context: ContextTensors, num_steps: int, hour_of_week: torch.Tensor
    ) -> list[torch.Tensor] | None:
        """The regressor's forecast of every level (b, C, T_k, H_k, W_k), physical; none without a regressor."""
        if self.regressor is None:
            return None
        finest = self.regressor(context, num_steps, hour_of_week).float()
        return self.hierarchy.pyramid(self.traffic_processor.decode(finest), context.zones)

    def _encoded(self, batch: dict[str, torch.Tensor], step: int, indices: list[int]):
        """Encoded levels, measured fractions or None, and the context with noise and dropped layers."""
        zones = zones_of(batch)
        levels, weights = masked_pyramid(batch["traffic"], self.hierarchy, batch.get("mask"), zones)
        levels = [self.traffic_processor.encode(level) for level in levels]
        present = batch["present"] * self._kept_layers(step, indices, batch["present"])
        static = self._noisy_static(batch["static"], step, indices)
        return levels, weights, ContextTensors(static, batch.get("temporal"), present, zones)

    def original_and_prior(
        self,
        levels: list[torch.Tensor],
        stage: int,
        generators: list[torch.Generator] | None = None,
        forecast: torch.Tensor | None = None,
        profile: torch.Tensor | None = None,
        zones: dict[str, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        The level that a stage diffuses and its prior z, both in the shape of the stage's state, encoded.

        Args:
            levels (`list[torch.Tensor]`): Encoded levels (b, C, T_k, H_k, W_k).
            stage (`int`): 0 is the coarsest.
            generators (`list[torch.Generator]`, *optional*): One per item, for the noise on z; none leaves z exact.
            forecast (`torch.Tensor`, *optional*): The regressor's of this level, see `encode_prior`.
            profile (`torch.Tensor`, *optional*): That of the finest level.
            zones (`dict[str, torch.Tensor]`, *optional*): Those of the areas, if the hierarchy has any.
        """
        state = self.scheduler.state_level(stage)
        target = self.scheduler.target_level(stage)
        original = self.hierarchy.upsample(levels[target], target, state)
        if stage == 0:
            return original, None if forecast is None else self.traffic_processor.encode(forecast)
        coarse = levels[stage - 1]
        if generators is not None and self.prior_noise > 0:
            draws = [torch.rand((), generator=generator).item() for generator in generators]
            scale = coarse.new_tensor(draws).reshape(-1, 1, 1, 1, 1) * self.prior_noise
            noise = self.hierarchy.noise_over_units(_randn(coarse, generators), stage - 1, zones)
            coarse = coarse + scale * noise
        if forecast is None:
            return original, self.hierarchy.upsample(coarse, stage - 1, state)
        coarse = self.hierarchy.field_of(self.traffic_processor.decode(coarse), stage - 1)
        prior = self.traffic_processor.encode_prior(self.hierarchy, stage, state, coarse, forecast, zones, profile)
        return original, prior

    def _timesteps(self, stage: int, step: int, items: list[int]) -> torch.Tensor:
        """Stratified over the stage's items in the global batch, of which `items` are at hand."""
        positions = self.positions[stage]
        generator = seeded_generator(self.seed, STAGE_STREAM, step, stage)
        return self.scheduler.sample_timesteps(stage, len(positions), generator)[[positions[item] for item in items]]

    def _noisy_static(self, static: torch.Tensor, step: int, indices: list[int]) -> torch.Tensor:
        if self.context_noise == 0:
            return static
        generators = [seeded_generator(self.seed, CONTEXT_STREAM, step, index) for index in indices]
        return static + self.context_noise * _randn(static, generators)

    def _with_random_effects(self, batch: dict[str, torch.Tensor], step: int, indices: list[int]) -> dict:
        """The batch with the traffic of every cell times the factors of all units that it lies in."""
        if self.random_effects == 0:
            return batch
        generators = [seeded_generator(self.seed, EFFECT_STREAM, step, index) for index in indices]
        zones, effects, variance = zones_of(batch), torch.zeros_like(batch["traffic"][:, :1, :1]), 0.0
        kinds = [(level.spatial_factor, level.zones) for level in self.hierarchy.levels]
        for number, kind in enumerate(kinds):
            if kind in kinds[:number]:  # the same units in shorter steps
                continue
            factor = self.hierarchy.raster_factors[number] // self.hierarchy.raster_factors[-1]
            noise = _randn(effects[..., ::factor, ::factor], generators)
            noise = self.hierarchy.noise_over_units(noise, number, zones)
            effects = effects + noise.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
            variance += self.random_effects**2
        return {**batch, "traffic": batch["traffic"] * torch.exp(self.random_effects * effects - variance / 2)}

    def _kept_layers(self, step: int, indices: list[int], like: torch.Tensor) -> torch.Tensor:
        """(b, L): 0 for the context layers that are dropped."""
        kept = []
        for index in indices:
            draws = torch.rand(like.shape[1] + 1, generator=seeded_generator(self.seed, DROP_STREAM, step, index))
            kept.append((draws[1:] >= torch.as_tensor(self.layer_dropout)) & (draws[0] >= self.context_dropout))
        return torch.stack(kept).to(like)

    @torch.no_grad()
    def measure_data_std(self, batches: Iterable[dict[str, torch.Tensor]]) -> list[float]:
        """
        Standard deviation of every stage's diffused quantity, for `DRDMScheduler(data_std=...)`.

        Args:
            batches (`Iterable[dict]`): Stacked training windows as in `forward`, of any sizes. One batch is in memory
                at a time; how the windows are shared out among batches does not matter.
        """
        moments, first = np.zeros((len(self.hierarchy), 3)), 0  # per stage: count, sum and sum of squares
        for batch in batches:
            indices = list(range(first, first + len(batch["traffic"])))
            for stage, diffused in enumerate(self._diffused(batch, indices)):
                values = diffused.double()
                moments[stage] += [values.numel(), values.sum().item(), (values**2).sum().item()]
            first += len(indices)
        count, total, squares = moments.T
        variance = np.maximum(squares / count - (total / count) ** 2, 0)
        return np.maximum(np.sqrt(variance), 1e-3).tolist()

    def _diffused(self, batch: dict[str, torch.Tensor], indices: list[int]) -> Iterator[torch.Tensor]:
        """The quantity that each stage diffuses, without noise and before it is divided by `data_std`."""
        levels, weights, context = self._encoded(self._with_random_effects(batch, 0, indices), 0, indices)
        forecast = self.forecast(context, levels[-1].shape[2], batch["hour_of_week"])
        for stage, end in enumerate(self.scheduler.boundaries):
            guesses = {} if forecast is None else {"forecast": forecast[stage], "profile": forecast[-1]}
            original, prior = self.original_and_prior(levels, stage, zones=context.zones, **guesses)
            timesteps = torch.full((len(original),), end - 0.5)
            signal = self.scheduler.signal_and_noise(timesteps)[0][0].item()
            diffused = self.scheduler.add_noise(original, torch.zeros_like(original), timesteps, prior) / signal
            diffused = diffused * self.scheduler.data_std[stage]
            if weights is not None:
                target, state = self.scheduler.target_level(stage), self.scheduler.state_level(stage)
                measured = self.hierarchy.upsample(weights[target], target, state) > 0
                diffused = diffused[measured.expand_as(diffused)]
            yield diffused


def _spread(count: int, batch_size: int, shift: int) -> dict[int, int]:
    """`count` items of a batch, evenly spread over it and starting elsewhere for each stage, with their positions."""
    chosen = sorted((item * batch_size // count + shift) % batch_size for item in range(count))
    return {item: position for position, item in enumerate(chosen)}


def _item_means(errors: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """Mean over everything but the items, weighted with the measured fraction; 0 where nothing was measured."""
    if weight is None:
        return errors.flatten(1).mean(1)
    weight = weight.expand_as(errors).flatten(1)
    return (errors.flatten(1) * weight).sum(1) / weight.sum(1).clamp(min=1e-12)


def _randn(like: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
    """Noise in the shape of `like`, item by item from its generator; drawn on the CPU, the same on every device."""
    return torch.stack([torch.randn(like.shape[1:], generator=generator) for generator in generators]).to(like)
