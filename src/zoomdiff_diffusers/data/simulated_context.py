# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The urban context of a simulated city: land use, roads, POI, buildings and people on a grid of 50 m cells.

It is what an OpenStreetMap user could have. A city has a centre, from which density falls, a warped street grid, a
river, a railway with stations, and blocks between the streets, each with one land use: offices and shops gather
downtown, industry and parks in areas of their own, fields at the edge. Buildings follow from land use and centrality,
residents and POI from buildings, and the people present hour by hour from all of these.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter

from .zones import sector_zones, voronoi_zones


CELL_SIZE_M = 50.0
HOURS_PER_WEEK = 168
SITES, SECTORS = "site", "sector"
CELLS_PER_SITE, SECTORS_PER_SITE = 64, 3
EVEN_SITES = 0.3  # share of the sites that stand anywhere, not where the people are

SURFACE_CLASSES = ["vegetation", "water", "built", "street", "arterial", "motorway", "railway"]
AOI_CLASSES = [
    "none", "residential", "office", "retail", "industrial", "education", "health", "leisure", "park", "transport",
]  # fmt: skip
POI_CATEGORIES = ["food", "shop", "office", "education", "health", "leisure", "lodging", "public", "transport"]
USER_GROUPS = ["residents", "workers", "students", "shoppers", "visitors", "travellers"]

SIMULATED_LAYERS = [
    {"name": "surface", "kind": "categorical", "classes": SURFACE_CLASSES},
    {"name": "aoi", "kind": "categorical", "classes": AOI_CLASSES},
    {"name": "poi", "kind": "count", "channels": POI_CATEGORIES},
    {"name": "building_volume", "kind": "continuous", "channels": ["volume"], "log": True},
    {"name": "population", "kind": "continuous", "channels": ["residents"], "log": True},
    {"name": "population_over_time", "kind": "temporal", "channels": ["people"], "log": True},
]

# One row per AOI class: coverage (fraction of the cell that is built), height (m, before centrality), share of the
# volume that is lived in, workers per 1000 m3, log-std of the `cell` factor.
AOI_BUILDINGS = np.array(
    [
        [0.01, 4.0, 0.50, 0.2, 0.50],  # none
        [0.28, 8.0, 0.90, 0.2, 0.35],  # residential
        [0.42, 13.0, 0.08, 5.0, 0.35],  # office
        [0.50, 8.0, 0.15, 2.5, 0.40],  # retail
        [0.45, 8.0, 0.02, 1.0, 0.45],  # industrial
        [0.28, 11.0, 0.04, 1.0, 0.35],  # education
        [0.35, 14.0, 0.03, 3.0, 0.35],  # health
        [0.25, 10.0, 0.02, 1.0, 0.50],  # leisure
        [0.01, 4.0, 0.10, 0.5, 0.50],  # park
        [0.25, 9.0, 0.02, 1.5, 0.45],  # transport
    ]
)
COVERAGE_OF_SURFACE = np.array([1.0, 0.0, 1.0, 0.7, 0.45, 0.02, 0.02])
CUBIC_METRES_PER_RESIDENT = 280.0

