# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
import torch
from sklearn.metrics import mean_gamma_deviance
from support.tiny import tiny_regressor, tiny_unet

from zoomdiff_diffusers import ContextTensors, DRDMScheduler, Hierarchy, TrafficProcessor
from zoomdiff_diffusers.data.datasets import ZONES
from zoomdiff_diffusers.training.loss import DRDMLoss, masked_pyramid


LAYERS = [{"name": "poi", "channels": 2, "temporal": False}, {"name": "people", "channels": 1, "temporal": True}]
HOURS, HEIGHT, WIDTH = 48, 8, 16


def make_loss(batch_size=5, scheduler=None, seed=0, **options):
    scheduler = scheduler or DRDMScheduler()
    factors = [scheduler.state_factors(stage) for stage in range(4)]
    spatial, temporal = zip(*factors)
    unet = tiny_unet(LAYERS, spatial_factors=list(spatial), temporal_factors=list(temporal))
    processor = TrafficProcessor().fit(make_batch(8)["traffic"])
    return DRDMLoss(unet, scheduler, Hierarchy(), processor, batch_size, seed=seed, **options)


def make_batch(count=5, mask=False):
    generator = torch.Generator().manual_seed(0)
    batch = {
        "traffic": torch.rand(count, 1, HOURS, HEIGHT, WIDTH, generator=generator) ** 3 * 50,
        "static": torch.randn(count, 2, HEIGHT, WIDTH, generator=generator),
        "temporal": torch.randn(count, 1, HOURS, HEIGHT, WIDTH, generator=generator),
        "present": torch.ones(count, 2),
        "hour_of_week": torch.arange(count) * 24,
    }
    if mask:
        batch["mask"] = torch.rand(count, HOURS, HEIGHT, WIDTH, generator=generator) > 0.4
    return batch


def part_of(batch, rows):
    return {name: values[rows] for name, values in batch.items()}


def test_masked_pyramid_averages_what_was_measured_and_fills_from_above():
    hierarchy = Hierarchy([{"name": "day", "spatial_factor": 2, "temporal_factor": 2}, *[
        {"name": "hour", "spatial_factor": 1, "temporal_factor": 1}]])  # fmt: skip
    traffic = torch.tensor([[1.0, 2, 3, 4], [5, 6, 99, 99]]).reshape(1, 1, 2, 2, 2).repeat(1, 1, 1, 1, 2)
    mask = torch.ones(1, 2, 2, 4, dtype=torch.bool)
    mask[0, 1, 1] = False
    mask[..., 2:] = False  # nothing is known of the eastern half
    (day, hour), (day_weight, hour_weight) = masked_pyramid(traffic, hierarchy, mask)
    assert day.flatten().tolist() == pytest.approx([21 / 6, 21 / 6])  # the east takes the mean of the area
    assert day_weight.flatten().tolist() == [0.75, 0]
    assert torch.equal(hour_weight[:, 0].bool(), mask)
    assert torch.equal(hour[0, 0][mask[0]], traffic[0, 0][mask[0]])
    assert hour[0, 0][~mask[0]].tolist() == pytest.approx([21 / 6] * 10)
    plain, none = masked_pyramid(traffic, hierarchy)
    assert none is None and plain[0].flatten().tolist() == pytest.approx([219 / 8] * 2)


def test_one_number_of_items_is_that_of_every_stage():
    with torch.no_grad():
        one, each = (make_loss(stage_items=items)(make_batch(), 7, [0, 1, 2, 3, 4]) for items in ([3], [3, 3, 3, 3]))
    assert torch.equal(one[1], each[1])


@pytest.mark.parametrize("masked", [False, True])
def test_parts_of_a_batch_add_up_to_the_whole(masked):
    loss = make_loss(stage_items=[5, 4, 2, 3], stage_weights=[1, 2, 0, 0.5], layer_dropout=0.3, context_dropout=0.3)
    batch = make_batch(mask=masked)
    with torch.no_grad():
        whole, stages = loss(batch, 7, [0, 1, 2, 3, 4])
        parts = [loss(part_of(batch, rows), 7, rows) for rows in ([0, 1], [2], [3, 4])]
    assert torch.allclose(whole, sum(part for part, _ in parts), rtol=1e-5)
    assert torch.allclose(stages, sum(part for _, part in parts), rtol=1e-5)
    assert whole.item() == pytest.approx((stages * torch.tensor([1, 2, 0, 0.5])).sum().item(), rel=1e-6)
    with torch.no_grad():
        assert torch.equal(loss(batch, 7, [0, 1, 2, 3, 4])[1], stages)
        for other in (loss(batch, 8, [0, 1, 2, 3, 4]), make_loss(seed=1)(batch, 7, [0, 1, 2, 3, 4])):
            assert not torch.allclose(other[1], stages, rtol=1e-3)


