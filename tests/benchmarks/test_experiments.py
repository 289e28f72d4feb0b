# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The experiments beside the main tables: their settings are the paper's, and their measures are right."""

import json
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from benchmarks import efficiency, few_steps, figures, recipes, refinement, resolution_preference, schedules, transfer
from benchmarks.baselines import baseline_class
from benchmarks.budgets import BUDGETS
from benchmarks.datasets import DATASETS, load
from benchmarks.level_tables import level_tables
from benchmarks.runner import cell_name
from benchmarks.systems import ZoomDiffSystem
from benchmarks.variants import PAPER_METHOD, levels_words, load_cities, run_variant
from zoomdiff_diffusers.training.arguments import parse_arguments
from zoomdiff_diffusers.training.components import build_hierarchy, build_scheduler


EXPERIMENTS = [schedules, resolution_preference, efficiency, refinement, transfer, figures, few_steps, recipes]
TINY = BUDGETS["tiny"]
ONE_CITY = [
    *("--train_cities", "1", "--validation_cities", "1", "--city_weeks", "1"),
    *("--city_height", "16", "--city_width", "24"),
]
TINY_UNET = ["--unet", '{"block_channels": [8, 8], "layers_per_block": [1, 1], "embedding_dim": 8, "context_dim": 8}']


@pytest.fixture(scope="module")
def cities():
    """A home and another city of other culture."""
    return [load_cities(TINY, [*ONE_CITY, "--cultures", culture], train_windows=2) for culture in ("default", "dense")]


def scheduler_of(words):
    arguments = parse_arguments([*map(str, words), *PAPER_METHOD])
    hierarchy = build_hierarchy(arguments)
    return hierarchy, build_scheduler(hierarchy, arguments)


@pytest.mark.parametrize("module", EXPERIMENTS, ids=lambda module: module.__name__)
@pytest.mark.parametrize("budget", BUDGETS.values(), ids=list(BUDGETS))
def test_cells_are_json_and_have_a_file_each(module, budget):
    cells = module.cells(budget)
    assert json.loads(json.dumps(cells)) == cells
    assert len({cell_name(cell) for cell in cells}) == len(cells) > 0
    assert all({"experiment", "dataset", "system", "seed"} <= set(cell) for cell in cells)


def test_the_eight_schedules_are_all_combinations():
    found = set()
    for name, words in schedules.SCHEDULES.items():
        hierarchy, scheduler = scheduler_of([*schedules.LEVELS, *words])
        choice = tuple(scheduler.config[key] for key in ("intensity", "adding", "denoising"))
        assert "".join(part[0].upper() for part in choice) == name.replace(", ", "")[::2]
        assert scheduler.boundaries == [400, 200, 0]  # the columns of Table III
        found.add(choice)
    assert len(found) == 8
    assert hierarchy.spatial_factors == [4, 2, 1] and hierarchy.temporal_factors == [2, 1, 1]


@pytest.mark.parametrize(
    "name, stages, boundaries",
    [
        ("Uniform", [(4, 2), (2, 2), (2, 1), (1, 1)], [267, 200, 133, 0]),
        ("Coarse Gr.", [(4, 2), (2, 2), (1, 1)], [267, 133, 0]),
        ("Fine Gr.", [(4, 2), (2, 1), (1, 1)], [267, 133, 0]),
    ],
)
def test_preferences_are_those_of_table_iv(name, stages, boundaries):
    module = resolution_preference
    _, scheduler = scheduler_of(levels_words(module.SPATIAL, module.TEMPORAL, module.STEPS, module.PREFERENCES[name]))
    assert scheduler.stages == stages and scheduler.boundaries == boundaries


def test_variants_differ_and_the_settings_end_on_the_finest_grid():
    assert all(one != other for one, other in combinations(map(str, figures.VARIANTS.values()), 2))
    hierarchy, scheduler = scheduler_of(figures.VARIANTS["S3T4"])
    assert scheduler.stages == [(4, 24), (2, 4), (1, 2), (1, 1)]  # (1 d, cell), (4 h, 100 m), (2 h, 50 m), (1 h, 50 m)
    assert scheduler.boundaries == [450, 300, 150, 0]
    for words in figures.VARIANTS.values():
        hierarchy, _ = scheduler_of(words)
        assert (hierarchy.spatial_factors[-1], hierarchy.temporal_factors[-1]) == (1, 1)
    assert all(figures.CHAIN_STEPS % len(scheduler_of(words)[0]) == 0 for words in figures.VARIANTS.values())