# POI per cell with 10,000 m3 of buildings, one row per AOI class, one column per category of POI_CATEGORIES.
POI_RATES = np.array(
    [
        [0.01, 0.01, 0.00, 0.00, 0.00, 0.01, 0.01, 0.01, 0.03],  # none
        [0.25, 0.30, 0.12, 0.06, 0.08, 0.05, 0.04, 0.06, 0.06],  # residential
        [0.60, 0.30, 1.20, 0.05, 0.10, 0.08, 0.15, 0.25, 0.10],  # office
        [1.20, 2.60, 0.20, 0.03, 0.10, 0.20, 0.10, 0.08, 0.12],  # retail
        [0.06, 0.10, 0.25, 0.01, 0.01, 0.02, 0.01, 0.03, 0.05],  # industrial
        [0.15, 0.06, 0.06, 1.10, 0.03, 0.12, 0.02, 0.15, 0.10],  # education
        [0.15, 0.10, 0.06, 0.06, 1.30, 0.02, 0.02, 0.12, 0.10],  # health
        [0.60, 0.20, 0.06, 0.04, 0.02, 1.30, 0.30, 0.10, 0.10],  # leisure
        [0.08, 0.02, 0.00, 0.00, 0.00, 0.20, 0.01, 0.02, 0.03],  # park
        [0.70, 0.60, 0.12, 0.00, 0.02, 0.03, 0.15, 0.15, 1.20],  # transport
    ]
)
TRAVELLERS_OF_SURFACE = np.array([0.05, 0.02, 0.2, 0.8, 5.0, 16.0, 9.0])  # people, at the busiest hour
VISITORS_OF_AOI = np.array([0.15, 0.0, 0.0, 3.0, 0.0, 0.0, 4.0, 6.0, 1.5, 4.0])  # people, at the busiest hour
TRAVELLERS_OF_AOI = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 18.0])


@dataclass(frozen=True)
class Culture:
    """What distinguishes the cities of one culture from those of another.

    Args:
        height_gain (`float`): how fast buildings grow with centrality.
        building_scale (`float`): factor on all building heights.
        block_cells (`int`): street spacing in cells.
        land_use (`dict`): what is added to the log-odds of an AOI class.
        weekend (`list[int]`): days of rest, 0 = Monday.
        shift_hours (`float`): how much later than usual the day runs.
        work_span_hours (`float`): length of the working day.
        night_life (`float`): factor on visitors late in the evening.
        group_scale (`dict`): factor on the people of a user group.
        demand_scale (`float`): factor on the traffic per person.
    """

    height_gain: float = 0.7
    building_scale: float = 1.0
    block_cells: int = 5
    land_use: dict[str, float] = field(default_factory=dict)
    weekend: tuple[int, ...] = (5, 6)
    shift_hours: float = 0.0
    work_span_hours: float = 9.0
    night_life: float = 1.0
    group_scale: dict[str, float] = field(default_factory=dict)
    demand_scale: float = 1.0


CULTURES = {
    "default": Culture(),
    "dense": Culture(
        height_gain=0.65,
        building_scale=1.7,
        block_cells=4,
        land_use={"none": -1.0, "office": 0.4, "retail": 0.5, "industrial": -0.4},
        weekend=(6,),
        shift_hours=1.5,
        work_span_hours=10.0,
        night_life=2.0,
        group_scale={"travellers": 1.5, "visitors": 1.3},
        demand_scale=1.3,
    ),
    "sprawl": Culture(
        height_gain=0.55,
        building_scale=0.7,
        block_cells=6,
        land_use={"none": 0.8, "park": 0.3, "retail": -0.2},
        shift_hours=-0.7,
        work_span_hours=8.0,
        night_life=0.5,
        group_scale={"travellers": 2.0},
        demand_scale=0.8,
    ),
}


def get_culture(culture: str) -> Culture:
    """The preset of that name.

    Raises:
        ValueError: if there is none.
    """
    if culture not in CULTURES:
        raise ValueError(f"`culture` is {culture!r}, expected one of {sorted(CULTURES)}")
    return CULTURES[culture]


