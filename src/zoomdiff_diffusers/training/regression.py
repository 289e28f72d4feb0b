# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Training of the regressor, before that of the denoiser."""

import math
import time

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from tqdm.auto import tqdm

from ..data.datasets import TrafficWindows, stack_windows
from .arguments import TrainingArguments
from .loss import DRDMLoss


WARMUP_STEPS = 20
# With `max_train_seconds`, the share of it that the regressor takes at most.
LARGEST_SHARE = 0.25


def fit_regressor(
    loss: DRDMLoss, windows: TrafficWindows, training: TrainingArguments, accelerator: Accelerator
) -> float:
    """
    Trains `loss.regressor` by AdamW and freezes it.

    Every process sees the whole batch, which is cheap; all take the weights of the main process in the end.

    Args:
        loss (`DRDMLoss`): Holds the regressor and what happens to the context in training.
        windows (`TrafficWindows`): Source of training windows.
        training (`TrainingArguments`): Steps, learning rate, time.
        accelerator (`Accelerator`): Device and precision.

    Returns:
        Mean loss over the last tenth of the steps.
    """
    regressor, steps = loss.regressor.requires_grad_(True).train(), training.regression_steps
    limit = LARGEST_SHARE * training.max_train_seconds if training.max_train_seconds is not None else math.inf
    optimizer = torch.optim.AdamW(
        regressor.parameters(), betas=(0.9, training.adam_beta2), weight_decay=training.weight_decay
    )
    indices = list(range(training.batch_size))
    progress, started, history = 0.0, time.monotonic(), []
    bar = tqdm(total=steps, disable=not accelerator.is_main_process, desc="regression", unit="step")
    while progress < 1:
        warmup = min(1.0, (len(history) + 1) / WARMUP_STEPS)
        for group in optimizer.param_groups:
            group["lr"] = training.regression_learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * progress))
        batch = stack_windows(windows.draw(len(history) * training.batch_size + index) for index in indices)
        batch = {name: values.to(accelerator.device) for name, values in batch.items()}
        with accelerator.autocast():
            value = loss.regression_loss(batch, len(history), indices)
        value.backward()
        torch.nn.utils.clip_grad_norm_(regressor.parameters(), training.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        history.append(value.detach())
        bar.update()
        progress = max(len(history) / steps, (time.monotonic() - started) / limit)
        if accelerator.num_processes > 1:
            progress = float(broadcast(torch.tensor([progress], dtype=torch.float64, device=accelerator.device)))
    bar.close()
    regressor.requires_grad_(False).eval()
    if accelerator.num_processes > 1:
        for values in regressor.state_dict().values():
            values.copy_(broadcast(values))
    last = torch.stack(history[-math.ceil(len(history) / 10) :]).mean().item()
    if not math.isfinite(last):
        raise FloatingPointError(f"The loss of the regression is {last}: try a lower `regression_learning_rate`.")
    return last