def test_recipes_are_compared_where_no_table_tests():
    held_out = {"bonn": set(product(range(25), range(20, 28))), "beijing": set(range(4, 960, 5))}
    for dataset, variants in recipes.VARIANTS.items():
        assert list(variants)[0] == recipes.AS_CONFIGURED and not variants[recipes.AS_CONFIGURED]
        for name, words in recipes.splits(dataset).items():
            if dataset == "simulated":
                assert words == ["--city_seed", name.removeprefix("cities ")]
                continue
            kept, out = (json.loads(word) for word in words[1::2])
            if dataset == "bonn":
                kept, out = (set(product(range(*region["rows"]), range(*region["columns"]))) for region in (kept, out))
                assert len(kept | out) == 25 * 20 and len(kept) > 1.2 * len(out)
            else:
                kept, out = (set(region["areas"]) for region in (kept, out))
                assert 2 * len(out) < len(kept)
            tested = held_out.get(dataset) or set(range(int(name[len("fold ")]), 33, 5))
            assert not kept & out and not (kept | out) & tested and out


def test_the_recipe_of_a_fold_is_that_with_the_lowest_crps_on_its_own_parts():
    def document(system, values):
        """CRPS of two levels on the parts of the first two folds."""
        names = [f"fold {fold}, part {part}" for fold in (0, 1) for part in (0, 1)]
        splits = {
            name: {"levels": {level: {"crps": value} for level, value in zip("ab", pair)}}
            for name, pair in zip(names, values)
        }
        return {"cell": {"dataset": "shandong", "system": system}, "results": {"splits": splits}}

    even = document("even", [(0.2, 0.2), (0.2, 0.2), (0.2, 0.2), (0.2, 0.2)])
    # Lower in fold 0; in fold 1 with a higher arithmetic, but a lower geometric mean.
    uneven = document("uneven", [(0.1, 0.2), (0.2, 0.2), (0.1, 0.32), (0.2, 0.2)])
    worse = document("worse", [(0.3, 0.2), (0.2, 0.2), (0.3, 0.2), (0.2, 0.2)])
    elsewhere = {"cell": {"dataset": "bonn", "system": "best"}, "results": {}}
    assert [recipes.choose([even, elsewhere, worse], fold) for fold in (0, 1)] == ["even", "even"]
    assert [recipes.choose([even, uneven, worse], fold) for fold in (0, 1)] == ["uneven", "uneven"]


def test_shandong_has_the_recipes_that_parts_of_the_training_places_chose():
    folder = Path(recipes.__file__).parent / "results/small/recipes"
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("shandong--*.json")]
    variants = recipes.VARIANTS["shandong"]
    assert {document["cell"]["system"] for document in documents} == set(variants)
    chosen = tuple(tuple(variants[recipes.choose(documents, fold)]) for fold in range(recipes.FOLDS))
    assert chosen == DATASETS["shandong"].recipes


def test_a_recipe_is_scored_on_every_split(monkeypatch):
    monkeypatch.setattr(recipes, "VARIANTS", {"simulated": {"a": TINY_UNET, "b": [*TINY_UNET, *recipes.UNBOUNDED]}})
    budget = replace(TINY, words=(*TINY.words, "--regression_steps", "2"))
    documents = [{"cell": cell, "results": recipes.run_cell(cell, budget)} for cell in recipes.cells(budget)]
    for document in documents:
        found = document["results"]["splits"]
        assert list(found) == list(recipes.splits("simulated"))
        assert {len(split["levels"]) for split in found.values()} == {4}
    table = recipes.tables(documents)
    line = next(line for line in table.splitlines() if line.startswith("| b |"))
    values = [split["levels"]["bs"]["crps"] for split in documents[1]["results"]["splits"].values()]
    assert f"{np.sqrt(np.prod(values)):.3g}" in line


def test_a_variant_is_trained_and_scored_at_other_levels():
    words = [*levels_words({"cell": 2, "grid": 1}, [2, 1]), *ONE_CITY, *TINY_UNET]
    result = run_variant(words, TINY, seed=0, scored=scheduler_of(["--config", "configs/tiny.yaml"])[0])
    assert list(result["levels"]) == ["bs, 24 h", "cell, 4 h", "grid 100m, 2 h", "grid 50m, 1 h"]
    assert result["steps"] == TINY.max_steps
    assert all(np.isfinite(scores["crps"]) for scores in result["levels"].values())


class Oracle(torch.nn.Module):
    """The exact noise predictor where all traffic is one constant."""

    def __init__(self, scheduler, constant):
        super().__init__()
        self.scheduler, self.constant = scheduler, torch.nn.Parameter(torch.tensor(constant))

    def encode_context(self, context):
        return None

    def forward(self, state, steps, context):
        signal = self.scheduler.alphas_cumprod[steps[0]]
        return (state - signal.sqrt() * self.constant) / (1 - signal).sqrt()


