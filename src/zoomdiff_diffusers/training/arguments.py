# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Arguments of `train.py`: one dataclass per group, a YAML file, and a command line that overrides the file."""

import difflib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml
from transformers import HfArgumentParser


@dataclass
class ModelArguments:
    """The networks."""

    unet: Any = field(
        default_factory=dict,
        metadata={
            "help": "Arguments of `ZoomDiffUNet` (widths, depths ...); channels, factors and layers are filled in."
        },
    )
    regressor: Any = field(
        default_factory=dict,
        metadata={"help": "Arguments of `ZoomDiffRegressor` (widths ...); channels and layers are filled in."},
    )
    denoiser_context: bool = field(
        default=True,
        metadata={
            "help": "Show the context to the denoiser too. Where places are few, false keeps it from knowing them by "
            "heart: it then sees the context's forecast only. Needs `regression_steps`."
        },
    )
    pretrained_pipeline: str | None = field(
        default=None,
        metadata={"help": "Folder or Hub id of a saved pipeline to continue from (weights and statistics)."},
    )


@dataclass
class HierarchyArguments:
    """The levels, coarse to fine."""

    levels: Any = field(
        default=None,
        metadata={
            "help": "List of {name, spatial_factor, temporal_factor}, and optionally zones, the layer whose areas are "
            "the units in place of squares; defaults to BS, cell, 100 m and 50 m."
        },
    )
    spatial_scales: Any = field(
        default=None,
        metadata={"help": "Instead of `levels`: {name: factor}, coarse to fine; needs `temporal_scales`."},
    )
    temporal_scales: list[int] | None = field(default=None, metadata={"help": "Temporal factors, coarse to fine."})
    rgp: Literal["fine", "coarse", "uniform"] = field(
        default="fine", metadata={"help": "Resolution greediness preference that combines the two scales."}
    )
    cell_size: float = field(default=50.0, metadata={"help": "Side of the finest cell, metres."})
    time_step: float = field(default=1.0, metadata={"help": "Length of the finest time step, hours."})


@dataclass
class SchedulerArguments:
    """The segmented diffusion (`DRDMScheduler`). None means the scheduler's own default."""

    num_train_timesteps: int | None = field(default=None, metadata={"help": "Diffusion steps over all stages."})
    boundaries: list[int] | None = field(default=None, metadata={"help": "Explicit stage boundaries N_1 ... N_K = 0."})
    intensity: Literal["segmented", "continuous"] | None = field(default=None, metadata={"help": "Noise intensity."})
    adding: Literal["segmented", "continuous"] | None = field(default=None, metadata={"help": "Noise adding."})
    denoising: Literal["segmented", "continuous"] | None = field(default=None, metadata={"help": "Denoising."})
    noise_shape: Literal["linear", "cosine", "quadratic"] | None = field(
        default=None, metadata={"help": "Shape of the noise level inside a stage."}
    )
    prior_type: Literal["none", "residual", "blend", "as_printed"] | None = field(
        default=None, metadata={"help": "How the coarser level guides a stage."}
    )
    prior_weight: float | None = field(default=None, metadata={"help": "Weight of the prior for `blend`."})
    prediction_type: Literal["v_prediction", "sample", "epsilon"] | None = field(
        default=None, metadata={"help": "What the network predicts."}
    )
    solver: Literal["dpmsolver++", "ddim", "ddpm"] | None = field(
        default=None, metadata={"help": "Solver saved with the pipeline and used in validation."}
    )


