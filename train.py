# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Train a ZoomDiff pipeline:

    accelerate launch train.py --config configs/simulated_city.yaml [--learning_rate 0.0005 ...]

`python train.py --help` lists all arguments; those on the command line override the file.
"""

import logging
import sys

from zoomdiff_diffusers.training.arguments import parse_arguments


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        arguments = parse_arguments(sys.argv[1:])
        from zoomdiff_diffusers.training.trainer import Trainer

        trainer = Trainer(arguments)
    except (OSError, ValueError) as error:
        sys.exit(f"train.py: error: {error}")
    trainer.train()
    if arguments.hub.push_to_hub and trainer.accelerator.is_main_process:
        try:
            trainer.push_to_hub()
        except ValueError as error:
            sys.exit(f"train.py: error: {error}")


if __name__ == "__main__":
    main()
