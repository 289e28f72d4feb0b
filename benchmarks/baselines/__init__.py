# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The systems that know one level, by their names in the tables."""

from importlib import import_module


# Name -> module and class. A cell imports only its own.
BASELINES = {
    "Hourly climatology": ("climatology", "HourlyClimatology"),
    "XGBoost": ("boosted_trees", "BoostedTrees"),
    "Transformer": ("transformer", "Transformer"),
    "CSDI": ("csdi", "CSDI"),
    "DiT": ("dit", "DiT"),
    "Diffusion-TS": ("diffusion_ts", "DiffusionTS"),
    "KSTDiff": ("kstdiff", "KSTDiff"),
    "NetDiffus": ("netdiffus", "NetDiffus"),
    "CorrDiff scheme": ("corrdiff", "CorrDiff"),
    "TimeGAN": ("timegan", "TimeGAN"),
    "5GT-GAN": ("fivegt_gan", "FiveGTGAN"),
    "keGAN": ("kegan", "KeGAN"),
}
REGRESSORS = ("XGBoost", "Transformer")


def baseline_class(name: str) -> type:
    """The class of a baseline by its name in the tables."""
    module, attribute = BASELINES[name]
    return getattr(import_module(f".{module}", __name__), attribute)