@dataclass
class DataArguments:
    """Where the traffic and the context come from (layouts: `zoomdiff_diffusers.data.datasets`)."""

    dataset: str = field(
        default="simulated_city",
        metadata={"help": "'simulated_city', an .npz or .nc file, or a `datasets` folder or Hub id of Parquet files."},
    )
    layers: Any = field(
        default=None,
        metadata={"help": "Context schema: list of layers as in `ContextProcessor`; the simulator has its own."},
    )
    smooth_layers: list[float] = field(
        default_factory=list,
        metadata={"help": "Gaussian widths in cells; each adds a smoothed copy of every static layer."},
    )
    largest_deviation: float = field(
        default=10.0, metadata={"help": "Normalised context is cut at so many standard deviations."}
    )
    traffic_variables: list[str] = field(
        default_factory=lambda: ["traffic"], metadata={"help": "Arrays or columns that hold the traffic channels."}
    )
    traffic_unit: str | None = field(
        default=None, metadata={"help": "Unit of the traffic, such as MB, kept for outputs."}
    )
    traffic_offset: float = field(
        default=0.1, metadata={"help": "Where the transform turns from linear to logarithmic, relative to the mean."}
    )
    valid_variable: str = field(
        default="valid", metadata={"help": "Array or column that marks measured values, if any."}
    )
    start_hour: int = field(
        default=0, metadata={"help": "Hour of the week (0 = Monday 00:00) of the first time step."}
    )
    train_region: Any = field(
        default=None,
        metadata={
            "help": "{rows: [a, b], columns: [a, b]} (b excluded) and/or {areas: [indices]}; for all places but one "
            "fold, {areas: {folds: 5, without: 0}}."
        },
    )
    validation_region: Any = field(
        default=None,
        metadata={"help": "Held-out region, given in the same way; for that fold, {areas: {folds: 5, only: 0}}."},
    )
    train_cities: int = field(default=24, metadata={"help": "Simulated cities to train on."})
    validation_cities: int = field(
        default=2, metadata={"help": "Simulated cities held out; their seeds are separate."}
    )
    city_height: int = field(default=48, metadata={"help": "Height of a simulated city, cells."})
    city_width: int = field(default=48, metadata={"help": "Width of a simulated city, cells."})
    city_seed: int = field(default=0, metadata={"help": "Seed of the first simulated city."})
    city_weeks: int = field(default=2, metadata={"help": "Independent periods drawn for each simulated city."})
    city_hours: int = field(default=168, metadata={"help": "Length of such a period, from Monday on: one week."})
    cultures: list[str] = field(
        default_factory=lambda: ["default"], metadata={"help": "Cultures of the simulated cities, in turn."}
    )
    crop_hours: int = field(default=168, metadata={"help": "Time steps of one training window."})
    longest_crop_hours: int | None = field(
        default=None,
        metadata={
            "help": "The windows of a step last a random multiple of `crop_hours` up to this, so that a model can "
            "also make several weeks at once. Without it all last `crop_hours`."
        },
    )
    crop_height: int = field(default=8, metadata={"help": "Height of one training window, cells."})
    crop_width: int = field(default=8, metadata={"help": "Width of one training window, cells."})
    crop_alignment: int = field(default=1, metadata={"help": "Windows start at multiples of this many cells."})
    flips: bool = field(default=True, metadata={"help": "Random flips, and transposes of square windows."})


