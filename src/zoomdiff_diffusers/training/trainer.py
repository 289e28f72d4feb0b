# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The training loop: from arguments to a saved pipeline."""

import json
import math
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.logging import get_logger
from accelerate.utils import broadcast, is_tensorboard_available
from diffusers.training_utils import EMAModel
from tqdm.auto import tqdm

from ..configuration import write_atomically
from ..data.datasets import TrafficArea, TrafficWindows, load_areas, smoothed_layers, stack_windows
from ..processors import ContextProcessor
from ..schedulers import DRDMScheduler
from .arguments import Arguments
from .checkpoints import (
    PREFIX,
    changed_settings,
    find_checkpoint,
    flatten_optimizer,
    list_checkpoints,
    read_state,
    read_tensors,
    restore_optimizer,
    save_checkpoint,
)
from .components import (
    build_hierarchy,
    build_regressor,
    build_scheduler,
    build_unet,
    context_schema,
    fit_traffic_processor,
    load_pretrained,
)
from .loss import DRDMLoss
from .regression import fit_regressor
from .validation import sample_levels, score_levels


logger = get_logger(__name__)

LOG = "log.jsonl"
PRECISIONS = ("no", "bf16")
# Windows from which the scales of the diffused quantities are measured.
STATISTICS_WINDOWS = 256
# Settings that may change when a run is resumed: they leave the steps done so far as they are.
FREE_SETTINGS = {
    "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "max_train_steps", "max_train_seconds",
    "checkpointing_steps", "checkpoints_total_limit", "logging_steps", "tensorboard", "gradient_checkpointing",
    "validation_region", "validation_cities", "validation_steps", "validation_areas", "validation_samples",
    "validation_inference_steps", "data_description", "data_license", "model_license", "push_to_hub", "hub_model_id",
    "hub_private_repo", "hub_remote_code",
}  # fmt: skip


