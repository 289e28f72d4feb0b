# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
What OpenStreetMap tags mean here: tables from tags to surface classes, AOI classes, road classes and POI categories.

The classes are those of `SIMULATED_LAYERS`, which the bundled weights know. A value that no table has under its key is
unknown: it is counted, reported and otherwise ignored. `"*"` stands for all values that are not listed.
"""

import math
import re


# Areas: what (surface, AOI) each value of a key says about the ground. `None`: nothing, what lies below counts.
AREAS = {
    "building": {
        ("built", "residential"): """apartments block bungalow cabin chalet detached dormitory duplex ger house
            houseboat residential semi semidetached_house static_caravan summer_cottage terrace tree_house
            trullo""",
        ("built", "office"): "civic commercial government office public townhall",
        ("built", "retail"): "kiosk mall market marketplace retail shop supermarket",
        ("built", "industrial"): """depot digester factory hangar industrial manufacture mill power silo
            storage_tank tank transformer_tower utility warehouse works""",
        ("built", "education"): "college kindergarten library school university",
        ("built", "health"): "clinic hospital",
        ("built", "leisure"): """arena boathouse cathedral chapel church cinema clubhouse grandstand gym
            gymnasium hotel monastery mosque museum pagoda pavilion presbytery religious riding_hall shrine
            sports_centre sports_hall stadium synagogue temple theatre wayside_shrine""",
        ("built", "none"): "barn cowshed farm farm_auxiliary greenhouse slurry_tank stable sty",
        ("built", "transport"): "ferry_terminal parking station terminal train_station transportation",
        ("built", None): """allotment_house annexe atrium bridge bunker canopy carport castle conservatory
            container fire_station gatehouse garage garages guardhouse historic hut military outbuilding parts
            pier porch roof ruins sauna service shed shelter stairs tent toilets tower triumphal_arch veranda
            wall yes""",
        (None, None): "collapsed construction demolished entrance no planned proposed",
    },
    "landuse": {
        ("built", "residential"): "residential garages",
        ("built", "office"): "civic civic_admin commercial government institutional",
        ("built", "retail"): "retail",
        ("built", "industrial"): "depot industrial landfill port quarry storage",
        ("built", "education"): "education",
        ("built", "health"): "healthcare",
        ("vegetation", "leisure"): "recreation_ground winter_sports",
        ("built", "leisure"): "fairground religious",
        ("vegetation", "park"): "allotments cemetery village_green",
        ("built", "transport"): "railway",
        ("vegetation", None): "flowerbed grass shrubs",
        ("vegetation", "none"): """animal_keeping apiary brownfield conservation farm farmland farmyard forest
            greenery greenfield logging meadow orchard paddy plant_nursery vineyard wood""",
        ("built", "none"): "construction greenhouse_horticulture highway military road",
        ("water", "none"): "aquaculture basin pond reservoir salt_pond",
        (None, None): "churchyard harbour",
    },
    "natural": {
        ("water", "none"): "bay strait water",
        ("vegetation", None): "scrub shrubbery wood",
        ("vegetation", "none"): """bare_rock beach cliff desert dune fell glacier grassland heath moor mud reef
            rock sand scree shingle shoal tundra wetland""",
        (None, None): """arch cape cave_entrance crevasse earth_bank gully hill isthmus
            peak peninsula ridge rock_shelter saddle spring stone tree tree_group tree_row tree_stump
            valley volcano""",
    },
    "waterway": {
        ("water", "none"): "dock riverbank",
        (None, None): """boatyard canal dam ditch drain fairway fish_pass fuel
            lock_gate pressurised river rapids stream tidal_channel turning_point waterfall water_point weir""",
    },
    "leisure": {
        ("vegetation", "park"): "bird_hide common dog_park garden nature_reserve park playground",
        ("vegetation", "leisure"): "disc_golf_course golf_course miniature_golf pitch",
        ("built", "leisure"): """adult_gaming_centre amusement_arcade bandstand beach_resort bowling_alley
            dance escape_game fitness_centre hackerspace horse_riding ice_rink resort sauna sports_centre
            sports_hall stadium summer_camp tanning_salon track trampoline_park water_park wildlife_hide""",
        ("water", "none"): "marina swimming_area",
        (None, None): """bathing_place bleachers firepit fishing fitness_station
            outdoor_seating picnic_table schoolyard slipway social_club swimming_pool""",
    },
    "amenity": {
        ("built", "education"): """childcare college dancing_school driving_school kindergarten language_school
            library music_school prep_school research_institute school university""",
        ("built", "health"): "clinic hospital nursing_home social_facility",
        ("built", "office"): "courthouse embassy fire_station police prison public_building townhall",
        ("built", "retail"): "marketplace",
        ("built", "leisure"): """arts_centre casino cinema community_centre conference_centre events_venue
            exhibition_centre monastery nightclub place_of_worship planetarium theatre""",
        ("vegetation", "park"): "grave_yard",
        ("built", "transport"): "bus_station ferry_terminal",
        ("built", "industrial"): "crematorium recycling waste_transfer_station",
        ("built", None): "fuel motorcycle_parking parking parking_space",
        (None, None): "animal_shelter fountain shelter",
    },
    "tourism": {
        ("vegetation", "leisure"): "camp_site caravan_site picnic_site theme_park zoo",
        ("built", "leisure"): "aquarium gallery hotel museum",
        (None, None): "artwork attraction information trail_riding_station viewpoint yes",
    },
    "healthcare": {("built", "health"): "centre clinic hospital"},
    "shop": {("built", "retail"): "department_store mall supermarket wholesale"},
    "office": {("built", "office"): "*"},
    "aeroway": {
        ("built", "transport"): "aerodrome airport apron helipad heliport runway taxiway terminal",
        (None, None): "gate hangar holding_position navigationaid parking_position stopway tower windsock",
    },
    "railway": {("built", "transport"): "station yard"},
    "public_transport": {("built", "transport"): "station", (None, None): "platform stop_area stop_position"},
    "highway": {("built", None): "footway living_street pedestrian platform residential rest_area service services"},
    "place": {
        ("built", None): "square",
        (None, None): """allotments archipelago borough city city_block county farm
            hamlet island islet isolated_dwelling locality neighbourhood plot quarter region suburb town village""",
    },
    "man_made": {
        ("built", "industrial"): "gasometer pumping_station storage_tank wastewater_plant water_works works",
        ("built", None): "bridge pier",
    },
    "power": {("built", "industrial"): "plant substation"},
}

# Lines: the road class of each value of a key. `None`: no class of its own, the ground counts.
LINES = {
    "highway": {
        "motorway": "motorway motorway_link trunk trunk_link",
        "arterial": "primary primary_link secondary secondary_link",
        "street": "busway living_street pedestrian residential road tertiary tertiary_link unclassified",
        None: """abandoned bridleway bus_guideway construction corridor cycleway elevator escape footway ladder
            path platform proposed raceway razed rest_area service services steps track via_ferrata""",
    },
    "railway": {
        "railway": "light_rail monorail narrow_gauge preserved rail subway",
        None: """abandoned construction disused funicular miniature platform platform_edge proposed razed
            station traverser tram turntable workshop yard""",
    },
    "natural": {None: "coastline"},
}

# Points of interest, as nodes or areas, by key, the first of these keys first. `None`: not one that draws people.
POIS = {
    "shop": {"shop": "*", None: "no vacant"},
    "amenity": {
        "food": "bar biergarten cafe canteen fast_food food_court ice_cream pub restaurant",
        "shop": """bank bureau_de_change car_wash dry_cleaning internet_cafe marketplace money_transfer
            photo_booth studio vehicle_inspection""",
        "office": "coworking_space research_institute",
        "education": """childcare college dancing_school driving_school kindergarten language_school library
            music_school prep_school school toy_library training university""",
        "health": """baby_hatch clinic dentist doctors health_post hospital nursing_home pharmacy
            social_facility veterinary""",
        "leisure": """arts_centre brothel casino cinema dive_centre events_venue gambling love_hotel nightclub
            planetarium public_bath sauna spa stage stripclub swingerclub theatre""",
        "public": """animal_shelter community_centre conference_centre courthouse crematorium customs embassy
            exhibition_centre fire_station funeral_hall monastery mortuary place_of_worship police
            polling_station post_office prison public_building ranger_station refugee_site register_office
            social_centre townhall""",
        "transport": "bus_station car_rental car_sharing ferry_terminal fuel taxi",
        None: """animal_boarding animal_breeding animal_training atm bbq bear_box bench bicycle_parking
            bicycle_rental bicycle_repair_station bicycle_trailer_sharing boat_rental boat_sharing boat_storage
            car_pooling charging_station clock compressed_air device_charging_station dog_toilet dressing_room
            drinking_water feeding_place fountain give_box grave_yard grit_bin hunting_stand
            kick-scooter_parking kick-scooter_rental kitchen kneipp_water_cure letter_box life_ring loading_dock
            locker lounge lounger mailroom motorcycle_parking motorcycle_rental parcel_locker parking
            parking_entrance parking_exit parking_space payment_centre payment_terminal piano post_box
            post_depot public_bookcase reception_desk recycling sanitary_dump_station scooter_parking
            scooter_rental shelter shower smoking_area table taxi_phone telephone ticket_validator toilets
            trolley_bay vacuum_cleaner vending_machine waste_basket waste_disposal waste_transfer_station water
            water_point watering_place weighbridge""",
    },
    "healthcare": {
        "health": """alternative audiologist birthing_center birthing_centre blood_bank blood_donation centre
            clinic counselling dentist dialysis doctor doctors hearing_care hospice hospital laboratory midwife
            nurse occupational_therapist optometrist pharmacy physiotherapist podiatrist psychotherapist
            rehabilitation sample_collection speech_therapist vaccination_centre yes""",
    },
    "tourism": {
        "lodging": """alpine_hut apartment camp_pitch camp_site caravan_site chalet guest_house hostel hotel
            motel wilderness_hut""",
        "leisure": "aquarium attraction gallery museum theme_park zoo",
        None: "artwork information picnic_site trail_riding_station viewpoint yes",
    },
    "leisure": {
        "leisure": """adult_gaming_centre amusement_arcade beach_resort bowling_alley dance escape_game
            fitness_centre hackerspace ice_rink miniature_golf resort sauna social_club sports_centre
            sports_hall stadium tanning_salon trampoline_park water_park""",
        None: """bandstand bathing_place bird_hide bleachers common disc_golf_course dog_park firepit fishing
            fitness_station garden golf_course horse_riding marina nature_reserve outdoor_seating park
            picnic_table pitch playground schoolyard slipway summer_camp swimming_area swimming_pool track
            wildlife_hide""",
    },
    "office": {"office": "*", "public": "diplomatic government", None: "no vacant"},
    "craft": {"shop": "*", None: "no"},
    "aeroway": {"transport": "terminal"},
    "railway": {
        "transport": "halt station subway_entrance tram_stop",
        None: """buffer_stop crossing crossing_box derail facility hump_yard junction level_crossing milestone
            phone platform railway_crossing signal signal_box service_station site spur_junction stop switch
            switch_heater tram_crossing tram_level_crossing train_station_entrance vacancy_detection wash
            water_crane yard""",
    },
    "highway": {
        "transport": "bus_stop",
        None: """crossing elevator emergency_access_point emergency_bay give_way hitchhiking ladder milestone
            mini_roundabout motorway_junction passing_place platform rest_area services speed_camera
            speed_display stop street_lamp toll_gantry traffic_mirror traffic_signals trailhead turning_circle
            turning_loop""",
    },
}

STOREY_M = 3.0
# Buildings with dwellings, buildings that have none, buildings of which no tag tells.
DWELLINGS, NO_DWELLINGS, UNTOLD = range(3)

# The classes of `LINES`, each painted over those before it.
ROADS = ["street", "arterial", "motorway", "railway"]
# Buildings of one storey where no tag says otherwise, in which nobody lives.
LOW_BUILDINGS = set(
    """allotment_house annexe barn canopy carport conservatory container cowshed farm_auxiliary garage garages
    greenhouse guardhouse hut kiosk outbuilding porch roof sauna service shed shelter stable sty tent toilets
    transformer_tower veranda""".split()
)


def _by_value(table: dict) -> dict:
    """`{key: {value: meaning}}` of a table that lists the values of each meaning."""
    return {
        key: {value: meaning for meaning, values in meanings.items() for value in values.split()}
        for key, meanings in table.items()
    }


AREA_OF_TAG, ROAD_OF_TAG, POI_OF_TAG = _by_value(AREAS), _by_value(LINES), _by_value(POIS)
KEYS = sorted({*AREAS, *LINES, *POIS})


def area_classes(tags: dict) -> tuple[str | None, str | None]:
    """Surface and AOI class of an area; the use of a building counts where no other tag tells one."""
    meanings = {key: _lookup(AREA_OF_TAG[key], tags[key]) for key in AREAS if key in tags}
    if "building" in tags and meanings["building"] is None:
        meanings["building"] = AREA_OF_TAG["building"]["yes"]
    found = [meaning for meaning in meanings.values() if meaning is not None]
    surface = next((meaning[0] for meaning in found if meaning[0] is not None), None)
    aoi = next((meaning[1] for meaning in found[::-1] if meaning[1] is not None), None)
    return surface, aoi


def road_class(tags: dict) -> str | None:
    """Road class of a line; `None` also for tunnels, and for the edge of a square."""
    if tags.get("tunnel", "no") != "no" or tags.get("location") == "underground" or tags.get("area") == "yes":
        return None
    classes = (ROAD_OF_TAG[key].get(tags[key]) for key in ("railway", "highway") if key in tags)
    return next((name for name in classes if name is not None), None)


def poi_category(tags: dict) -> str | None:
    """Category of a point of interest, after the first of the keys of `POIS` that knows one."""
    found = ((POI_OF_TAG[key], value) for key in POIS if key in tags for value in _values(tags[key]))
    categories = (table.get(value, table.get("*")) for table, value in found)
    return next((category for category in categories if category is not None), None)


def unknown_tags(tags: dict, keys) -> tuple[str, ...]:
    """`key=value` of all tags with one of the `keys` whose value no table has."""
    return tuple(
        f"{key}={tags[key]}"
        for key in keys
        if key in tags
        and all(
            value not in table.get(key, {}) and "*" not in table.get(key, {})
            for table in (AREA_OF_TAG, ROAD_OF_TAG, POI_OF_TAG)
            for value in _values(tags[key])
        )
    )


def without_closed_road(tags: dict) -> dict:
    """The tags of a closed way, seen as an area: a road is none, unless it says so."""
    if tags.get("area") == "yes":
        return tags
    return {key: value for key, value in tags.items() if key != "highway"}


def _lookup(table: dict, text: str):
    return next((table[value] for value in _values(text) if value in table), table.get("*"))


def _values(text: str) -> list[str]:
    return [value.strip() for value in text.split(";")]


def building_use(tags: dict) -> tuple[int, float] | None:
    """Use and height in m (NaN: unknown) of a building, `None` for what is none or not above ground."""
    kind = tags.get("building", "no")
    if _lookup(AREA_OF_TAG["building"], kind) == (None, None) or tags.get("location") == "underground":
        return None
    aoi = area_classes(tags)[1]
    if kind in LOW_BUILDINGS:
        use = NO_DWELLINGS
    elif aoi is None:
        use = UNTOLD
    else:
        use = DWELLINGS if aoi == "residential" else NO_DWELLINGS
    height = metres(tags.get("height", ""))
    levels = metres(tags.get("building:levels", ""))
    if math.isnan(height):
        height = levels * STOREY_M
    if math.isnan(height) and kind in LOW_BUILDINGS:
        height = STOREY_M
    return use, height


def metres(text: str) -> float:
    """A positive number, in metres or feet, such as `12`, `12.5 m` and `40'`; NaN for any other text."""
    match = re.fullmatch(r"\s*(\d+(?:[.,]\d+)?)\s*(m|metres|meters|'|ft)?\s*", text)
    if match is None:
        return math.nan
    value = float(match[1].replace(",", ".")) * (0.3048 if match[2] in ("'", "ft") else 1.0)
    return value if 0 < value < 1000 else math.nan
