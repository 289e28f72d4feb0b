# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Pushing and loading through the real client and a Hub on the loopback interface."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from support import hub_client
from support.loopback_hub import LoopbackHub
from support.tiny import context_with_zones, random_context


ROOT = Path(__file__).parents[2]
TOKEN = "hf_" + "Secret" * 5
REMOTE_FILES = {
    "pipeline_zoomdiff.py",
    "context_processor/context_processor.py",
    "hierarchy/hierarchy.py",
    "regressor/regressor_zoomdiff.py",
    "scheduler/scheduling_drdm.py",
    "traffic_processor/traffic_processor.py",
    "unet/unet_zoomdiff.py",
}


@pytest.fixture(scope="module")
def hub():
    with LoopbackHub({TOKEN: ["planner", "org"]}) as running:
        running.failures = [
            ("POST", "org/broken/commit", 500, "out of order"),
            ("POST", "org/careless/preupload", 403, "{authorization} must not write here"),
        ]
        yield running


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    """Runs one function of `support.hub_client`; returns its results and collects all that the processes print."""
    folder = tmp_path_factory.mktemp("client")
    np.savez(folder / "context.npz", **random_context())
    np.savez(folder / "context_with_zones.npz", **context_with_zones())

    def run(function, token=TOKEN):
        environment = hub.environment(folder / "home", token)
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
        command = [sys.executable, hub_client.__file__, function, str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        run.printed += [done.stdout, done.stderr]
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads((folder / f"{function}.json").read_text())

    run.printed, run.folder = [], folder
    return run


@pytest.fixture(scope="module")
def pushed(client):
    return client("with_package")


@pytest.fixture(scope="module")
def commands(pushed):
    return pushed["commands"]


@pytest.fixture(scope="module")
def without_package(client, pushed):
    return client("without_package")


def first_push(hub, pushed):
    return hub.repository("org/lyon").files(pushed["commit"])


def card_of(files):
    _, metadata, text = files["README.md"].content.decode().split("---\n", 2)
    return yaml.safe_load(metadata), text


def assert_equal_levels(first, second, names=("bs", "cell", "grid_100m", "grid_50m")):
    first, second = np.load(first), np.load(second)
    assert set(first) == {*names} == set(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


# ------------------------------------------------------------------------------------------------------- push and load


def test_one_commit_holds_weights_configuration_summary_and_card(hub, client, pushed):
    files = first_push(hub, pushed)
    local = client.folder / "local"
    saved = {path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file()}
    assert set(files) == saved | {"README.md", "zoom.png"}
    for network in ("unet", "regressor"):
        name = f"{network}/diffusion_pytorch_model.safetensors"
        assert files[name].content == (local / name).read_bytes() and files[name].large
    repository = hub.repository("org/lyon")
    assert repository.private
    assert repository.messages == 3 * ["Upload ZoomDiffPipeline"]  # main, remote-code, and main again


def test_both_pipeline_classes_and_single_components_load(client, pushed):
    assert pushed["classes"] == ["ZoomDiffPipeline", "ZoomDiffPipeline"]
    assert pushed["components"] == ["ZoomDiffUNet", "DRDMScheduler", "Hierarchy", "ContextProcessor", "ZoomDiffUNet"]
    assert_equal_levels(client.folder / "pushed.npz", client.folder / "loaded.npz")


def test_revisions_load_and_a_later_push_leaves_no_old_files(hub, pushed):
    later, earlier = pushed["first weights"]
    assert pushed["first weight, main"] == later != earlier == pushed[f"first weight, {pushed['commit']}"]
    now = hub.repository("org/lyon").files()
    assert not any(path.startswith("regressor/") for path in now)
    assert not {"zoom.png", "training_summary.json"} & set(now)  # those were about the first weights


def test_weights_of_other_variants_stay(hub, pushed):
    first, second, third = [set(files) for files in hub.repository("org/variants").commits.values()][-3:]
    half = {f"{network}/diffusion_pytorch_model.half.safetensors" for network in ("unet", "regressor")}
    assert second == first | half and not first & half
    assert third == second - {"training_summary.json"}  # that was about other weights


def test_the_training_summary_survives_every_way(hub, client, pushed):
    kept = json.loads((client.folder / "saved" / "training_summary.json").read_text())
    copies = [kept]
    for files in (first_push(hub, pushed), hub.repository("planner/again").files()):
        copies.append(json.loads(files["training_summary.json"].content))
    expected = json.loads(re.sub("/home/planner/(runs/)?", "", json.dumps(hub_client.TWO_RUNS)))
    assert copies == 3 * [expected]


def test_no_local_path_is_uploaded(hub, client, pushed):
    for repository in hub.repositories.values():
        for files in repository.commits.values():
            for path, stored in files.items():
                assert b"/home/planner" not in stored.content, path
                assert str(client.folder).encode() not in stored.content, path


# ----------------------------------------------------------------------------------------------------- failures, token


def test_a_refused_push_changes_nothing_and_says_why(hub, pushed):
    assert pushed["others/lyon"].startswith("HfHubHTTPError") and "403" in pushed["others/lyon"]
    assert "500" in pushed["org/broken"]
    assert pushed["a token in the card"] == "README.md holds an access token; nothing was uploaded."
    for repo_id in ("org/broken", "org/careless"):
        assert hub.repository(repo_id).files() == {} and not hub.repository(repo_id).messages
    assert not {("model", "org/untouched"), ("model", "others/lyon")} & set(hub.repositories)


def test_the_token_is_used_but_appears_nowhere(hub, client, pushed, commands, without_package):
    sent = [(method, path) for method, path, authorization in hub.requests if authorization == f"Bearer {TOKEN}"]
    assert ("POST", "/api/models/org/lyon/commit/main") in sent
    assert not any(method == "GET" and path.startswith("/storage/") for method, path in sent)  # another host
    assert pushed["org/careless"] == "HfHubHTTPError: The access token may not write to this repository (403)."
    printed = "".join(client.printed) + json.dumps([pushed, commands, without_package])
    assert TOKEN not in printed and "Uploading" not in TOKEN
    for path in (path for path in client.folder.rglob("*") if path.is_file()):
        assert TOKEN.encode() not in path.read_bytes(), path
    for repository in hub.repositories.values():
        for files in repository.commits.values():
            assert not any(TOKEN.encode() in stored.content for stored in files.values())


# ------------------------------------------------------------------------------------------------------------ the card


def test_the_card_states_what_the_components_and_the_training_say(hub, pushed):
    metadata, text = card_of(first_push(hub, pushed))
    assert metadata["license"] == "cc-by-4.0" and metadata["library_name"] == "diffusers"
    assert "simulated" not in metadata["tags"] and "simulated" not in text.lower()
    (result,) = metadata["model-index"][0]["results"]
    assert {metric["type"]: metric["value"] for metric in result["metrics"]}["crps"] == pytest.approx(1234.57)
    assert "| `grid_50m` | 1,235 | 1,235 | 1,235 | 1,235 | 1,235 |" in text
    for row in (
        "| `bs` | 400 m | 1 day |",
        "| `grid_50m` | 50 m | 1 h |",
        "| `poi` | count (counts) | (2, H, W) | shop, school |",
        "| `population_over_time` | temporal (quantities over time, log) | (T, H, W) | people |",
        "| data | Traffic of operator X in Lyon, March 2026 \\| counted in cells |",
        "| licence | not stated |",
        "| run 1: name | `lyon.npz` |",
        "| run 2: training region | rows [0, 8] |",
        "on at most 3 windows of 48 x 8 x 8 time steps and cells of the training data: none were held out; 2 samples",
        "| run 2: steps | 6, with 20 of the forecast before |",
        "| run 1: seed | 6 |",
        "| run 2: seed | 7 |",
    ):
        assert row in text
    assert re.search(r"\| `traffic` \| MB \| [\d.]+ \|", text)
    assert "{{" not in text and "None" not in text and "<built-in" not in text


def test_the_figure_is_small(hub, pushed, tmp_path):
    figure = first_push(hub, pushed)["zoom.png"].content
    (tmp_path / "zoom.png").write_bytes(figure)
    with Image.open(tmp_path / "zoom.png") as image:
        assert image.format == "PNG" and image.width > 600 and len(image.convert("L").getcolors(1000)) > 20
    assert len(figure) < 200_000
    assert "](zoom.png)" in card_of(first_push(hub, pushed))[1]
    assert "zoom.png" not in hub.repository("planner/again").files()  # of its schema, no context can be simulated
    assert "zoom.png" not in card_of(hub.repository("planner/again").files())[1]


def test_the_code_in_the_cards_runs(pushed):
    shape = [4, 1, 168, 16, 24]
    names = ["org/lyon 0", "org/lyon 1", "org/city 0", "org/sites 0", "org/sites 1"]
    assert pushed["snippets"] == dict.fromkeys(names, shape)


def test_a_model_trained_on_simulated_cities_says_so(hub, commands):
    metadata, text = card_of(hub.repository("org/city").files())
    assert "simulated" in metadata["tags"] and "license" not in metadata
    assert "Trained on simulated data" in text
    assert "| run 1: simulated cities | 80 of 96 x 96 cells, 1 x 168 h each |" in text
    assert "| run 2: batch | 8 windows of 24 to 504 x 16 x 16 time steps and cells |" in text
    assert "| run 2: continued from | run 1 |" in text
    assert "- Weights: not stated" in text and "time steps and cells that were held out; 8 samples each." in text
    assert "| `bs` | 1.233 | 1.945 | 2.961 | 2.439 | 1.409 |" in text
    assert len(hub.repository("org/city").files()["zoom.png"].content) < 200_000


# --------------------------------------------------------------------------------------------------------- remote code


def test_remote_code_never_runs_unasked(hub, pushed):
    assert REMOTE_FILES <= set(hub.repository("org/lyon").files("remote-code"))
    assert not any(path.endswith(".py") for path in first_push(hub, pushed))
    for name in ("DiffusionPipeline", "ZoomDiffPipeline"):
        assert "trust_remote_code=True" in pushed[f"{name} without trust"]
    assert pushed["code that ran"] == []


def test_the_remote_code_branch_generates_the_same_without_the_package(client, pushed, without_package):
    assert all(name.startswith("diffusers_modules.") for name in without_package["modules"])
    assert len(without_package["modules"]) == len(REMOTE_FILES)
    assert_equal_levels(client.folder / "pushed.npz", client.folder / "without_package.npz")
    for name in ("save", "push"):
        assert "needs the package: pip install zoomdiff_diffusers" in without_package[name]
    assert "Expected types" not in "".join(client.printed) and "cannot get type annotation" not in "".join(
        client.printed
    )


def test_a_model_of_sites_and_sectors_generates_the_same_from_the_hub(hub, client, pushed, without_package):
    for made in ("zoned_loaded.npz", "zoned_without_package.npz"):
        assert_equal_levels(client.folder / "zoned.npz", client.folder / made, ("bs", "cell", "grid_2", "grid_1"))
    files = hub.repository("org/sites").files()
    _, text = card_of(files)
    assert "| `bs` | by site | 1 day |" in text and "](zoom.png)" in text
    assert len(files["zoom.png"].content) < 200_000


# --------------------------------------------------------------------------------------------------------- the command


def test_a_data_set_is_pushed_with_a_card_and_loads_again(hub, client, commands):
    assert commands["dataset"]["code"] == 0, commands["dataset"]
    files = hub.repository("org/traffic", "dataset").files()
    assert set(files) == {"README.md", "train.parquet"}
    values = np.load(client.folder / "traffic.npz")
    np.testing.assert_allclose(values["loaded"], values["pushed"])
    metadata, text = card_of(files)
    assert metadata["license"] == "cc-by-4.0"
    for row in (
        "| areas | 2 |",
        "| cells of an area, height x width | 8 x 16 |",
        "| side of a cell | 100 m |",
        "| time steps of an area | 48 (2 days) |",
        "| missing traffic | 6.2 % |",
        "| `poi` | context layer, count (counts) | (2, 8, 16) | shop, school |",
        "- Source: Traffic of operator X in Lyon, March 2026 \\| counted in cells",
    ):
        assert row in text
    measured = np.concatenate([values["pushed"][0].ravel(), values["pushed"][1, 6:].ravel()])
    assert (
        f"| `traffic` | MB | {measured.mean():.4g} | {measured.max():.4g} | {100 * (measured == 0).mean():.1f} % |"
        in text
    )


def test_the_configuration_in_the_card_trains_from_the_hub(client, commands):
    assert commands["training"]["code"] == 0, commands["training"]
    folder = client.folder / "from the hub"
    summary = json.loads((folder / "training_summary.json").read_text())
    assert summary["steps"] == 1 and summary["config"]["data"]["dataset"] == "org/traffic"
    hierarchy = json.loads((folder / "hierarchy" / "hierarchy_config.json").read_text())
    assert hierarchy["cell_size"] == 100.0


def test_push_prints_where_it_went(hub, commands):
    done = commands["model"]
    assert done["code"] == 0 and done["stdout"].startswith(f"model uploaded: {hub.url}/org/city/commit/")
    printed = json.loads(commands["pull request"]["stdout"])
    assert printed["type"] == "model" and printed["pull_request"] == f"{hub.url}/org/city/discussions/1"
    assert set(hub.repository("org/city").branches) == {"main", "refs/pr/1"}
    assert card_of(hub.repository("org/city").files("refs/pr/1"))[0]["license"] == "apache-2.0"


@pytest.mark.parametrize(
    "case, message",
    [
        ("forbidden", "The access token may not write to this repository (403)."),
        ("failing", "The access token may not write to this repository (403)."),
        ("incomplete", "is incomplete: unet/ has no configuration."),
    ],
)
def test_push_fails_in_one_line(hub, commands, case, message):
    done = commands[case]
    assert done["code"] == 1 and done["stdout"] == ""
    assert message in done["stderr"] and "Traceback" not in done["stderr"]
    assert ("model", "org/incomplete") not in hub.repositories


def test_train_pushes_what_it_trained(hub, client):
    folder = client.folder / "trained"
    environment = hub.environment(client.folder / "home", TOKEN) | {"PYTHONPATH": str(ROOT / "src")}
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    words = [
        "--config",
        str(ROOT / "configs/tiny.yaml"),
        "--output_dir",
        str(folder),
        "--json",
        "--push_to_hub",
        "true",
    ]
    words += ["--hub_model_id", "org/trained", "--model_license", "apache-2.0", "--hub_private_repo", "true"]
    command = [*launch, "-m", "zoomdiff_diffusers.commands", "train", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    printed = json.loads(done.stdout)
    repository = hub.repository("org/trained")
    assert repository.private and printed["url"].endswith(repository.branches["main"])
    summary = json.loads(repository.files()["training_summary.json"].content)
    assert summary["steps"] == printed["steps"] == 6
    assert summary["validations"][-1]["scores"] == printed["scores"]
    metadata, text = card_of(repository.files())
    assert metadata["license"] == "apache-2.0" and "Trained on simulated data" in text
    assert TOKEN not in done.stdout + done.stderr
    assert not any(TOKEN in path.read_text(errors="ignore") for path in folder.rglob("*") if path.is_file())


def test_training_that_could_not_be_pushed_does_not_start(client, pushed):
    assert not (client.folder / "not started").exists()
    assert pushed["training"] == (
        "train.py: error: `push_to_hub`: The Hub asks for a valid access token (401). Log in with `hf auth login`, "
        "or set HF_TOKEN."
    )