class Trainer:
    """
    Trains a pipeline. Everything that can fail for a wrong argument fails in the constructor.

    Args:
        arguments (`Arguments`): Checked arguments of the run.

    Raises:
        ValueError: data that do not fit the arguments, an output folder that holds another run, or a precision of
            Accelerate's that is none of those of `mixed_precision`.
    """

    def __init__(self, arguments: Arguments):
        training = arguments.training
        self.output_dir = Path(training.output_dir)
        self.accelerator = Accelerator(
            mixed_precision=training.mixed_precision,
            log_with="tensorboard" if training.tensorboard and is_tensorboard_available() else None,
            project_dir=str(self.output_dir),
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        # Checkpoints and the summary tell the precision, wherever it comes from.
        training = replace(training, mixed_precision=self._precision())
        self.arguments = replace(arguments, training=training)
        self.overwrites = False
        self.checkpoint = self._check_output_dir()
        if arguments.hub.push_to_hub:
            from ..hub.upload import check_login

            check_login()
        parts = self.accelerator.num_processes * training.gradient_accumulation_steps
        if training.batch_size % parts:
            raise ValueError(
                f"`batch_size` must be a multiple of processes x gradient_accumulation_steps = {parts}, "
                f"got {training.batch_size}."
            )
        self._build()
        self._prepare_optimisation()
        self.step, self.seconds, self.losses, self.validations = 0, 0.0, [], []
        self.regression = None  # seconds and loss of the regressor's training, once it is done
        if self.checkpoint is not None:
            self._resume()

    # ---------------------------------------------------------------------------------------------------------- set-up

    def _precision(self) -> str:
        """That of `mixed_precision` or else of Accelerate, which knows others too."""
        found = self.accelerator.mixed_precision
        if found not in PRECISIONS:
            raise ValueError(
                f"`mixed_precision` must be one of {PRECISIONS}, but Accelerate is configured for {found!r}: give one"
                " of these to `accelerate launch`, or set it here."
            )
        return found

    def _check_output_dir(self) -> Path | None:
        """The checkpoint to resume from, if any; refuses to mix two runs in a folder."""
        training, checkpoint = self.arguments.training, None
        if self.output_dir.exists() and not self.output_dir.is_dir():
            raise ValueError(f"`output_dir`: '{self.output_dir}' is not a folder.")
        if training.resume_from_checkpoint is not None:
            checkpoint = find_checkpoint(self.output_dir, training.resume_from_checkpoint)
            changes = changed_settings(read_state(checkpoint)["config"], self.arguments.to_dict(), FREE_SETTINGS)
            if changes:
                raise ValueError(f"'{checkpoint}' belongs to a run with other settings: {'; '.join(changes)}.")
        if checkpoint is not None and checkpoint.parent.resolve() == self.output_dir.resolve():
            return checkpoint
        earlier = list_checkpoints(self.output_dir) or (self.output_dir / "model_index.json").exists()
        if earlier and not training.overwrite_output_dir:
            raise ValueError(
                f"`output_dir`: '{self.output_dir}' holds an earlier run. Continue it with "
                "--resume_from_checkpoint latest, delete it with --overwrite_output_dir, or choose another folder."
            )
        source = self.arguments.model.pretrained_pipeline
        if earlier and source is not None and Path(source).resolve() == self.output_dir.resolve():
            raise ValueError(
                f"`output_dir`: '{self.output_dir}' is `pretrained_pipeline` too, which --overwrite_output_dir would"
                " delete: choose another folder."
            )
        self.overwrites = bool(earlier)
        return checkpoint

    def _build(self) -> None:
        arguments, data, training = self.arguments, self.arguments.data, self.arguments.training
        torch.manual_seed(training.seed)  # the initial weights
        source = load_pretrained(arguments)
        self.hierarchy = source.hierarchy if source else build_hierarchy(arguments)
        size = (data.crop_hours, data.crop_height, data.crop_width)
        finest = (self.hierarchy.raster_factors[-1], self.hierarchy.temporal_factors[-1])
        if finest != (1, 1):
            raise ValueError(
                "`hierarchy`: the last level is that of the data and must have the spatial and the temporal factor 1, "
                f"but has {finest}."
            )
        self.hierarchy.shapes(*size)  # refuses windows that do not fit
        layers = context_schema(arguments, self.hierarchy)
        names = [layer["name"] for layer in layers]
        train_areas = load_areas(data, names, "train")
        held_out = load_areas(data, names, "validation") if training.validation_areas else []
        all_layers = layers + smoothed_layers(layers, data.smooth_layers)
        self.context_processor = ContextProcessor(all_layers, largest_deviation=data.largest_deviation)
        if source is None:
            self.context_processor.fit(_unique_contexts(train_areas))
            self.traffic_processor = fit_traffic_processor(train_areas, arguments)
        else:
            if source.context_processor.config.layers != self.context_processor.config.layers:
                raise ValueError(
                    f"The layers of `pretrained_pipeline` are {source.context_processor.config.layers}: declare these."
                )
            self.context_processor, self.traffic_processor = source.context_processor, source.traffic_processor
            found, channels = train_areas[0].traffic.shape[0], self.traffic_processor.channels
            if found != len(channels):
                raise ValueError(f"`pretrained_pipeline` has the traffic channels {channels}, but the data {found}.")
        steps_per_day = max(1, round(24 / self.hierarchy.config.time_step))
        common = (self.context_processor, size, steps_per_day, self.hierarchy.config.time_step)
        options = (data.crop_alignment, data.flips, training.seed, data.longest_crop_hours)
        self.windows = TrafficWindows(train_areas, *common, *options)
        self.held_out = TrafficWindows(held_out, *common) if held_out else None
        self._build_loss(source)

    def _build_loss(self, source) -> None:
        training = self.arguments.training
        scheduler = source.scheduler if source else build_scheduler(self.hierarchy, self.arguments)
        processors = (self.context_processor, self.traffic_processor)
        if source is None:
            self.unet = build_unet(self.arguments, self.hierarchy, scheduler, *processors)
            regressor = build_regressor(self.arguments, self.hierarchy, *processors)
        else:
            self.unet, regressor = source.unet, source.regressor
        if training.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self.loss = DRDMLoss(
            self.unet,
            scheduler,
            self.hierarchy,
            self.traffic_processor,
            batch_size=training.batch_size,
            stage_items=training.stage_items,
            stage_weights=training.stage_weights,
            prior_noise=training.prior_noise,
            layer_dropout=self._layer_dropout(),
            context_dropout=training.context_dropout,
            context_noise=training.context_noise,
            random_effects=training.random_effects,
            seed=training.seed,
            regressor=regressor,
        )
        self.measures_data_std = source is None
        if source is None and regressor is None and self.checkpoint is None:
            self._measure_data_std()
        self.pipeline()  # refuses components that do not belong together, not only when they are saved
        if self.held_out is not None:
            steps = training.validation_inference_steps
            DRDMScheduler.from_config(self.loss.scheduler.config).set_timesteps(steps)

    def _measure_data_std(self) -> None:
        self._set_data_std(self.loss.measure_data_std(self._statistics_batches()))

    def _statistics_batches(self) -> Iterator[dict[str, torch.Tensor]]:
        """The windows that statistics are made of, no more at a time than in a training step."""
        size = self.arguments.training.batch_size
        for first in range(0, STATISTICS_WINDOWS, size):
            numbers = range(first, min(first + size, STATISTICS_WINDOWS))
            batch = stack_windows(self.windows.draw(number) for number in numbers)
            yield {name: values.to(self.accelerator.device) for name, values in batch.items()}

    def _set_data_std(self, std: list[float]) -> None:
        self.loss.scheduler = DRDMScheduler.from_config(self.loss.scheduler.config, data_std=std)

    def _layer_dropout(self) -> list[float]:
        """The probability of every layer, in the order of the schema."""
        training = self.arguments.training
        special = training.layer_dropout_of or {}
        names = [layer["name"] for layer in self.context_processor.layers]
        if unknown := set(special) - set(names):
            raise ValueError(f"`layer_dropout_of` names {sorted(unknown)}, but the context layers are {names}.")
        return [special.get(name, training.layer_dropout) for name in names]

    def _prepare_optimisation(self) -> None:
        training = self.arguments.training
        decayed = {name: value for name, value in self.unet.named_parameters() if value.ndim >= 2}
        others = {name: value for name, value in self.unet.named_parameters() if value.ndim < 2}
        self.parameter_names = [*decayed, *others]
        optimizer = torch.optim.AdamW(
            [
                {"params": list(decayed.values()), "weight_decay": training.weight_decay},
                {"params": list(others.values()), "weight_decay": 0.0},
            ],
            lr=training.learning_rate,
            betas=(0.9, training.adam_beta2),
            fused=True,
        )
        self.model, self.optimizer = self.accelerator.prepare(self.loss, optimizer)
        self.ema = EMAModel(self.unet.parameters(), decay=training.ema_decay, foreach=True)

    def _resume(self) -> None:
        state = read_state(self.checkpoint)
        if self.loss.regressor is not None:
            self.loss.regressor.load_state_dict(read_tensors(self.checkpoint, "regressor"))
        if self.measures_data_std:  # not again: its last bits depend on the device and the number of threads
            self._set_data_std(state["statistics"]["data_std"])
        saved, current = state["statistics"], self._statistics()
        if differing := [name for name, values in current.items() if saved.get(name) != values]:
            raise ValueError(
                f"`resume_from_checkpoint`: '{self.checkpoint}' was made from other data than those of `dataset`, or"
                f" does not tell: its statistics {differing} must be equal to theirs, but differ or are missing."
            )
        self.unet.load_state_dict(read_tensors(self.checkpoint, "unet"))
        averaged = read_tensors(self.checkpoint, "ema")
        for shadow, (name, _) in zip(self.ema.shadow_params, self.unet.named_parameters()):
            shadow.copy_(averaged[name])
        self.ema.optimization_step = state["step"]
        restore_optimizer(self.optimizer, self.parameter_names, read_tensors(self.checkpoint, "optimizer"))
        self.step, self.seconds = state["step"], state["seconds"]
        self.losses, self.validations = state["losses"], state["validations"]
        self.regression = state["regression"]

    def _statistics(self) -> dict:
        """Everything that was fitted to the data, JSON-safe."""
        traffic = self.traffic_processor.config
        return {
            "data_std": list(self.loss.scheduler.data_std),
            "context": self.context_processor.config.statistics,
            **{name: list(traffic[name]) for name in ("offset", "mean", "std", "maximum")},
        }

    # ------------------------------------------------------------------------------------------------------------ loop

    def train(self) -> dict:
        """Trains to the end, saves the pipeline in `output_dir` and returns the summary that is saved with it."""
        training, main = self.arguments.training, self.accelerator.is_main_process
        self._open_logs()
        count = sum(parameter.numel() for parameter in self.unet.parameters())
        message = f"{count} parameters, {len(self.windows.areas)} areas, {self.accelerator.device}"
        logger.info(message, main_process_only=True)
        start = time.monotonic() - self.seconds
        if self.loss.regressor is not None and training.regression_steps > 0 and self.regression is None:
            self._fit_regressor()
        bar = tqdm(total=training.max_train_steps, initial=self.step, disable=not main, desc="train", unit="step")
        running = []
        while self.step < training.max_train_steps and not (self.step > 0 and self._out_of_time()):
            running.append(self._train_step())
            self.step += 1
            self.seconds = self._agreed_seconds(time.monotonic() - start)
            bar.update()
            if self._due(training.logging_steps) or self._due(training.checkpointing_steps):
                bar.set_postfix(loss=f"{self._log_losses(running):.4f}")
                running = []
            if self._due(training.validation_steps):
                self._validate()
            if self._due(training.checkpointing_steps):
                self._save_checkpoint()
        bar.close()
        if running:
            self._log_losses(running)
        return self._finish()

    def _fit_regressor(self) -> None:
        start = time.monotonic()
        loss = fit_regressor(self.loss, self.windows, self.arguments.training, self.accelerator)
        if self.measures_data_std:
            self._measure_data_std()
        seconds = self._agreed_seconds(time.monotonic() - start)
        self.regression = {"seconds": seconds, "loss": loss}
        self._log({"regression": loss})

    def _due(self, steps: int) -> bool:
        return self.step % steps == 0

    def _train_step(self) -> torch.Tensor:
        """One optimiser step; returns this process's part of every stage's loss (K,)."""
        training, accelerator = self.arguments.training, self.accelerator
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        parts = training.gradient_accumulation_steps
        size = training.batch_size // (parts * accelerator.num_processes)
        first = accelerator.process_index * parts * size
        stage_losses = 0.0
        for part in range(parts):
            indices = list(range(first + part * size, first + (part + 1) * size))
            batch = self.windows.draw_batch(self.step, training.batch_size, indices)
            batch = {name: values.to(accelerator.device) for name, values in batch.items()}
            if part < parts - 1:
                with accelerator.no_sync(self.model):
                    stage_losses = stage_losses + self._backward(batch, indices)
            else:
                stage_losses = stage_losses + self._backward(batch, indices)
        accelerator.clip_grad_norm_(self.unet.parameters(), training.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.step(self.unet.parameters())
        return stage_losses

    def _backward(self, batch: dict[str, torch.Tensor], indices: list[int]) -> torch.Tensor:
        loss, stage_losses = self.model(batch, self.step, indices)
        # Gradients are averaged over processes, but the parts of the loss add up.
        self.accelerator.backward(loss * self.accelerator.num_processes)
        return stage_losses

    def _learning_rate(self) -> float:
        """Linear warm-up, then a cosine that reaches 0 with the last step or with the time budget."""
        training = self.arguments.training
        progress = self.step / training.max_train_steps
        if training.max_train_seconds is not None:
            before = self.regression["seconds"] if self.regression is not None else 0.0
            progress = max(progress, (self.seconds - before) / max(training.max_train_seconds - before, 1e-6))
        warmup = min(1.0, (self.step + 1) / max(1, training.warmup_steps))
        return training.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def _out_of_time(self) -> bool:
        limit = self.arguments.training.max_train_seconds
        return limit is not None and self.seconds >= limit

    def _agreed_seconds(self, seconds: float) -> float:
        """The main process's clock, so that all processes stop together and share the learning rate."""
        if self.accelerator.num_processes == 1 or self.arguments.training.max_train_seconds is None:
            return seconds
        return float(broadcast(torch.tensor([seconds], dtype=torch.float64, device=self.accelerator.device)))

    # ----------------------------------------------------------------------------------------- logs, validation, files

    def _open_logs(self) -> None:
        if self.accelerator.is_main_process:
            if self.overwrites:
                _delete_run(self.output_dir, self.pipeline().components)
            self.output_dir.mkdir(parents=True, exist_ok=True)
            log = self.output_dir / LOG
            lines = log.read_text(encoding="utf-8").splitlines() if log.exists() and self.step > 0 else []
            write_atomically(log, "".join(f"{line}\n" for line in lines if _step_of(line) <= self.step))
        self.accelerator.init_trackers("tensorboard")
        self.accelerator.wait_for_everyone()

    def _log(self, values: dict) -> None:
        if not self.accelerator.is_main_process:
            return
        with (self.output_dir / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": self.step, "seconds": round(self.seconds, 3), **values}) + "\n")
        self.accelerator.log(_flat(values), step=self.step)

    def _log_losses(self, running: list[torch.Tensor]) -> float:
        """Logs the mean of the last steps' losses and returns their weighted sum."""
        mean = self.accelerator.reduce(torch.stack(running).mean(0), reduction="sum").tolist()
        total = sum(weight * loss for weight, loss in zip(self.loss.stage_weights, mean))
        if not math.isfinite(total):
            raise FloatingPointError(f"The loss is {total} at step {self.step}: try a lower `learning_rate`.")
        values = {
            "loss": total,
            "stages": dict(zip(self.hierarchy.names, mean)),
            "learning_rate": self._learning_rate(),
        }
        self._log(values)
        self.losses.append({"step": self.step, "loss": total})
        return total

    def _validate(self) -> None:
        """Scores the averaged weights on held-out windows, in the main process."""
        training = self.arguments.training
        if self.held_out is not None and self.accelerator.is_main_process:
            count = min(training.validation_areas, len(self.held_out))
            chosen = np.linspace(0, len(self.held_out) - 1, count).round().astype(int)
            windows = stack_windows(self.held_out[int(index)] for index in chosen)
            windows = {name: values.to(self.accelerator.device) for name, values in windows.items()}
            self.unet.eval()
            self.ema.store(self.unet.parameters())
            self.ema.copy_to(self.unet.parameters())
            options = (training.validation_samples, training.validation_inference_steps, training.seed)
            with self.accelerator.autocast():
                levels = sample_levels(self.loss, windows, *options)
            self.ema.restore(self.unet.parameters())
            scores = score_levels(levels, windows, self.loss)
            self.validations.append({"step": self.step, "scores": scores})
            self._log({"validation": scores})
            self._plot(levels)
        self.accelerator.wait_for_everyone()

    def _plot(self, levels: list[torch.Tensor]) -> None:
        """The zoom of the first held-out window, where matplotlib is installed."""
        try:
            from ..evaluation.plots import plot_zoom
        except ImportError:
            return
        named = {name: level[:, 0, 0].numpy() for name, level in zip(self.hierarchy.names, levels)}
        unit, channel = self.traffic_processor.units[0], self.traffic_processor.channels[0]
        figure = plot_zoom(named, self.hierarchy, unit=unit, channel=channel, title=f"held-out area, step {self.step}")
        figure.savefig(self.output_dir / f"validation-{self.step}.png", dpi=100)

    def _save_checkpoint(self) -> None:
        if self.accelerator.is_main_process:
            names = [name for name, _ in self.unet.named_parameters()]
            tensors = {
                "unet": self.unet.state_dict(),
                "ema": dict(zip(names, self.ema.shadow_params)),
                "optimizer": flatten_optimizer(self.optimizer, self.parameter_names),
            }
            if self.loss.regressor is not None:
                tensors["regressor"] = self.loss.regressor.state_dict()
            state = {
                "seconds": self.seconds,
                "regression": self.regression,
                "losses": self.losses,
                "validations": self.validations,
                "statistics": self._statistics(),
                "config": self.arguments.to_dict(),
            }
            limit = self.arguments.training.checkpoints_total_limit
            save_checkpoint(self.output_dir, self.step, tensors, state, limit)
        self.accelerator.wait_for_everyone()

    def _finish(self) -> dict:
        """Saves the pipeline with the averaged weights, and the summary."""
        training = self.arguments.training
        if not self._due(training.validation_steps):
            self._validate()
        summary = {
            "steps": self.step,
            "seconds": self.seconds,
            "seed": training.seed,
            "parameters": sum(parameter.numel() for parameter in self.unet.parameters()),
            "regression": self.regression,
            "losses": self.losses,
            "validations": self.validations,
            "statistics": self._statistics(),
            "config": self.arguments.to_dict(),
        }
        if self.accelerator.is_main_process:
            self.ema.copy_to(self.unet.parameters())
            self.unet.eval()
            pipe = self.pipeline()
            pipe.training_summary = summary
            pipe.save_pretrained(self.output_dir)
        # The last reference to the process group must not go with the wrapped model, at exit: its destructor would
        # hold the interpreter's lock while it waits for a thread that needs the lock.
        (self.model,) = self.accelerator.free_memory(self.model)
        self.accelerator.end_training()
        return summary

    def push_to_hub(self) -> str:
        """
        Uploads the trained pipeline as the arguments say, on the main process; returns the address of the commit.

        Raises:
            ValueError: the Hub refuses, or cannot be reached. The pipeline stays in `output_dir`.
        """
        from ..hub.upload import HUB_ERRORS, explain
        from ..pipelines import ZoomDiffPipeline

        hub = self.arguments.hub
        repo_id = hub.hub_model_id or self.output_dir.absolute().name
        try:
            return ZoomDiffPipeline.from_pretrained(self.output_dir).push_to_hub(
                repo_id, private=hub.hub_private_repo, remote_code=hub.hub_remote_code
            )
        except HUB_ERRORS as error:
            raise ValueError(
                f"The pipeline is in '{self.output_dir}', but was not uploaded: {explain(error)} "
                f"Try again: zoomdiff push {self.output_dir} {repo_id}"
            ) from None

    def pipeline(self):
        """The pipeline made of the components as they are."""
        from ..pipelines import ZoomDiffPipeline

        return ZoomDiffPipeline(
            unet=self.unet,
            scheduler=self.loss.scheduler,
            hierarchy=self.hierarchy,
            traffic_processor=self.traffic_processor,
            context_processor=self.context_processor,
            regressor=self.loss.regressor,
        )


def _delete_run(folder: Path, components: Iterable[str]) -> None:
    """Delete what a run writes, the folders of these components among it, and no other file of the folder."""
    # The index goes first: without its components it would be no pipeline.
    patterns = ["model_index.json", "training_summary.json", *components]
    patterns += [LOG, "validation-*.png", f"{PREFIX}*", f".{PREFIX}*", "tensorboard"]
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _step_of(line: str) -> float:
    """The step of a line of the log; none is as late as one that a crash has cut short."""
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return math.inf


def _unique_contexts(areas: list[TrafficArea]) -> list[dict]:
    return list({id(area.context): area.context for area in areas}.values())


def _flat(values: dict, prefix: str = "") -> dict[str, float]:
    flat = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
