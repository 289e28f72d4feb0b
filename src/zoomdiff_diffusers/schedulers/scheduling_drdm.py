# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Denoising Refinement Diffusion Models (DRDM): one trajectory, cut into one stage per level of a hierarchy.

Stage k (0 is the coarsest) owns the steps N_{k+1} - 1 < n <= N_k - 1 of the N steps, where N_0 = N and N_K = 0. Time
is continuous; inside a stage it is counted by m = n - N_{k+1} + 1 in (0, M], so that the state at the stage's end,
m = 0, is free of noise. Equation numbers are those of the ZoomDiff paper.
"""

import math
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

from ..hierarchy import resolve_stages


CHOICES = {
    "intensity": ("segmented", "continuous"),
    "adding": ("segmented", "continuous"),
    "denoising": ("segmented", "continuous"),
    "noise_shape": ("cosine", "linear", "quadratic"),
    "prior_type": ("residual", "none", "blend", "as_printed"),
    "prediction_type": ("v_prediction", "sample", "epsilon"),
    "solver": ("dpmsolver++", "ddim", "ddpm"),
    "timestep_spacing": ("logsnr", "even"),
}
# The diffused quantity is (x + c z) / data_std: Eq. 7 with the known part H = z removed, or Eq. 11 as it is printed.
PRIOR_SIGN = {"residual": -1.0, "none": 0.0, "blend": 0.0, "as_printed": 1.0}
SMALLEST_POSITION = 1e-3  # float32 still tells this distance from a boundary


@dataclass
class DRDMSchedulerOutput(BaseOutput):
    """
    Args:
        prev_sample (`torch.Tensor`): State of the next call, same shape as the sample.
        pred_original_sample (`torch.Tensor`): The clean diffused quantity, as predicted by this call.
        level (`torch.Tensor` or `None`): After the last call of a stage, its level in model space.
        stage (`int`): The stage of this call.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor | None = None
    level: torch.Tensor | None = None
    stage: int = 0