def test_a_part_without_any_item_of_a_stage_has_a_gradient():
    loss = make_loss(batch_size=8, stage_items=[1])
    parts = [[row, row + 1] for row in range(0, 8, 2)]
    values = []
    for rows in parts:
        value, _ = loss(part_of(make_batch(8), rows), 0, rows)
        value.backward()
        values.append(value.item())
    assert 0.0 in values and sum(values) > 0
    gradients = [parameter.grad for parameter in loss.unet.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_what_was_not_measured_does_not_matter():
    loss, batch = make_loss(), make_batch(mask=True)
    batch["mask"][2] = False  # an item without any measurement
    changed = dict(batch, traffic=torch.where(batch["mask"][:, None], batch["traffic"], 1000.0))
    with torch.no_grad():
        first, second = (loss(b, 0, [0, 1, 2, 3, 4])[0] for b in (batch, changed))
    assert first.isfinite() and first == second


def test_dropped_layers_do_not_matter():
    batch = make_batch()
    changed = dict(batch, static=batch["static"] + 3)
    indices = [0, 1, 2, 3, 4]
    with torch.no_grad():
        for dropped in ({"layer_dropout": 1.0}, {"context_dropout": 1.0}):
            loss = make_loss(**dropped)
            assert loss(batch, 0, indices)[0] == loss(changed, 0, indices)[0]
        assert make_loss()(batch, 0, indices)[0] != make_loss()(changed, 0, indices)[0]
        drops = make_loss(batch_size=4000, layer_dropout=0.2, context_dropout=0.1)
        kept = drops._kept_layers(3, list(range(4000)), torch.ones(4000, 2))
    assert kept.mean().item() == pytest.approx(0.9 * 0.8, abs=0.02)
    assert (kept.sum(1) == 0).float().mean().item() == pytest.approx(0.1 + 0.9 * 0.04, abs=0.02)
    kept = make_loss(layer_dropout=[0.2, 0.6])._kept_layers(3, list(range(4000)), torch.ones(4000, 2))
    assert kept.mean(0).tolist() == pytest.approx([0.8, 0.4], abs=0.03)


@pytest.mark.parametrize("adding", ["segmented", "continuous"])
@pytest.mark.parametrize("denoising", ["segmented", "continuous"])
@pytest.mark.parametrize(
    "prior_type, prediction_type", [("residual", "v_prediction"), ("blend", "sample"), ("as_printed", "epsilon")]
)
def test_every_schedule_and_prior_gives_a_loss_with_gradients(adding, denoising, prior_type, prediction_type):
    options = {"adding": adding, "denoising": denoising, "prior_type": prior_type, "prediction_type": prediction_type}
    loss = make_loss(batch_size=2, scheduler=DRDMScheduler(**options))
    batch = make_batch(2, mask=True)
    batch = part_of({**batch, "traffic": batch["traffic"][..., :24, :, :8]}, [0, 1])
    batch |= {"temporal": batch["temporal"][..., :24, :, :8], "static": batch["static"][..., :8]}
    batch["mask"] = batch["mask"][:, :24, :, :8]
    total, stages = loss(batch, 0, [0, 1])
    total.backward()
    assert stages.shape == (4,) and total.isfinite() and (stages > 0).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loss.unet.parameters())