def gaussian_field(rng: np.random.Generator, height: int, width: int, correlation: float) -> np.ndarray:
    """A stationary Gaussian field with mean 0, variance exactly 1 and covariance `exp(-d^2 / (2 correlation^2))`.

    Args:
        rng (`np.random.Generator`): source of the noise.
        height, width (`int`): shape of the field.
        correlation (`float`): correlation length in cells.

    Returns:
        `np.ndarray` of shape (H, W), float32.
    """
    sigma = correlation / np.sqrt(2.0)
    radius = int(4.0 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    noise = rng.standard_normal((height + 2 * radius, width + 2 * radius), dtype=np.float32)
    smooth = gaussian_filter(noise, sigma, mode="wrap", radius=radius)
    return smooth[radius : radius + height, radius : radius + width] / np.float32((kernel**2).sum())


def simulate_context(height: int, width: int, seed: int, culture: str = "default") -> dict[str, np.ndarray]:
    """The urban context of a simulated city, in the raw form of `SIMULATED_LAYERS`.

    Args:
        height, width (`int`): size of the city in cells of 50 m; any size.
        seed (`int`): the city.
        culture (`str`, defaults to `"default"`): one of `CULTURES`.

    Returns:
        `dict` with `surface` and `aoi` (H, W) int64 codes, `poi` (9, H, W) counts, `building_volume` (H, W) in m3,
        `population` (H, W) residents and `population_over_time` (168, H, W) people present in every hour of the week
        from Monday 00:00. The last one is a function of the others and of the hour.

    Raises:
        ValueError: if a size is not positive or the culture is unknown.
    """
    if height < 1 or width < 1:
        raise ValueError(f"`height` and `width` are {height} and {width}, expected at least 1")
    preset = get_culture(culture)
    rng = np.random.default_rng([seed, 1])
    layout = _Layout(rng, height, width, preset)
    surface, aoi = layout.land_cover(rng)
    volume = layout.building_volume(rng, surface, aoi)
    population = volume * AOI_BUILDINGS[aoi, 2] / CUBIC_METRES_PER_RESIDENT * layout.block_factor(rng, 0.15)
    rate = POI_RATES.T[:, aoi] * (0.15 + volume / 1e4) * layout.block_factor(rng, 0.4)
    rate[POI_CATEGORIES.index("transport")] += 0.12 * (surface == SURFACE_CLASSES.index("arterial"))
    rate[:, surface == SURFACE_CLASSES.index("water")] = 0.0
    context = {
        "surface": surface,
        "aoi": aoi,
        "poi": rng.poisson(rate).astype(np.float32),
        "building_volume": volume.astype(np.float32),
        "population": population.astype(np.float32),
    }
    context["population_over_time"] = people_over_time(context, culture)
    return context


def simulate_zones(context: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """
    Base stations of a simulated city and the cells that they serve: dense where many people are, with three sectors.

    Args:
        context (`dict[str, np.ndarray]`): From [`simulate_context`], with `population_over_time`.
        seed (`int`): Of the positions; the city stays the same.

    Returns:
        `dict[str, np.ndarray]`: the layers `site` and `sector`, (H, W) int32: the nearest site of each cell, one per
        `CELLS_PER_SITE` cells on average, and its sector by direction. Their numbers have no gaps.
    """
    people = context["population_over_time"].mean(axis=0)
    height, width = people.shape
    rng = np.random.default_rng([seed, 3])
    count = max(1, round(height * width / CELLS_PER_SITE))
    density = np.sqrt(people) + 1e-9
    density = (1 - EVEN_SITES) * density / density.sum() + EVEN_SITES / people.size
    cells = rng.choice(people.size, size=count, replace=False, p=density.ravel())
    site_y, site_x = np.stack(np.unravel_index(cells, people.shape)) + rng.uniform(size=(2, count))
    y, x = np.arange(height) + 0.5, np.arange(width) + 0.5
    azimuth = rng.uniform(0, 360, (count, 1)) + np.arange(SECTORS_PER_SITE) * 360 / SECTORS_PER_SITE
    site_of_sector = np.repeat(np.arange(count), SECTORS_PER_SITE)
    layers = {
        SITES: voronoi_zones(site_x, site_y, y, x),
        SECTORS: sector_zones(site_of_sector, azimuth.ravel(), site_x, site_y, y, x),
    }
    numbered = {name: np.unique(labels, return_inverse=True)[1] for name, labels in layers.items()}
    return {name: labels.reshape(height, width).astype(np.int32) for name, labels in numbered.items()}


class _Layout:
    """Centre, streets, blocks and smooth fields of one city; the steps of `simulate_context` that share them."""

    def __init__(self, rng: np.random.Generator, height: int, width: int, culture: Culture):
        self.culture = culture
        self.shape = (height, width)
        y, x = np.mgrid[:height, :width].astype(np.float64)
        centre_y, centre_x = rng.uniform(0.3, 0.7, 2) * (height, width)
        reach = np.clip(0.22 * np.sqrt(height * width), 14.0, 90.0)
        distance = np.hypot(y - centre_y, x - centre_x)
        # Centrality: about 2 downtown, 0 in an ordinary quarter, below -1 at the rural edge.
        self.centrality = 2.6 * np.exp(-distance / reach) - 0.6 + 0.6 * gaussian_field(rng, height, width, 20.0)
        self.green, self.industry = (gaussian_field(rng, height, width, length) for length in (16.0, 24.0))

        angle = rng.uniform(0.0, np.pi / 2)
        warp = [5.0 * gaussian_field(rng, height, width, 40.0) for _ in range(2)]
        self.u = (x - centre_x) * np.cos(angle) + (y - centre_y) * np.sin(angle) + warp[0]
        self.v = (y - centre_y) * np.cos(angle) - (x - centre_x) * np.sin(angle) + warp[1]
        blocks = [np.floor(line / culture.block_cells).astype(int) for line in (self.u, self.v)]
        self.block = tuple(index - index.min() for index in blocks)
        self.num_blocks = tuple(int(index.max()) + 1 for index in self.block)
        self.is_zoned = rng.random(self.num_blocks) < 0.5
        self.river = self.u * 0.5 + self.v * 0.87 + 8.0 * gaussian_field(rng, height, width, 30.0) - rng.uniform(8, 24)

    def block_factor(self, rng: np.random.Generator, log_std: float) -> np.ndarray:
        """Log-normal factor with mean 1, one value per block, (H, W)."""
        values = np.exp(log_std * rng.standard_normal(self.num_blocks) - 0.5 * log_std**2)
        return values[self.block]

    def _zoning_noise(self, rng: np.random.Generator) -> np.ndarray:
        """Gumbel noise (H, W), one value per block; half of the blocks share it with the 3 x 3 blocks around."""
        own = rng.gumbel(size=self.num_blocks)
        shared = rng.gumbel(size=self.num_blocks)
        zones = tuple(index // 3 for index in self.block)
        return np.where(self.is_zoned[self.block], shared[zones], own[self.block])

    def land_cover(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Surface and AOI codes, (H, W) int64 each."""
        zero = np.zeros(self.shape)
        log_odds = {
            "none": -1.0 - 2.2 * self.centrality,
            "residential": 1.3 + zero,
            "office": -1.5 + 1.5 * self.centrality,
            "retail": -1.7 + 1.0 * self.centrality,
            "industrial": -2.2 - 0.6 * self.centrality + 2.0 * self.industry,
            "education": -2.0 + zero,
            "health": -3.2 + zero,
            "leisure": -2.6 + 0.4 * self.centrality,
            "park": -1.6 + 1.6 * self.green,
            "transport": -4.0 + 0.4 * self.centrality,
        }
        scores = [
            log_odds[name] + self.culture.land_use.get(name, 0.0) + self._zoning_noise(rng) for name in AOI_CLASSES
        ]
        aoi = np.argmax(scores, axis=0)

        from_railway = np.abs(self.v - 0.6 * self.culture.block_cells)
        station = (from_railway < 1.5) & (np.mod(self.u + 1.5, 16.0) < 3.0)
        aoi[station] = AOI_CLASSES.index("transport")
        water = np.abs(self.river) < 2.0
        aoi[water] = AOI_CLASSES.index("none")
        return self._surface(aoi, water, from_railway < 0.5), aoi

    def _surface(self, aoi: np.ndarray, water: np.ndarray, railway: np.ndarray) -> np.ndarray:
        """Surface codes: green, water or built, with the road network (bridges included) on top."""
        green = np.isin(aoi, [AOI_CLASSES.index("none"), AOI_CLASSES.index("park")])
        spacing = self.culture.block_cells
        painted = {  # each one over those before
            "built": ~green,
            "street": ~green & self._grid_lines(spacing),
            "water": water,
            "arterial": self._grid_lines(3 * spacing),
            "motorway": self._grid_lines(18 * spacing, offset=3 * spacing),
            "railway": railway,
        }
        surface = np.full(self.shape, SURFACE_CLASSES.index("vegetation"))
        for name, here in painted.items():
            surface[here] = SURFACE_CLASSES.index(name)
        return surface

    def _grid_lines(self, spacing: int, offset: int = 0) -> np.ndarray:
        return (np.mod(self.u - offset, spacing) < 1.0) | (np.mod(self.v - offset, spacing) < 1.0)

    def building_volume(self, rng: np.random.Generator, surface: np.ndarray, aoi: np.ndarray) -> np.ndarray:
        """Building volume in m3 per cell, (H, W)."""
        coverage = AOI_BUILDINGS[aoi, 0] * COVERAGE_OF_SURFACE[surface]
        height = AOI_BUILDINGS[aoi, 1] * np.exp(self.culture.height_gain * self.centrality)
        cell = np.exp(0.25 * rng.standard_normal(self.shape) - 0.5 * 0.25**2)
        scale = CELL_SIZE_M**2 * self.culture.building_scale
        return scale * coverage * height * self.block_factor(rng, 0.3) * cell


def user_groups(context: dict[str, np.ndarray], culture: str = "default") -> np.ndarray:
    """People who use each cell, per group of `USER_GROUPS`: a function of the cell's own context.

    Args:
        context (`dict`): raw layers as `simulate_context` returns them; `population_over_time` is not used.
        culture (`str`, defaults to `"default"`): one of `CULTURES`.

    Returns:
        `np.ndarray` of shape (6, H, W), float32: people of the group when all of them are present.
    """
    aoi, surface = context["aoi"], context["surface"]
    volume, residents = context["building_volume"], context["population"]
    poi = dict(zip(POI_CATEGORIES, context["poi"]))
    is_education = aoi == AOI_CLASSES.index("education")
    groups = {
        "residents": residents,
        "workers": volume / 1e3 * AOI_BUILDINGS[aoi, 3] + 4.0 * poi["office"] + 3.0 * poi["public"],
        "students": 5.0 * volume / 1e3 * is_education + 12.0 * poi["education"],
        "shoppers": 9.0 * poi["shop"] + 4.0 * poi["health"],
        "visitors": 8.0 * poi["food"] + 10.0 * poi["leisure"] + 8.0 * poi["lodging"] + VISITORS_OF_AOI[aoi],
        "travellers": 8.0 * poi["transport"] + TRAVELLERS_OF_AOI[aoi] + TRAVELLERS_OF_SURFACE[surface],
    }
    scale = get_culture(culture).group_scale
    return np.stack([scale.get(name, 1.0) * groups[name] for name in USER_GROUPS]).astype(np.float32)


def weekly_rhythms(culture: str = "default") -> tuple[np.ndarray, np.ndarray]:
    """Weekly rhythm of every user group.

    Args:
        culture (`str`, defaults to `"default"`): one of `CULTURES`.

    Returns:
        presence (6, 168), the fraction of the group that is there; demand (6, 168), MB per person present and hour.
        Hour 0 is Monday 00:00.
    """
    preset = get_culture(culture)
    work = _daily_rhythms(preset, rest=False)
    rest = _daily_rhythms(preset, rest=True)
    days = [rest if day in preset.weekend else work for day in range(7)]
    presence, demand = (np.concatenate([day[i] for day in days], axis=1) for i in range(2))
    return presence.astype(np.float32), (preset.demand_scale * demand).astype(np.float32)


def _bump(hour: float, width: float) -> np.ndarray:
    """A smooth peak of height 1 at `hour`, periodic over the day, (24,)."""
    distance = np.abs((np.arange(24) + 0.5 - hour + 12) % 24 - 12)
    return np.exp(-0.5 * (distance / width) ** 2)


def _plateau(start: float, stop: float) -> np.ndarray:
    """About 1 from `start` to `stop` o'clock with flanks of about an hour, (24,)."""
    hours = np.arange(24) + 0.5 + np.array([[-24], [0], [24]])
    return (1 / (1 + np.exp(-2.5 * (hours - start))) / (1 + np.exp(2.5 * (hours - stop)))).sum(axis=0)


def _daily_rhythms(preset: Culture, rest: bool) -> tuple[np.ndarray, np.ndarray]:
    """Presence and demand of one working day or day of rest, (6, 24) each, in the order of `USER_GROUPS`."""
    late = preset.shift_hours
    work = _plateau(8.5 + late, 8.5 + late + preset.work_span_hours)
    shops = _plateau(10 + late, 20 + late)
    evening = preset.night_life * _bump(20.5 + late, 2.0)
    commute = _bump(8.2 + late, 1.0) + 0.9 * _bump(8.8 + late + preset.work_span_hours, 1.3)
    awake = _plateau(7 + late, 23.5 + late)
    presence = {
        "residents": 0.95 - (0.25 if rest else 0.6) * _plateau(8.5 + late, 18 + late),
        "workers": 0.06 + (0.12 if rest else 0.85) * work,
        "students": 0.02 + (0.05 if rest else 0.9) * _plateau(8.5 + late, 16 + late),
        "shoppers": 0.01 + (0.9 if rest else 0.5) * shops + (0.0 if rest else 0.3) * _bump(18 + late, 1.5),
        "visitors": 0.05 + (0.6 if rest else 0.25) * shops + 0.35 * _bump(12.8 + late, 1.2) + 0.6 * evening,
        "travellers": 0.05 + 0.35 * awake + (0.15 if rest else 0.6) * commute,
    }
    demand = {  # MB per person present and hour
        "residents": 0.6 + 1.1 * awake + 1.6 * _bump(21.5 + late, 2.4),
        "workers": 0.8 + 2.2 * work + 1.2 * _bump(12.5 + late, 1.0),
        "students": 0.6 + 3.0 * work + 2.0 * _bump(12.5 + late, 1.0),
        "shoppers": 0.5 + 3.5 * awake,
        "visitors": 1.0 + 3.5 * awake + 2.0 * _bump(21 + late, 2.0),
        "travellers": 1.0 + 5.0 * awake + 2.0 * commute,
    }
    return tuple(np.stack([rhythm[name] for name in USER_GROUPS]) for rhythm in (presence, demand))


def hours_of_week(hours: int, start: int = 0) -> np.ndarray:
    """Hour of the week (0 = Monday 00:00) of `hours` consecutive hours from `start`, (hours,)."""
    return np.arange(start, start + hours) % HOURS_PER_WEEK


def sum_over_groups(context: dict, culture: str, rhythm: np.ndarray, hours: int, start: int) -> np.ndarray:
    """Sum of the user groups, each times its `rhythm` (6, 168), for `hours` hours from hour `start`; (T, H, W)."""
    groups = user_groups(context, culture)
    return np.tensordot(rhythm[:, hours_of_week(hours, start)], groups, axes=(0, 0))


def people_over_time(context: dict, culture: str = "default", hours: int = 168, start: int = 0) -> np.ndarray:
    """People present, hour by hour: the layer `population_over_time`, a function of the static layers and the hour.

    Args:
        context (`dict`): raw static layers.
        culture (`str`, defaults to `"default"`): one of `CULTURES`.
        hours (`int`, defaults to 168): number of hours T.
        start (`int`, defaults to 0): hour of the week of the first one; 0 = Monday 00:00.

    Returns:
        `np.ndarray` of shape (T, H, W), float32.
    """
    return sum_over_groups(context, culture, weekly_rhythms(culture)[0], hours, start)