@dataclass
class TrainingArguments:
    """Optimisation, checkpoints and validation."""

    output_dir: str = field(
        default="runs/zoomdiff", metadata={"help": "Folder of the pipeline, checkpoints and logs."}
    )
    overwrite_output_dir: bool = field(default=False, metadata={"help": "Delete an earlier run in `output_dir`."})
    seed: int = field(default=0, metadata={"help": "Seed of weights, order, crops, noise and drops."})
    max_train_steps: int = field(default=10000, metadata={"help": "Optimiser steps; the cosine schedule ends here."})
    max_train_seconds: float | None = field(
        default=None, metadata={"help": "Time budget; the cosine schedule then also follows the elapsed time."}
    )
    batch_size: int = field(default=32, metadata={"help": "Areas per optimiser step, over all processes."})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Parts of a process's share of the batch."})
    stage_items: list[int] | None = field(
        default=None,
        metadata={"help": "How many areas of a batch each stage, or every one, learns from; all by default."},
    )
    stage_weights: list[float] | None = field(default=None, metadata={"help": "Weight of each stage's mean loss."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate of AdamW."})
    warmup_steps: int = field(default=200, metadata={"help": "Steps of linear warm-up."})
    weight_decay: float = field(default=0.01, metadata={"help": "Decoupled weight decay of matrices and kernels."})
    adam_beta2: float = field(default=0.99, metadata={"help": "Second-moment decay of AdamW."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradients are clipped to this norm."})
    ema_decay: float = field(
        default=0.999, metadata={"help": "Largest decay of the averaged weights, which are saved."}
    )
    regression_steps: int = field(
        default=400,
        metadata={
            "help": "Steps of the regressor before those of the denoiser; 0 for none, as in the paper. Under "
            "`max_train_seconds` it takes a quarter of the time at most."
        },
    )
    regression_learning_rate: float = field(default=5e-3, metadata={"help": "Peak learning rate of the regressor."})
    prior_noise: float = field(
        default=0.1, metadata={"help": "Largest std of the noise on the encoded coarse level that guides a stage."}
    )
    layer_dropout: float = field(default=0.1, metadata={"help": "Probability that a context layer is absent."})
    layer_dropout_of: Any = field(
        default=None, metadata={"help": "Another probability for some layers: {name: probability}."}
    )
    context_dropout: float = field(
        default=0.1, metadata={"help": "Probability that all context is absent (guidance)."}
    )
    context_noise: float = field(
        default=0.0, metadata={"help": "Std of the noise on the normalised static layers; for data with few places."}
    )
    random_effects: float = field(
        default=0.0,
        metadata={
            "help": "Std of the logarithm of a random factor on every unit's traffic, unknown to the forecast: how "
            "far it may be off in unseen places; for data with few."
        },
    )
    mixed_precision: Literal["no", "bf16"] | None = field(
        default=None,
        metadata={
            "help": "Precision of the network. By default that of `accelerate launch` or `accelerate config`, or no."
        },
    )
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Recompute activations to save memory."})
    checkpointing_steps: int = field(default=1000, metadata={"help": "Steps between checkpoints."})
    checkpoints_total_limit: int = field(default=2, metadata={"help": "Checkpoints to keep."})
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={"help": "A checkpoint folder, or 'latest' for the newest complete one in `output_dir`."},
    )
    validation_steps: int = field(default=1000, metadata={"help": "Steps between validations."})
    validation_areas: int = field(default=16, metadata={"help": "Held-out windows used in a validation."})
    validation_samples: int = field(default=4, metadata={"help": "Samples per window in a validation."})
    validation_inference_steps: Any = field(
        default=None, metadata={"help": "Network calls in a validation: a total, or a list per stage."}
    )
    logging_steps: int = field(default=10, metadata={"help": "Steps between log lines."})
    tensorboard: bool = field(default=True, metadata={"help": "Write tensorboard event files when it is installed."})


@dataclass
class HubArguments:
    """Upload of the trained pipeline, and what its model card cannot know otherwise."""

    push_to_hub: bool = field(
        default=False,
        metadata={"help": "Upload the trained pipeline to the Hugging Face Hub; log in with `hf auth login` before."},
    )
    hub_model_id: str | None = field(
        default=None, metadata={"help": "Repository as organisation/name; defaults to the name of `output_dir`."}
    )
    hub_private_repo: bool | None = field(
        default=None, metadata={"help": "Create the repository as private, or public; the account's default if unset."}
    )
    hub_remote_code: bool = field(
        default=False, metadata={"help": "Also write the branch `remote-code`, which loads without this package."}
    )
    model_license: str | None = field(
        default=None, metadata={"help": "Licence of the weights, as the Hub names it, for example apache-2.0."}
    )
    data_license: str | None = field(default=None, metadata={"help": "Licence of the training data."})
    data_description: str | None = field(
        default=None, metadata={"help": "What the training data are and where they come from, in a sentence."}
    )


@dataclass
class Arguments:
    """All groups of one run."""

    model: ModelArguments = field(default_factory=ModelArguments)
    hierarchy: HierarchyArguments = field(default_factory=HierarchyArguments)
    scheduler: SchedulerArguments = field(default_factory=SchedulerArguments)
    data: DataArguments = field(default_factory=DataArguments)
    training: TrainingArguments = field(default_factory=TrainingArguments)
    hub: HubArguments = field(default_factory=HubArguments)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Nested plain values, as in a configuration file."""
        return asdict(self)

    def check(self) -> None:
        """Raises `ValueError` for values that cannot work, before anything is loaded."""
        training, data = self.training, self.data
        for group, names in (
            (training, ("max_train_steps", "batch_size", "gradient_accumulation_steps", "checkpointing_steps")),
            (
                training,
                (
                    "checkpoints_total_limit",
                    "validation_steps",
                    "logging_steps",
                    "learning_rate",
                    "regression_learning_rate",
                    "max_grad_norm",
                ),
            ),
            (data, ("crop_hours", "crop_height", "crop_width", "crop_alignment", "city_height", "city_width")),
            (data, ("train_cities", "city_weeks", "city_hours")),
        ):
            for name in names:
                if getattr(group, name) <= 0:
                    raise ValueError(f"`{name}` must be positive, got {getattr(group, name)}.")
        longest = data.longest_crop_hours
        if longest is not None and (longest < data.crop_hours or longest % data.crop_hours):
            raise ValueError(
                f"`longest_crop_hours` must be a multiple of {data.crop_hours} (`crop_hours`), got {longest}."
            )
        fractions = {name: getattr(training, name) for name in ("layer_dropout", "context_dropout", "ema_decay")}
        fractions |= {f"layer_dropout_of.{name}": value for name, value in (training.layer_dropout_of or {}).items()}
        for name, value in fractions.items():
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` must lie in [0, 1], got {value}.")
        hierarchy = self.hierarchy
        if (hierarchy.spatial_scales is None) != (hierarchy.temporal_scales is None):
            raise ValueError("`spatial_scales` and `temporal_scales` go together; only one of them is given.")
        if hierarchy.levels is not None and hierarchy.spatial_scales is not None:
            raise ValueError("Give either `levels` or `spatial_scales` and `temporal_scales`, not both.")
        if hierarchy.spatial_scales is None and hierarchy.rgp != HierarchyArguments().rgp:
            raise ValueError(
                "`rgp` combines `spatial_scales` and `temporal_scales`: without them it must be left out, but is"
                f" {hierarchy.rgp!r}."
            )
        for name in ("prior_noise", "context_noise", "random_effects", "regression_steps"):
            if getattr(training, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(training, name)}.")
        if data.traffic_offset <= 0:
            raise ValueError(f"`traffic_offset` must be positive, got {data.traffic_offset}.")
        fresh = self.model.pretrained_pipeline is None
        if fresh and not self.model.denoiser_context and training.regression_steps == 0:
            raise ValueError("`denoiser_context` is false: `regression_steps` must be positive, but is 0.")
        if training.max_train_seconds is not None and training.max_train_seconds <= 0:
            raise ValueError(f"`max_train_seconds` must be positive, got {training.max_train_seconds}.")
        if not 0 <= data.start_hour < 168:
            raise ValueError(f"`start_hour` is an hour of the week, 0 to 167, got {data.start_hour}.")
        if training.validation_areas and training.validation_samples < 2:
            raise ValueError(f"`validation_samples` must be at least 2, got {training.validation_samples}.")


GROUPS = get_type_hints(Arguments)


def _flatten_file(path: str) -> dict[str, Any]:
    """Values of a YAML file whose sections are the groups, without the sections."""
    if not Path(path).is_file():
        raise ValueError(f"`config`: there is no file '{path}'.")
    sections = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    if not isinstance(sections, dict):
        raise ValueError(f"'{path}' must hold sections ({', '.join(GROUPS)}), found {type(sections).__name__}.")
    values = {}
    for section, content in sections.items():
        _check_known(section, GROUPS, f"section in '{path}'")
        if not isinstance(content, dict | None):
            raise ValueError(f"Section `{section}` of '{path}' must map names to values, found {content!r}.")
        known = [member.name for member in fields(GROUPS[section])]
        for name, value in (content or {}).items():
            _check_known(name, known, f"key in section `{section}` of '{path}'")
            values[name] = value
    return values


def _check_known(name: str, known: Any, what: str) -> None:
    if name not in known:
        nearest = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.4)
        hint = f" Did you mean `{nearest[0]}`?" if nearest else f" Known: {', '.join(known)}."
        raise ValueError(f"Unknown {what}: `{name}`.{hint}")


def _as_command_line(values: dict[str, Any]) -> list[str]:
    """File values as command-line words, so that both take the same way through the parser."""
    structured = {name for group in GROUPS.values() for name, hint in get_type_hints(group).items() if hint is Any}
    words = []
    for name, value in values.items():
        if name in structured:
            words += [f"--{name}", json.dumps(value)]
        elif isinstance(value, list):
            words += [f"--{name}", *map(str, value)] if value else []
        elif value is not None:
            words += [f"--{name}", str(value)]
    return words


def parse_arguments(words: list[str], prog: str | None = None) -> Arguments:
    """
    Parses the command line of `train.py`.

    Args:
        words (`list[str]`): `sys.argv[1:]`. `--config FILE` names a YAML file with the sections model, hierarchy,
            scheduler, data, training and hub; every other flag overrides the file. Structured values (layers, regions,
            levels, unet) are written as JSON on the command line.
        prog (`str`, *optional*): Name of the program in its help; that of the script if not given.

    Raises:
        ValueError: unknown names (the nearest known one is suggested) and values that cannot work.
    """
    parser = HfArgumentParser(
        list(GROUPS.values()), prog=prog, allow_abbrev=False, description="Trains a ZoomDiff pipeline."
    )
    parser.add_argument("--config", help="YAML file with the sections " + ", ".join(GROUPS) + ".")
    parser.register("type", Any, yaml.safe_load)
    known, _ = parser.parse_known_args(words)
    from_file = _as_command_line(_flatten_file(known.config)) if known.config else []
    *groups, _, unknown = parser.parse_args_into_dataclasses(
        from_file + words, return_remaining_strings=True, look_for_args_file=False
    )
    if unknown:
        names = [member.name for group in GROUPS.values() for member in fields(group)]
        _check_known(unknown[0].lstrip("-").split("=")[0].replace("-", "_"), names, "argument")
        raise ValueError(f"Could not use '{' '.join(unknown)}' on the command line.")
    arguments = Arguments(*groups)
    arguments.check()
    return arguments
