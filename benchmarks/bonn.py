# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Bonn, east held out: context to traffic at four levels on the nine tile-weeks at rows 0, 8, 16 and columns 20-27.

    accelerate launch train.py --config configs/bonn.yaml
    python -m benchmarks.bonn --model runs/bonn

The context is real; the traffic was synthesised by SpectraGAN, whose release has the data. Scores are in units of the
mean traffic of the training columns, 0-19. The baselines forecast the finest level, and are averaged for the others.
They have no spread, so that their CRPS is their MAE.
"""

import torch

from .held_out import compare
from .report import make_parser, publish


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--model", required=True, help="folder or Hub id of the pipeline trained on Bonn")
    parser.add_argument("--config", default="configs/bonn.yaml", help="its configuration (default: configs/bonn.yaml)")
    parser.add_argument("--data", default=None, help="the data file, if not where the configuration says")
    parser.add_argument("--samples", type=int, default=16, help="size of the ensemble (default: 16)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    overrides = [] if arguments.data is None else ["--dataset", arguments.data]
    publish(compare(arguments.model, arguments.config, overrides, arguments), arguments)


if __name__ == "__main__":
    main()