def test_data_std_is_that_of_the_residuals():
    loss, batch = make_loss(), make_batch(8)
    measured = loss.measure_data_std([batch])
    traffic = batch["traffic"].double().numpy()
    levels = []
    for space, time in zip((8, 4, 2, 1), (24, 4, 2, 1)):
        shape = (8, 1, HOURS // time, time, HEIGHT // space, space, WIDTH // space, space)
        levels.append(loss.traffic_processor.encode(torch.from_numpy(traffic.reshape(shape).mean((3, 5, 7)))).numpy())
    expected = [levels[0].std()]
    for coarse, fine in zip(levels, levels[1:]):
        for axis in (2, 3, 4):
            coarse = np.repeat(coarse, fine.shape[axis] // coarse.shape[axis], axis)
        expected.append((fine - coarse).std())
    assert measured == pytest.approx(expected, rel=1e-2)
    loss.scheduler = DRDMScheduler(data_std=measured)
    assert loss.measure_data_std([batch]) == pytest.approx(measured, rel=1e-5)
    loss.scheduler = DRDMScheduler(prior_type="none")
    assert loss.measure_data_std([batch]) == pytest.approx([level.std() for level in levels], rel=1e-2)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("regression", [False, True])
def test_data_std_does_not_depend_on_how_windows_are_shared_out(masked, regression):
    options = {"random_effects": 0.3, "layer_dropout": 0.3, "context_noise": 0.2}
    if regression:
        options |= {"scheduler": DRDMScheduler(coarsest_prior=True), "regressor": tiny_regressor(LAYERS)}
    loss, batch = make_loss(**options), make_batch(8, masked)
    whole = loss.measure_data_std([batch])
    shares = ([0, 1, 2], [3], [4, 5, 6, 7])
    assert loss.measure_data_std(part_of(batch, rows) for rows in shares) == pytest.approx(whole, rel=1e-6)
    assert loss.measure_data_std([part_of(batch, [0, 1, 2])]) != pytest.approx(whole, rel=1e-3)


def test_the_guiding_level_is_noised_as_stated():
    loss = make_loss(prior_noise=0.5)
    levels = [torch.zeros(2000, 1, *shape) for shape in Hierarchy().shapes(24, 8, 8)]
    generators = [torch.Generator().manual_seed(seed) for seed in range(2000)]
    _, prior = loss.original_and_prior(levels, 1, generators)
    assert torch.equal(prior, prior[:, :, :1, :1, :1].expand_as(prior))  # one value per coarse unit
    # Uniform std in [0, 0.5]: the variance is 0.25 / 3.
    assert prior[:, 0, 0, 0, 0].var().item() == pytest.approx(0.25 / 3, rel=0.1)
    assert loss.original_and_prior(levels, 1)[1].abs().max() == 0
    assert loss.original_and_prior(levels, 0, generators)[1] is None


def test_static_context_is_noised_as_stated_and_item_by_item():
    loss, static = make_loss(context_noise=0.5), torch.zeros(3, 2, 60, 50)
    noisy = loss._noisy_static(static, 7, [0, 1, 2])
    assert noisy.std().item() == pytest.approx(0.5, rel=0.02) and abs(noisy.mean().item()) < 0.02
    assert torch.equal(loss._noisy_static(static[:1], 7, [2]), noisy[2:])
    assert not torch.equal(loss._noisy_static(static, 8, [0, 1, 2]), noisy)
    assert make_loss()._noisy_static(static, 7, [0, 1, 2]) is static


def test_random_effects_are_factors_of_units_with_the_stated_spread():
    loss, indices = make_loss(random_effects=0.2), list(range(400))
    batch = {"traffic": torch.rand(400, 2, 24, 16, 24) + 0.5}
    factors = loss._with_random_effects(batch, 7, indices)["traffic"] / batch["traffic"]
    assert torch.allclose(factors, factors[:, :1, :1].expand_as(factors), rtol=1e-5)  # of every hour and channel
    logarithm = factors[:, 0, 0].log()
    assert factors.mean().item() == pytest.approx(1.0, abs=0.02)
    # Four kinds of units: 8 x 8, 4 x 4, 2 x 2 cells and single ones. Cells of one unit share the factors of all units
    # that both lie in.
    assert logarithm.var().item() == pytest.approx(4 * 0.2**2, rel=0.05)
    for distance, shared in ((1, 3), (2, 2), (4, 1), (8, 0)):
        pair = torch.stack([logarithm[:, 0, 0], logarithm[:, 0, distance]])
        assert torch.cov(pair)[0, 1].item() == pytest.approx(shared * 0.2**2, abs=0.02)
    part = {"traffic": batch["traffic"][[5]]}
    assert torch.equal(loss._with_random_effects(part, 7, [5])["traffic"], (batch["traffic"] * factors)[[5]])
    assert make_loss()._with_random_effects(batch, 7, indices) is batch
    hours = (24, 4, 1)
    loss.hierarchy = Hierarchy([{"name": f"{h}h", "spatial_factor": 1, "temporal_factor": h} for h in hours])
    series = {"traffic": torch.ones(2000, 1, 24, 1, 1)}
    logarithm = loss._with_random_effects(series, 0, list(range(2000)))["traffic"].log()
    assert logarithm.var(dim=0).mean().item() == pytest.approx(0.2**2, rel=0.1)  # a station is one unit at all levels


def test_random_effects_of_zones():
    loss = make_loss(random_effects=0.3)
    loss.hierarchy = Hierarchy(
        [
            {"name": "site", "spatial_factor": 4, "temporal_factor": 24, "zones": "site"},
            {"name": "grid", "spatial_factor": 1, "temporal_factor": 1},
        ]
    )
    labels = torch.tensor([[0, 0, 0, 1], [0, 1, 1, 1]]).expand(3000, 2, 4)
    batch = {"traffic": torch.ones(3000, 1, 24, 2, 4), ZONES + "site": labels}
    logarithm = loss._with_random_effects(batch, 0, list(range(3000)))["traffic"][:, 0, 0].log().flatten(1)
    same = labels[0].flatten()[:, None] == labels[0].flatten()
    expected = 0.3**2 * (same.float() + torch.eye(8))  # the zone's factor and the cell's own
    assert torch.allclose(torch.cov(logarithm.T), expected, atol=0.015)


def test_random_effects_leave_the_regression_alone():
    options = {"scheduler": DRDMScheduler(coarsest_prior=True), "regressor": tiny_regressor(LAYERS)}
    batch, indices = make_batch(), list(range(5))
    exact, scaled = make_loss(**options), make_loss(random_effects=0.3, **options)
    with torch.no_grad():
        assert exact.regression_loss(batch, 0, indices) == scaled.regression_loss(batch, 0, indices)
        assert exact(batch, 0, indices)[0] != scaled(batch, 0, indices)[0]


def test_wrong_quotas_are_refused():
    for options in ({"stage_items": [1, 2]}, {"stage_items": [0, 1, 1, 1]}, {"stage_items": [6, 1, 1, 1]}):
        with pytest.raises(ValueError, match="stage_items"):
            make_loss(**options)
    with pytest.raises(ValueError, match="stage_weights"):
        make_loss(stage_weights=[1, 1, 1, -1])


@pytest.mark.parametrize("masked", [False, True])
def test_the_loss_of_the_regression_is_the_gamma_deviance(masked):
    loss = make_loss(scheduler=DRDMScheduler(coarsest_prior=True), regressor=tiny_regressor(LAYERS))
    batch, processor = make_batch(mask=masked), loss.traffic_processor
    context = ContextTensors(batch["static"], batch["temporal"], batch["present"])
    offset, std = processor.config.offset[0], processor.config.std[0]
    expected = []
    for row in range(5):
        part = context[row : row + 1]
        with torch.no_grad():
            forecast = processor.decode(loss.regressor(part, HOURS, batch["hour_of_week"][row]))
        measured = batch["mask"][row] if masked else torch.ones(HOURS, HEIGHT, WIDTH, dtype=torch.bool)
        truth = batch["traffic"][row, 0][measured]
        expected.append(mean_gamma_deviance(1 + truth / offset, 1 + forecast[0, 0][measured] / offset) / std**2)
    assert loss.regression_loss(batch, 0, list(range(5))).item() == pytest.approx(np.mean(expected), rel=1e-3)


def test_the_regression_learns_the_mean_and_not_that_of_the_logarithm():
    loss = make_loss(scheduler=DRDMScheduler(coarsest_prior=True), regressor=tiny_regressor(LAYERS, gain=0.0))
    loss.regressor.requires_grad_(True)
    batch = make_batch()
    optimizer = torch.optim.Adam([loss.regressor.proj_out.bias], lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss.regression_loss(batch, 0, list(range(5))).backward()
        optimizer.step()
    context = ContextTensors(batch["static"], batch["temporal"], batch["present"])
    forecast = loss.forecast(context, HOURS, batch["hour_of_week"])
    assert forecast[-1].mean().item() == pytest.approx(batch["traffic"].mean().item(), rel=0.01)
    assert [level.shape for level in forecast] == [level.shape for level in loss.hierarchy.pyramid(batch["traffic"])]


def test_a_forecast_guides_every_stage_and_is_not_trained_by_it():
    loss = make_loss(scheduler=DRDMScheduler(coarsest_prior=True), regressor=tiny_regressor(LAYERS), prior_noise=0.0)
    batch = make_batch()
    total, _ = loss(batch, 3, list(range(5)))
    total.backward()
    assert all(parameter.grad is None for parameter in loss.regressor.parameters())
    levels, _ = masked_pyramid(batch["traffic"], loss.hierarchy)
    encoded = [loss.traffic_processor.encode(level) for level in levels]
    context = ContextTensors(batch["static"], batch["temporal"], batch["present"])
    forecast = loss.forecast(context, HOURS, batch["hour_of_week"])
    _, prior = loss.original_and_prior(encoded, 0, forecast=forecast[0])
    assert torch.allclose(loss.traffic_processor.decode(prior), forecast[0], rtol=1e-4, atol=1e-5)
    for stage in (1, 2, 3):
        _, prior = loss.original_and_prior(encoded, stage, forecast=forecast[stage])
        physical = loss.traffic_processor.decode(prior)
        sums = loss.hierarchy.aggregate(physical, stage - 1, source=stage)
        assert torch.allclose(sums, levels[stage - 1], rtol=1e-4, atol=1e-4)
        shares = physical / loss.hierarchy.upsample(sums, stage - 1, stage)
        parents = loss.hierarchy.aggregate(forecast[stage], stage - 1, source=stage)
        assert torch.allclose(
            shares, forecast[stage] / loss.hierarchy.upsample(parents, stage - 1, stage), rtol=1e-3, atol=1e-3
        )
