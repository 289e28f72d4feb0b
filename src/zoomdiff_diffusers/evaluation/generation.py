# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Whether generated traffic passes for real, serves as training data, and is more than a copy: three fixed protocols.

Published discriminative and predictive scores differ tenfold between implementations, so everything that matters is
fixed here: classifier, features, split and seed. All arrays are windows `(N, C, T, H, W)` of one level; NaN marks
missing hours. Needs scikit-learn, which is imported when a function is called.
"""

import numpy as np


SERIES = 2000  # series per class of the discriminative score
EXAMPLES = 20_000  # examples of the forecast


def discriminative_score(real: np.ndarray, generated: np.ndarray, seed: int = 0) -> float:
    """
    How well a classifier tells generated series from real ones: `|accuracy - 0.5|`, 0 (not at all) to 0.5 (always).

    An example is the series of one place and window, at most 2000 per class: its values, its first differences, mean,
    standard deviation, share of zeros, autocorrelation at lag 1, and the correlation and the ratio of spread with the
    mean of the four neighbours. Classifier: scikit-learn's `HistGradientBoostingClassifier`, 100 trees of up to 15
    leaves. The windows are split into two halves at random; each half is classified by the model of the other.
    With m independent examples chance alone gives about `0.4 / sqrt(m)`; the series of one window are often alike, so
    m is closer to the number of windows. A classifier two-sample test (Lopez-Paz & Oquab 2017,
    https://arxiv.org/abs/1610.06545), as TimeGAN's score is (Yoon et al., NeurIPS 2019).

    Args:
        real (`np.ndarray`): `(N, C, T, H, W)`, at least two windows; NaN where missing.
        generated (`np.ndarray`): The same shape and windows, one sample each. Where `real` is NaN it is not looked at.
        seed (`int`, defaults to 0): Seed of the split and of the choice of series.

    Raises:
        ValueError: If the shapes differ or there are fewer than two windows.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    real, generated = _windows(real, "real"), _windows(generated, "generated")
    if real.shape != generated.shape or len(real) < 2:
        raise ValueError(
            "`real` and `generated` must have the same shape with at least two windows: found "
            f"{real.shape} and {generated.shape}."
        )
    generated = np.where(np.isnan(real), np.nan, generated)
    rng = np.random.default_rng(seed)
    places = real.shape[-2] * real.shape[-1]
    window = np.repeat(np.arange(len(real)), places)
    first_half = np.isin(window, rng.permutation(len(real))[: len(real) // 2])
    chosen = np.sort(rng.permutation(len(window))[:SERIES])
    features = np.concatenate([_series_features(values)[chosen] for values in (real, generated)])
    labels = np.repeat([0, 1], len(chosen))
    first_half = np.tile(first_half[chosen], 2)
    if first_half.all() or not first_half.any():
        raise ValueError("`real` has too few places for a series in each half of its windows.")
    correct = np.empty(len(labels), dtype=bool)
    for held_out in (first_half, ~first_half):
        classifier = HistGradientBoostingClassifier(
            max_iter=100, max_leaf_nodes=15, early_stopping=False, random_state=seed
        )
        defined = ~np.isnan(features[~held_out]).all(axis=0)
        classifier.fit(features[~held_out][:, defined], labels[~held_out])
        correct[held_out] = classifier.predict(features[held_out][:, defined]) == labels[held_out]
    return float(abs(correct.mean() - 0.5))


def train_on_synthetic_test_on_real(
    generated: np.ndarray, real_train: np.ndarray, real_test: np.ndarray, seed: int = 0, history: int = 24
) -> dict[str, float]:
    """
    Whether a forecast learned from generated traffic works on real traffic (Esteban et al. 2017,
    https://arxiv.org/abs/1706.02633).

    An example is the value of one place and channel at one step, to be forecast from the `history` values before it;
    20,000 of each array are drawn. Values go through `log(1 + value / mean of real_train)`, each channel by its own.
    Forecast: scikit-learn's `HistGradientBoostingRegressor` for the absolute error, 100 trees of up to 31 leaves.

    Args:
        generated (`np.ndarray`): `(N, C, T, H, W)`, one sample of each window; NaN where missing, as in the others.
        real_train (`np.ndarray`): Real windows that the comparison learns from, any number.
        real_test (`np.ndarray`): Real windows that both forecasts are tested on.
        seed (`int`, defaults to 0): Seed of the choice of examples.
        history (`int`, defaults to 24): Steps that the forecast knows: 24 hours at a level of one hour.

    Returns:
        `dict[str, float]`: `mae_synthetic` and `mae_real`, mean absolute errors on `real_test` in multiples of the
        mean of `real_train`, and `ratio`, the first over the second: 1 when generated traffic is as good to learn
        from as real traffic, larger when worse.

    Raises:
        ValueError: If the windows are not longer than `history`, or channels differ.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    arrays = {"generated": generated, "real_train": real_train, "real_test": real_test}
    arrays = {name: _windows(values, name) for name, values in arrays.items()}
    unit = np.nanmean(arrays["real_train"], axis=(0, 2, 3, 4)).reshape(-1, 1, 1, 1)
    examples = {}
    for name, values in arrays.items():
        if values.shape[1] != len(unit) or values.shape[2] <= history:
            raise ValueError(
                f"`{name}` must have {len(unit)} channel(s) and more than {history} steps, found {values.shape}."
            )
        # One seed for each array: equal arrays give equal examples.
        examples[name] = _forecast_examples(_compressed(values, unit), history, np.random.default_rng(seed))
    inputs, truth = examples["real_test"]
    errors = {}
    for name in ("generated", "real_train"):
        forecast = HistGradientBoostingRegressor(
            loss="absolute_error", max_iter=100, max_leaf_nodes=31, early_stopping=False, random_state=seed
        ).fit(*examples[name])
        errors[name] = float(np.abs(np.expm1(forecast.predict(inputs)) - np.expm1(truth)).mean())
    return {
        "mae_synthetic": errors["generated"],
        "mae_real": errors["real_train"],
        "ratio": errors["generated"] / errors["real_train"],
    }


def nearest_neighbour_distances(generated: np.ndarray, train: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """
    Whether generated windows are copies of training windows: their distances to the nearest training window, against
    those of held-out real windows (in the spirit of Alaa et al. 2022, https://arxiv.org/abs/2102.08921).

    Distance: Euclidean over all values of a window, after `log(1 + value / mean of train)`; hours missing in either
    window are left out and made up for in proportion. Training windows must be as the system saw them, flipped and
    shifted ones included. Smooth traffic is closer to everything: a ratio below 1 proves a copy only where it is near
    0 or the system's scores are otherwise good.

    Args:
        generated (`np.ndarray`): `(N, C, T, H, W)`; NaN where missing, as in the others.
        train (`np.ndarray`): Training windows, any number.
        test (`np.ndarray`): Real windows that the system has not seen, any number.

    Returns:
        `dict[str, float]`: `generated_to_train` and `test_to_train`, median distances as root mean squares per value;
        `median_ratio`, the first over the second, about 1 for new traffic like the real one and 0 for copies; and
        `smallest_ratio`, that of the smallest distances, which shows a single copy.

    Raises:
        ValueError: If the windows differ in shape.
    """
    arrays = {"generated": generated, "train": train, "test": test}
    arrays = {name: _windows(values, name) for name, values in arrays.items()}
    if len({values.shape[1:] for values in arrays.values()}) > 1:
        shapes = ", ".join(f"`{name}` {values.shape}" for name, values in arrays.items())
        raise ValueError(f"All windows must have the same shape, found {shapes}.")
    unit = np.nanmean(arrays["train"], axis=(0, 2, 3, 4)).reshape(-1, 1, 1, 1)
    flat = {name: _compressed(values, unit).reshape(len(values), -1) for name, values in arrays.items()}
    distances = {name: _nearest(flat[name], flat["train"]) for name in ("generated", "test")}
    medians = {name: float(np.median(values)) for name, values in distances.items()}
    return {
        "generated_to_train": medians["generated"],
        "test_to_train": medians["test"],
        "median_ratio": medians["generated"] / medians["test"],
        "smallest_ratio": float(distances["generated"].min() / distances["test"].min()),
    }


def _windows(values, name):
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 5 or not values.size:
        raise ValueError(f"`{name}` must be (N, C, T, H, W) and not empty, found shape {values.shape}.")
    return values


def _compressed(values, unit):
    """Values whose errors count in proportion; what is below zero counts as zero."""
    return np.log1p(np.maximum(values, 0.0) / unit)


def _series_features(values):
    """(N, C, T, H, W) -> (N H W, features), NaN where undefined."""
    known = np.isfinite(values)
    neighbours = _mean_of_neighbours(values, known)
    centred, neighbours_centred = (
        _deviations(array, known & np.isfinite(neighbours)) for array in (values, neighbours)
    )
    spread, neighbours_spread = (np.sqrt((array**2).sum(axis=2)) for array in (centred, neighbours_centred))
    own = _deviations(values, known)
    count = np.maximum(known.sum(axis=2), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        summaries = [
            np.where(known, values, 0.0).sum(axis=2) / count,
            np.sqrt((own**2).sum(axis=2) / count),
            (known & (values == 0)).sum(axis=2) / count,
            (own[:, :, 1:] * own[:, :, :-1]).sum(axis=2) / (own**2).sum(axis=2),
            (centred * neighbours_centred).sum(axis=2) / (spread * neighbours_spread),
            spread / neighbours_spread,
        ]
    columns = np.concatenate([values, np.diff(values, axis=2), np.stack(summaries, axis=2)], axis=2)
    columns = np.where(np.isfinite(columns), columns, np.nan)
    return np.moveaxis(columns, (3, 4), (1, 2)).reshape(-1, columns.shape[1] * columns.shape[2])


def _mean_of_neighbours(values, known):
    """Mean of the known values among the four neighbours, NaN without one."""
    padding = [(0, 0)] * 3 + [(1, 1)] * 2
    total, count = (np.pad(array, padding) for array in (np.where(known, values, 0.0), known.astype(np.float64)))
    total, count = (
        array[..., :-2, 1:-1] + array[..., 2:, 1:-1] + array[..., 1:-1, :-2] + array[..., 1:-1, 2:]
        for array in (total, count)
    )
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _deviations(values, known):
    """Deviations from the mean over time, 0 where unknown."""
    values = np.where(known, values, 0.0)
    mean = values.sum(axis=2, keepdims=True) / np.maximum(known.sum(axis=2, keepdims=True), 1)
    return np.where(known, values - mean, 0.0)


def _forecast_examples(values, history, rng):
    """Up to `EXAMPLES` pairs of `history` values and the next one, none of them missing."""
    windows = np.lib.stride_tricks.sliding_window_view
    complete = windows(np.isfinite(values), history + 1, axis=2).all(axis=-1)
    positions = np.flatnonzero(complete)
    if not len(positions):
        raise ValueError(f"No series has {history + 1} known steps in a row.")
    chosen = rng.permutation(positions)[:EXAMPLES]
    examples = windows(values, history + 1, axis=2)[np.unravel_index(chosen, complete.shape)]
    return examples[:, :-1], examples[:, -1]


def _nearest(windows, references):
    """Distance of every window to the nearest reference, root mean square per value."""
    from sklearn.metrics.pairwise import nan_euclidean_distances

    return np.nanmin(nan_euclidean_distances(windows, references), axis=1) / np.sqrt(windows.shape[1])