def test_intermediate_states_are_those_of_the_noising_process(cities):
    class Model:
        scheduler = DDPMScheduler(200, beta_schedule="squaredcos_cap_v2")
        network = Oracle(scheduler, 1.5)

    states = figures.intermediate_states(Model, cities[0], seed=0)
    assert len(states) == figures.CHAIN_STEPS + 1
    encoded = [cities[0].traffic_processor.encode(torch.from_numpy(state[0])) for state in states]
    assert torch.allclose(encoded[-1], torch.tensor(1.5), atol=1e-2)
    for step in (0, 12, 24, 36):
        signal = Model.scheduler.alphas_cumprod[round(200 * (1 - step / 48)) - 1]
        assert encoded[step].median().item() == pytest.approx(1.5 * signal.sqrt().item(), abs=0.05)


def test_stations_are_scored_on_sums_of_cells(cities):
    home = cities[0]
    truth = home.test["traffic"].numpy()[None]
    blocks = truth.reshape(*truth.shape[:-2], 4, 2, 4, 2).mean((-3, -1))
    assert np.allclose(transfer._pool(torch.from_numpy(truth)).numpy(), blocks, rtol=1e-5)
    scores = transfer._score(torch.from_numpy(1.5 * blocks), replace(home, more_weeks=None))
    expected = 0.5 * truth.mean() / home.unit.item()  # at both kinds of stations
    assert [scores[name]["mae_of_mean"] for name in ("macro", "pico")] == pytest.approx([expected] * 2, rel=1e-4)
    pico = transfer._at_pico(home)
    assert pico.test_context(1).shape == (len(home.test_areas), 1, 168, 4, 4)
    assert {truth.shape for truth, _ in pico.test_truths(0)} == {(len(home.test_areas), 1, 168, 1, 1)}


def test_another_city_is_seen_with_the_statistics_of_home(cities):
    home, away = cities
    seen = transfer._seen_from(home, away)
    assert all(np.array_equal(found[0], truth[0]) for found, truth in zip(seen.test_truths(1), away.test_truths(1)))
    raw = home.context_processor(away.test_areas[-1].context, hours=168)
    assert torch.equal(seen.test["static"][-1], raw.static[0]) and torch.equal(
        seen.test["temporal"][-1], raw.temporal[0]
    )
    assert torch.equal(seen.test["traffic"], away.test["traffic"]) and seen.unit == away.unit
    assert not torch.equal(seen.test["static"], away.test["static"])
    few = transfer._few_windows(home, away).train
    assert few["traffic"].shape == (transfer.FEW_WINDOWS, 1, 168, 4, 4)


def test_fine_tuning_leaves_the_model_of_home_as_it_is(cities):
    home, away = cities
    model = transfer._CSDI(num_samples=1, seed=0)
    model.fit(home, TINY)
    before = [parameter.clone() for parameter in model.model.network.parameters()]
    tuned = model.fine_tuned(away, TINY)
    after = list(model.model.network.parameters())
    assert all(map(torch.equal, before, after))
    assert not all(map(torch.equal, before, tuned.model.network.parameters()))


def test_transfer_shows_how_far_apart_the_sets_of_cities_are():
    def document(training, values):
        sets = [{name: {"crps": value} for name in ("macro", "pico")} for value in values]
        scores = {transfer.AWAY: {training: sets[0]}}
        return {"cell": {"system": "CSDI"}, "results": {"scores": scores, "each": {training: sets}}}

    text = transfer.tables([document("zero-shot", [0.5, 0.3, 0.4]), document("trained there", [0.2, 0.2, 0.1])])
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in text.splitlines()]
    assert ["CSDI, zero-shot", "0.3 to 0.5", "0.3 to 0.5"] in lines
    assert ["CSDI, trained there", "0.1 to 0.2", "0.1 to 0.2"] in lines


def test_the_character_of_traffic_that_follows_the_population():
    population = np.random.default_rng(0).random((6, 5)) + 0.5
    profile = 1 + np.sin(2 * np.pi * np.arange(48) / 24)
    traffic = np.stack([0.5 * profile[:, None, None] * population, 1.5 * profile[:, None, None] * population])
    character = transfer._character(traffic, population)
    assert character["per_inhabitant"] == pytest.approx(1.0)
    assert character["population_correlation"] == pytest.approx(1.0)
    assert character["daily_profile"] == pytest.approx(profile[:24])
    assert character["busiest_tenth"] == pytest.approx(np.sort(population.ravel())[-3:].sum() / population.sum())