class DRDMScheduler(SchedulerMixin, ConfigMixin):
    """
    Noise schedule, prior, stage switching and solvers of DRDM (Sec. IV), in the model's space.

    Args:
        num_train_timesteps (`int`, defaults to 600): N, the number of diffusion steps of all stages together.
        spatial_factors (`list[int]`, *optional*): Coarse to fine, defaults to [8, 4, 2, 1].
        temporal_factors (`list[int]`, *optional*): Coarse to fine, defaults to [24, 4, 2, 1].
        rgp (`str`, defaults to `"fine"`): `"fine"`, `"coarse"` or `"uniform"`, see [`resolve_stages`].
        boundaries (`list[int]`, *optional*): N_1 > ... > N_K = 0 instead of those of the `rgp`.
        intensity (`str`, defaults to `"segmented"`):
            The noise restarts in every stage (Eq. 15) or, `"continuous"`, falls over all of them (Eq. 14).
        adding (`str`, defaults to `"segmented"`):
            Stage k noises level k (Eq. 17) or, `"continuous"`, always the finest level (Eq. 16).
        denoising (`str`, defaults to `"segmented"`): Fresh noise in every stage or, `"continuous"`, a carried state.
        noise_shape (`str`, defaults to `"cosine"`): `"cosine"`, `"linear"` or `"quadratic"` (scaled-linear betas).
        beta_start (`float`, defaults to 0.0001): First beta of the quadratic shape.
        beta_end (`float`, defaults to 0.05): Last beta of the quadratic shape.
        zero_terminal_snr (`bool`, defaults to `True`):
            abar is 0 where the noise restarts. Otherwise, and always with `"epsilon"`, it is `min_alpha_bar` there.
        prior_type (`str`, defaults to `"residual"`):
            Use of z, the coarser level in this level's shape. `"residual"` diffuses x - z (Eq. 7), `"none"` ignores z,
            `"blend"` mixes it into the predicted level with the weight `prior_weight`, and `"as_printed"` is Eq. 10-12
            with z subtracted at the end of the stage.
        prior_weight (`float`, defaults to 0.5): Weight of z in `"blend"`.
        coarsest_prior (`bool`, defaults to `False`):
            Stage 0 has a z too, such as a regression on the context. Otherwise it has none, as in the paper.
        prediction_type (`str`, defaults to `"v_prediction"`): `"v_prediction"`, `"sample"` or `"epsilon"`.
        data_std (`list[float]`, *optional*): Standard deviation of the diffused quantity per stage, defaults to ones.
        solver (`str`, defaults to `"dpmsolver++"`): Second-order multistep `"dpmsolver++"`, `"ddim"` or `"ddpm"`.
        timestep_spacing (`str`, defaults to `"logsnr"`): `"even"` integer steps or a grid in the log-SNR.
        min_alpha_bar (`float`, defaults to 0.005): abar at the first call of a stage on the log-SNR grid.
        max_alpha_bar (`float`, defaults to 0.9997): abar at the last call, from where the grid jumps to the data.
        log_snr_power (`float`, defaults to 0.79):
            Exponent of the positions on the log-SNR grid: 1 is an even grid; below 1 the first steps are the longest,
            which keeps the spread of few calls right for wide data as well as for narrow ones. With these defaults, 7
            or more calls per stage keep the spread of Gaussian data within 4 %. 7 calls leave it 1 to 4 % too small,
            as a chain of 150 DDPM steps per stage does (2 to 4 %; 9 % for a standard deviation of 0.1). For 6 calls
            take 0.9 with abar from 0.0067 to 0.99995: they stay within 5 % then, and lose up to 7 % otherwise.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 600,
        spatial_factors: list[int] | None = None,
        temporal_factors: list[int] | None = None,
        rgp: str = "fine",
        boundaries: list[int] | None = None,
        intensity: str = "segmented",
        adding: str = "segmented",
        denoising: str = "segmented",
        noise_shape: str = "cosine",
        beta_start: float = 0.0001,
        beta_end: float = 0.05,
        zero_terminal_snr: bool = True,
        prior_type: str = "residual",
        prior_weight: float = 0.5,
        coarsest_prior: bool = False,
        prediction_type: str = "v_prediction",
        data_std: list[float] | None = None,
        solver: str = "dpmsolver++",
        timestep_spacing: str = "logsnr",
        min_alpha_bar: float = 0.005,
        max_alpha_bar: float = 0.9997,
        log_snr_power: float = 0.79,
    ):
        spatial_factors = [8, 4, 2, 1] if spatial_factors is None else [int(factor) for factor in spatial_factors]
        temporal_factors = [24, 4, 2, 1] if temporal_factors is None else [int(factor) for factor in temporal_factors]
        self.register_to_config(spatial_factors=spatial_factors, temporal_factors=temporal_factors)
        resolved = resolve_stages(spatial_factors, temporal_factors, rgp)
        self.stages = [(spatial, temporal) for spatial, temporal, _ in resolved]
        # resolved here and not in the config, so that another N or RGP given to `from_config` takes effect
        if boundaries is None:
            boundaries = [round(num_train_timesteps * end) for *_, end in resolved]
        self.boundaries = list(boundaries)  # N_1, ..., N_K
        self.data_std = [1.0] * len(self.stages) if data_std is None else list(data_std)
        self._edges = [num_train_timesteps, *self.boundaries]
        self._restarts = [stage == 0 or intensity == "segmented" for stage in range(len(self.stages))]
        self._check_config()
        reaches_zero = zero_terminal_snr or noise_shape != "quadratic"  # betas alone stay above 0
        # smallest abar: epsilon says nothing about the data where it is 0
        self._floor = (
            min_alpha_bar if reaches_zero and (prediction_type == "epsilon" or not zero_terminal_snr) else 0.0
        )
        self._signal_tables = self._quadratic_signal() if noise_shape == "quadratic" else None
        self._prior, self._finished = None, None
        self._set_plan([list(range(start - 1, end - 1, -1)) for start, end in zip(self._edges, self.boundaries)])

    def _check_config(self) -> None:
        config, num_stages = self.config, len(self.stages)
        for name, choices in CHOICES.items():
            if config[name] not in choices:
                raise ValueError(f"`{name}` must be one of {list(choices)}, but is {config[name]!r}.")
        falling = all(isinstance(end, int) and start > end for start, end in zip(self._edges, self.boundaries))
        if not falling or len(self.boundaries) != num_stages or self.boundaries[-1] != 0:
            raise ValueError(
                f"`boundaries` must be {num_stages} integers, one per stage, that fall from below "
                f"`num_train_timesteps` ({config.num_train_timesteps}) to 0, but is {self.boundaries}."
            )
        if len(self.data_std) != num_stages or not all(std > 0 for std in self.data_std):
            raise ValueError(f"`data_std` must be {num_stages} positive numbers (stages), but is {self.data_std}.")
        prior, prediction = config.prior_type, config.prediction_type
        needed = {"blend": "sample", "as_printed": "epsilon"}.get(prior, prediction)
        if prediction != needed:
            raise ValueError(
                f"`prediction_type` must be {needed!r} with `prior_type` {prior!r}, but is {prediction!r}."
            )
        if not 0 <= config.prior_weight < 1:
            raise ValueError(f"`prior_weight` must be in [0, 1), but is {config.prior_weight}.")
        if not config.log_snr_power > 0:
            raise ValueError(f"`log_snr_power` must be positive, but is {config.log_snr_power}.")
        for low, high in (("beta_start", "beta_end"), ("min_alpha_bar", "max_alpha_bar")):
            if not 0 < config[low] < config[high] < 1:
                found = f"{config[low]} and {config[high]}"
                raise ValueError(f"`{low}` and `{high}` must satisfy 0 < {low} < {high} < 1, but are {found}.")

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    def state_level(self, stage: int) -> int:
        """The level whose shape the state of this stage has: the finest if adding or denoising is continuous."""
        segmented = self.config.adding == "segmented" and self.config.denoising == "segmented"
        return stage if segmented else len(self.stages) - 1

    def target_level(self, stage: int) -> int:
        """The level that this stage noises in training and predicts in sampling (Eq. 16-17)."""
        return stage if self.config.adding == "segmented" else len(self.stages) - 1

    def state_factors(self, stage: int) -> tuple[int, int]:
        """(spatial, temporal) factor of the state of this stage."""
        return self.stages[self.state_level(stage)]

    def stage_of(self, timesteps) -> torch.Tensor:
        """The stage that owns each of `timesteps`, continuous n in (-1, N - 1]; (B,) on the CPU."""
        timesteps = torch.as_tensor(timesteps, dtype=torch.float64, device="cpu").reshape(-1)
        if bool(((timesteps <= -1) | (timesteps > len(self) - 1)).any()):
            raise ValueError(
                f"`timesteps` must be in (-1, {len(self) - 1}], but reach from {timesteps.min()} to {timesteps.max()}."
            )
        inner = torch.tensor(self.boundaries[:-1], dtype=torch.float64)
        return (timesteps.unsqueeze(-1) <= inner - 1).sum(-1)

    def signal_and_noise(self, timesteps, stage: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """
        sqrt(abar) and sqrt(1 - abar) at each of `timesteps`, (B,) float64 on the CPU.

        With `stage` (B,) given, n = N_k - 1 means the end of stage k instead of the start of the next one.
        """
        timesteps = torch.as_tensor(timesteps, dtype=torch.float64, device="cpu").reshape(-1)
        end, length, row = self._schedule_of(self.stage_of(timesteps) if stage is None else stage)
        position = timesteps - end + 1
        if self.config.noise_shape == "linear":
            signal, noise = (1 - position / length).sqrt(), (position / length).sqrt()
        elif self.config.noise_shape == "cosine":
            angle = 0.5 * math.pi * position / length
            signal, noise = angle.cos().clamp(min=0), angle.sin()
        else:
            below = position.floor().long().minimum(length - 1)
            low, high = self._signal_tables[row, below], self._signal_tables[row, below + 1]
            signal = torch.lerp(low, high, position - below)
            noise = (1 - signal**2).sqrt()
        return (self._floor + (1 - self._floor) * signal**2).sqrt(), math.sqrt(1 - self._floor) * noise

    def _schedule_of(self, stage: torch.Tensor):
        """Last n, number of steps and index of the noise schedule that a stage uses: its own or the common one."""
        if self.config.intensity == "continuous":
            return torch.zeros_like(stage), torch.full_like(stage, len(self)), torch.zeros_like(stage)
        edges = torch.tensor(self._edges)
        return edges[stage + 1], edges[stage] - edges[stage + 1], stage

    def _quadratic_signal(self) -> torch.Tensor:
        """sqrt(abar) at m = 0, ..., M of every restart of the noise, (restarts, longest M + 1)."""
        edges = self._edges if self.config.intensity == "segmented" else [len(self), 0]
        lengths = [start - end for start, end in zip(edges, edges[1:])]
        if min(lengths) == 1:
            raise ValueError(f"`boundaries` must leave 2 steps to every quadratic stage, but is {self.boundaries}.")
        tables = torch.zeros(len(lengths), max(lengths) + 1, dtype=torch.float64)
        for table, length in zip(tables, lengths):
            root = torch.linspace(self.config.beta_start**0.5, self.config.beta_end**0.5, length, dtype=torch.float64)
            signal = torch.cumprod(1 - root**2, dim=0).sqrt()
            if self.config.zero_terminal_snr:  # Algorithm 1 of https://huggingface.co/papers/2305.08891
                signal = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
            table[0], table[1 : length + 1] = 1.0, signal
        return tables

    def _timesteps_at(self, alpha_bar: np.ndarray, stage: int) -> np.ndarray:
        """The continuous n of a stage at which abar takes the given values: inverse of [`signal_and_noise`]."""
        end, length, row = (int(value) for value in self._schedule_of(torch.tensor(stage)))
        alpha_bar = np.maximum(alpha_bar - self._floor, 0) / (1 - self._floor)
        if self.config.noise_shape == "linear":
            position = length * (1 - alpha_bar)
        elif self.config.noise_shape == "cosine":
            position = length * np.arccos(np.sqrt(alpha_bar)) * 2 / math.pi
        else:
            rising = self._signal_tables[row, : length + 1].numpy()[::-1]
            position = length - np.interp(np.sqrt(alpha_bar), rising, np.arange(length + 1))
        # rounding must not move a call into the next stage or the one before
        lowest, highest = self._edges[stage + 1] - 1 + SMALLEST_POSITION, self._edges[stage] - 1
        return np.clip(end - 1 + position, lowest, highest)

    def set_timesteps(self, num_inference_steps: int | list[int] | None = None, device=None, start_stage: int = 0):
        """
        Choose the calls of the network. Every respacing ends every stage exactly on its boundary.

        Args:
            num_inference_steps (`int` or `list[int]`, *optional*):
                Calls of all stages together, shared out evenly with the rest to the coarse stages, or a list with one
                entry per stage of the hierarchy. Defaults to 7 per stage.
            device (`torch.device`, *optional*): Device of `timesteps`.
            start_stage (`int`, defaults to 0): First stage to run; the coarser levels are given.
        """
        if not 0 <= start_stage < len(self.stages):
            raise ValueError(f"`start_stage` must be between 0 and {len(self.stages) - 1}, but is {start_stage}.")
        calls = self._calls_per_stage(num_inference_steps, start_stage)
        spacing = self._even_timesteps if self.config.timestep_spacing == "even" else self._log_snr_timesteps
        self._set_plan([spacing(stage, count) if count else [] for stage, count in enumerate(calls)], device)
        self.num_inference_steps = sum(calls)

    def _calls_per_stage(self, num_inference_steps, start_stage: int) -> list[int]:
        num_stages, active = len(self.stages), len(self.stages) - start_stage
        if num_inference_steps is None:
            counts = [7] * num_stages
        elif isinstance(num_inference_steps, Integral):
            share, rest = divmod(num_inference_steps, active)
            counts = [0] * start_stage + [share + (position < rest) for position in range(active)]
        else:
            counts = [int(count) for count in num_inference_steps]
        if len(counts) != num_stages or min(counts[start_stage:]) < 1:
            raise ValueError(
                f"`num_inference_steps` must give at least one call to each of {active} stages, as a total or as a "
                f"list of {num_stages} numbers, but is {num_inference_steps}."
            )
        return [0] * start_stage + counts[start_stage:]

    def _even_timesteps(self, stage: int, count: int) -> list[int]:
        start, end = self._edges[stage], self._edges[stage + 1]
        return [end + round((start - end) * left / count) - 1 for left in range(count, 0, -1)]

    def _log_snr_timesteps(self, stage: int, count: int) -> list[float]:
        edges = torch.tensor(self._edges[stage : stage + 2]) - 1
        signal, noise = self.signal_and_noise(edges, torch.tensor([stage, stage]))
        lowest, highest = (math.atanh(2 * self.config[name] - 1) for name in ("min_alpha_bar", "max_alpha_bar"))
        first = max(_log_snr(signal[0], noise[0]), lowest if self._restarts[stage] else -math.inf)
        to_data = noise[1] == 0  # the last call is at max_alpha_bar and jumps to the data
        last = highest if to_data else _log_snr(signal[1], noise[1])
        if not -math.inf < first < last:  # a stage that ends before the grid starts
            return np.linspace(*edges.tolist(), count, endpoint=False, dtype=np.float32).tolist()
        # the boundary of a continuous noise intensity carries noise and is a point of the grid, but no call
        share = np.linspace(0, 1, count) if to_data else np.linspace(0, 1, count + 1)[:-1]
        grid = first + (last - first) * share**self.config.log_snr_power
        return self._timesteps_at(1 / (1 + np.exp(-2 * grid)), stage).astype(np.float32).tolist()

    def _set_plan(self, timesteps_per_stage: list[list], device=None) -> None:
        self._calls = {}  # by timestep: (stage, timestep, next timestep, place within the stage)
        for stage, part in enumerate(timesteps_per_stage):
            for place, (timestep, following) in enumerate(zip(part, [*part[1:], self.boundaries[stage] - 1])):
                self._calls[float(timestep)] = stage, timestep, following, place
        if len(self._calls) < sum(map(len, timesteps_per_stage)):
            found = [len(part) for part in timesteps_per_stage]
            raise ValueError(
                f"`num_inference_steps` must not put two calls on one timestep, but is {found} per stage."
            )
        self.timesteps = torch.tensor([timestep for _, timestep, *_ in self._calls.values()], device=device)
        self.stage_of_timesteps = torch.tensor([stage for stage, *_ in self._calls.values()], device=device)
        self.num_inference_steps = None
        self._history = None

    def stage_timesteps(self, stage: int) -> torch.Tensor:
        """The part of `timesteps` that belongs to a stage."""
        return self.timesteps[self.stage_of_timesteps == stage]

    def sample_timesteps(self, stage: int, num: int, generator: torch.Generator | None = None, device=None):
        """`num` stratified continuous timesteps over one stage, for training, (num,) float32."""
        start, end = self._edges[stage], self._edges[stage + 1]
        jitter = torch.rand(num, generator=generator, device="cpu" if generator is None else generator.device)
        fraction = (torch.arange(num, device=jitter.device) + jitter) / num
        position = ((start - end) * (1 - fraction)).clamp(min=SMALLEST_POSITION)
        return (end - 1 + position).to(device)

    def add_noise(self, original_samples, noise, timesteps, prior=None) -> torch.Tensor:
        """
        The forward process, Eq. 11: sqrt(abar) y + sqrt(1 - abar) noise, with y the diffused quantity.

        Args:
            original_samples (`torch.Tensor`): (B, ...) level that each timestep's stage noises, in model space.
            noise (`torch.Tensor`): Same shape.
            timesteps (`torch.Tensor`): (B,) continuous n; stages may differ within the batch.
            prior (`torch.Tensor`, *optional*): z, same shape; not read in stage 0 without `coarsest_prior`.
        """
        signal, sigma = self._coefficients(timesteps, original_samples)
        return signal * self._to_diffused(original_samples, timesteps, prior) + sigma * noise

    def get_target(self, original_samples, noise, timesteps, prior=None) -> torch.Tensor:
        """What the network has to predict, for the configured `prediction_type` and `prior_type` (Eq. 12)."""
        clean = self._to_diffused(original_samples, timesteps, prior)
        if self.config.prediction_type == "v_prediction":
            return self.get_velocity(clean, noise, timesteps)
        if self.config.prediction_type == "sample":
            guide, weight = self._blend(timesteps, prior, clean)
            return (clean - weight * guide) / (1 - weight)
        return noise - self._printed_prior(timesteps, prior, clean)

    def get_velocity(self, sample, noise, timesteps) -> torch.Tensor:
        """v = sqrt(abar) noise - sqrt(1 - abar) sample, where `sample` is the clean diffused quantity."""
        signal, sigma = self._coefficients(timesteps, sample)
        return signal * noise - sigma * sample

    def predict_original(self, model_output, timestep, sample, prior=None) -> torch.Tensor:
        """The clean diffused quantity that a network output stands for: inverse of [`get_target`]."""
        signal, sigma = self._coefficients(timestep, sample)
        if self.config.prediction_type == "v_prediction":
            return signal * sample - sigma * model_output
        if self.config.prediction_type == "sample":
            guide, weight = self._blend(timestep, prior, sample)
            return (1 - weight) * model_output + weight * guide
        return (sample - sigma * (model_output + self._printed_prior(timestep, prior, sample))) / signal

    def _guide(self, timesteps, prior, like):
        """z / data_std, zero where a stage has no z, and data_std, both ready to combine with `like`."""
        stage = self.stage_of(timesteps)
        std = _broadcast(torch.tensor(self.data_std, dtype=torch.float64)[stage], like)
        guided = stage >= (0 if self.config.coarsest_prior else 1)
        if self.config.prior_type == "none" or not bool(guided.any()):
            return torch.zeros_like(like), std
        if prior is None or prior.shape != like.shape:
            found = prior if prior is None else tuple(prior.shape)
            raise ValueError(f"`prior` must have the shape {tuple(like.shape)} of the sample, but is {found}.")
        return prior.to(like) / std * _broadcast(guided, like), std

    def _to_diffused(self, original_samples, timesteps, prior):
        guide, std = self._guide(timesteps, prior, original_samples)
        return original_samples / std + PRIOR_SIGN[self.config.prior_type] * guide

    def _blend(self, timesteps, prior, like):
        """z / data_std and its weight in the prediction, both 0 where a stage has no z."""
        if self.config.prior_type != "blend":
            return 0.0, 0.0
        guided = self.stage_of(timesteps) >= (0 if self.config.coarsest_prior else 1)
        weight = self.config.prior_weight * _broadcast(guided, like)
        return self._guide(timesteps, prior, like)[0], weight

    def _printed_prior(self, timesteps, prior, like):
        """P of Eq. 10, in units of the diffused quantity."""
        if self.config.prior_type != "as_printed":
            return 0.0
        signal, sigma = self._coefficients(timesteps, like)
        return signal / sigma * self._guide(timesteps, prior, like)[0]

    def _coefficients(self, timesteps, like):
        return tuple(_broadcast(values, like) for values in self.signal_and_noise(timesteps))

    def begin_stage(self, stage, shape, prior=None, generator=None, device=None, dtype=None, sample=None):
        """
        Enter a stage: take z in, forget the solver's history, and return the state to start from.

        Args:
            stage (`int`): 0 is the coarsest.
            shape (`tuple[int]`): (B, C, T, H, W) of the state, see `state_level`.
            prior (`torch.Tensor`, *optional*): z, the finished coarser level in this shape; stage 0 has none
                without `coarsest_prior`.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*): One, or one per sample.
            device (`torch.device`, *optional*): Device of the state.
            dtype (`torch.dtype`, *optional*): Type of the state.
            sample (`torch.Tensor`, *optional*):
                `prev_sample` of the stage before, carried on if denoising is continuous.
        """
        if not 0 <= stage < len(self.stages):
            raise ValueError(f"`stage` must be between 0 and {len(self.stages) - 1}, but is {stage}.")
        first = self._edges[stage] - 1
        like = torch.empty(shape, device=device, dtype=dtype)
        guide, _ = self._guide(first, prior, like)
        self._prior, self._history = prior, None
        if self.config.denoising == "continuous" and stage > self.stage_of_timesteps[0]:
            return self._carry(sample, first, stage, prior)
        noise = self._randn(like, generator)
        if self._restarts[stage]:
            return noise
        # the state already holds some signal here; z is the best guess of it
        signal, sigma = self._coefficients(first, like)
        return signal * (1 + PRIOR_SIGN[self.config.prior_type]) * guide + sigma * noise

    def continue_stage(self, timestep, prior=None, pred_original_sample=None):
        """
        Take up a stage before one of its calls, for states that are kept elsewhere, such as parts of a large area.

        Args:
            timestep (`float`): The call to come, one of `timesteps`.
            prior (`torch.Tensor`, *optional*): z, as in [`begin_stage`].
            pred_original_sample (`torch.Tensor`, *optional*): Output of the call before it; none for the first.
        """
        stage, _, _, place = self._calls[float(timestep)]
        self._prior, self._history = prior, None
        if pred_original_sample is not None:
            before = self.stage_timesteps(stage)[place - 1].item()
            signal, noise = self.signal_and_noise(before, torch.tensor([stage]))
            self._history = place - 1, _log_snr(signal.item(), noise.item()), pred_original_sample

    def _carry(self, sample, first, stage, prior):
        """Express the state at the end of the stage before as this stage's quantity: other z, other data_std."""
        if sample is None or self._finished is None or self._finished[0].shape != sample.shape:
            raise ValueError(
                "`sample` must be the `prev_sample` of the last call of the stage before, because denoising is "
                f"continuous, but is {None if sample is None else tuple(sample.shape)}."
            )
        level, clean = self._finished
        signal, _ = self.signal_and_noise(first, torch.tensor([stage - 1]))
        return sample + _broadcast(signal, sample) * (self._to_diffused(level, first, prior) - clean)

    def scale_model_input(self, sample: torch.Tensor, timestep=None) -> torch.Tensor:
        """Returns `sample`: its variance is preserved at every step."""
        return sample

    def step(self, model_output, timestep, sample, generator=None, return_dict: bool = True):
        """
        One reverse step (RRDP), from `timestep` to the next one of its stage or onto the stage's boundary.

        Args:
            model_output (`torch.Tensor`): The network's prediction, same shape as `sample`.
            timestep (`float` or `torch.Tensor`): One of `timesteps`.
            sample (`torch.Tensor`): (B, C, T, H, W) state.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*): Noise of the `"ddpm"` solver.
            return_dict (`bool`, defaults to `True`): Whether to return a [`DRDMSchedulerOutput`] or a tuple.
        """
        if float(timestep) not in self._calls:
            raise ValueError(f"`timestep` must be one of `timesteps`, but is {float(timestep)}; see `set_timesteps`.")
        stage, timestep, following, place = self._calls[float(timestep)]
        dtype, sample = sample.dtype, sample.to(torch.promote_types(sample.dtype, torch.float32))
        clean = self.predict_original(model_output.to(sample), timestep, sample, self._prior)

        signals, noises = self.signal_and_noise([timestep, following], torch.tensor([stage, stage]))
        (signal, next_signal), (noise, next_noise) = signals.tolist(), noises.tolist()
        history, self._history = self._history, (place, _log_snr(signal, noise), clean)
        if place == 0 and self._restarts[stage] and self.config.timestep_spacing == "logsnr":
            signal, noise = 0.0, 1.0  # the state is pure noise, although the network is called at `min_alpha_bar`
        if self.config.solver == "ddpm":
            prev_sample = self._ancestral_step(clean, sample, signal, noise, next_signal, next_noise, generator)
        else:
            ratio = next_noise / noise
            drift = clean if next_noise == 0 else self._extrapolate(history, _log_snr(next_signal, next_noise))
            prev_sample = ratio * sample + (next_signal - ratio * signal) * drift

        level = None
        if following == self.boundaries[stage] - 1:
            at_boundary = prev_sample if next_noise == 0 else clean
            std, sign = self.data_std[stage], PRIOR_SIGN[self.config.prior_type]
            guide, _ = self._guide(timestep, self._prior, sample)
            level = ((at_boundary - sign * guide) * std).to(dtype)
            self._finished = (level, at_boundary)
        prev_sample, clean = prev_sample.to(dtype), clean.to(dtype)
        if not return_dict:
            return (prev_sample, clean, level, stage)
        return DRDMSchedulerOutput(prev_sample=prev_sample, pred_original_sample=clean, level=level, stage=stage)

    def _extrapolate(self, history, next_log_snr):
        """The prediction to move along: DDIM's, or DPM-Solver++(2M)'s (https://huggingface.co/papers/2211.01095)."""
        place, log_snr, clean = self._history
        if self.config.solver == "ddim" or history is None or history[0] != place - 1:
            return clean
        _, earlier_log_snr, earlier = history
        return clean + 0.5 * (next_log_snr - log_snr) / (log_snr - earlier_log_snr) * (clean - earlier)

    def _ancestral_step(self, clean, sample, signal, noise, next_signal, next_noise, generator):
        """Eq. 13 with the exact posterior (Eq. 6-7 of https://huggingface.co/papers/2006.11239)."""
        alpha = (signal / next_signal) ** 2
        mean = next_signal * (1 - alpha) / noise**2 * clean + math.sqrt(alpha) * (next_noise / noise) ** 2 * sample
        if next_noise == 0:
            return mean
        return mean + next_noise / noise * math.sqrt(1 - alpha) * self._randn(sample, generator)

    def _randn(self, like, generator):
        """Noise like `like`; with one generator per sample it does not depend on how a batch is split."""
        if isinstance(generator, list) and len(generator) != len(like):
            raise ValueError(f"`generator` must have one entry per sample, {len(like)}, but has {len(generator)}.")
        return randn_tensor(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def _broadcast(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(B,) or (1,) values as a tensor that multiplies `like` (B, ...)."""
    return values.to(like).reshape(-1, *[1] * (like.dim() - 1))


def _log_snr(signal: float, noise: float) -> float:
    """Half the logarithm of abar / (1 - abar)."""
    return math.log(signal / noise) if signal > 0 else -math.inf