@pytest.mark.parametrize("with_context", [True, False])
def test_refinement_meets_what_was_given(tmp_path, with_context):
    random = np.random.default_rng(0)
    np.savez(tmp_path / "grid.npz", traffic=random.gamma(2.0, size=(48, 8, 24)), people=random.random((8, 24)))
    layers = [{"name": "people", "kind": "continuous", "channels": ["people"]}] if with_context else []
    words = ["--config", "configs/tiny.yaml", "--dataset", str(tmp_path / "grid.npz"), "--layers", json.dumps(layers)]
    words += ["--train_region", '{"columns": [0, 16]}', "--validation_region", '{"columns": [8, 24]}']
    data = load("grid", [*words, "--start_hour", "24"], train_windows=2)
    system = ZoomDiffSystem(["--stage_weights", "0", "1", "1", "1"]).fit(data, TINY)
    finest = refinement.refine(system.pipe, data, num_samples=3)
    assert finest.shape == (3, 2, 1, 48, 8, 8)
    assert refinement.sum_error(finest, data) < 1e-5
    truth = data.test["traffic"].numpy()[None]
    assert refinement.sum_error(1.1 * truth, data) == pytest.approx(0.1, rel=1e-4)
    assert list(refinement._score(truth, data)) == ["cell", "grid_100m", "grid_50m"]
    assert refinement._score(truth, data)["cell"]["rmse_of_mean"] == pytest.approx(0, abs=1e-6)


def test_speed_is_scaled_to_an_epoch_of_500_areas():
    first, last = efficiency.STEPS
    assert efficiency._epoch_seconds([3.0, 3.0 + 0.2 * (last - first)]) == pytest.approx(0.2 * 125)


def documents(module, results):
    """Documents as the runner writes them, for cells that have results."""
    return [
        {"cell": cell, "results": results[cell["dataset"], cell["system"]]}
        for cell in module.cells(TINY)
        if (cell["dataset"], cell["system"]) in results
    ]


def level_scores(crps):
    return {"fine": {"crps": crps, "mae_of_mean": crps, "rmse_of_mean": crps}}


def test_bars_compare_with_the_best_of_the_others():
    cost = {"steps": 3, "sampling_seconds": 1.0}
    results = {
        ("simulated", name): {"levels": level_scores(1.0 + index), **cost}
        for index, name in enumerate(schedules.SCHEDULES)
    }
    (line,) = schedules.bars(documents(schedules, results))
    assert not line["met"] and line["found"] == "8 against 1 of [CN, CA, CD]"
    assert "| SN, SA, SD | 3 |" in schedules.tables(documents(schedules, results))
    results.popitem()
    assert schedules.bars(documents(schedules, results)) == []

    crps = {refinement.ZERO_SHOT: 1.04, refinement.RETRAINED: 1.0, "XGBoost": 1.02}
    results = {("bonn", name): {"levels": level_scores(value), "sum_error": 0.0} for name, value in crps.items()}
    met = [line["met"] for line in refinement.bars(documents(refinement, results))]
    assert met == [True, False, True]  # within 5 %; zero-shot is behind XGBoost; retrained is ahead
    assert "| XGBoost | exact |" in refinement.tables(documents(refinement, results))


def test_a_row_may_lack_a_level():
    text = level_tables({"a": {"x": {"crps": 2.0}, "y": {"crps": 1.0}}, "b": {"y": {"crps": 3.0}}})
    assert text.count("| a |") == 2 and text.count("| b |") == 1
    assert "| a | **1** | – |" in text and "| b | *3* | – |" in text


def test_figures_are_small_images_that_the_page_shows(tmp_path):
    levels = {f"{name}, 1 h": {"crps": 1.0, "mae_of_sample": 2.0} for name in ("bs", "cell", "grid")}
    week = {"truth": list(range(168)), "generated": list(range(168))}
    series = dict.fromkeys(levels, week)
    results = {("simulated", name): {"levels": levels, "steps": 5, "series": series} for name in figures.VARIANTS}
    settings = dict.fromkeys(figures.SETTINGS, levels)
    results |= {("simulated", name): {"settings": settings, "series": series} for name in figures.CANONICAL}
    text = figures.tables(documents(figures, results))
    figures.draw(documents(figures, results), tmp_path)
    images = sorted(tmp_path.glob("images/results/*.png"))
    assert [image.name for image in images] == [f"figure-{number}.png" for number in (10, 11, 12, 13)]
    assert all(f"(images/results/{image.name})" in text and image.stat().st_size < 200_000 for image in images)
    assert "| D = 64 | 5 | 1 | 1 | 1 | – |" in text


def test_the_speed_of_a_baseline_counts_all_its_levels(cities):
    home = cities[0]
    found = efficiency._measure_baseline({"system": "CSDI"}, home, TINY)
    assert found["training_seconds"] > 0 and found["inference_seconds"] > 0
    assert found["num_parameters"] == sum(
        baseline_class("CSDI")().fit(home.train_windows(level), TINY.training(600.0)).num_parameters
        for level in range(len(home.hierarchy))
    )
