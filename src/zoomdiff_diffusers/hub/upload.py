# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Uploads to the Hugging Face Hub: one commit per push, and none at all if something is missing."""

import json
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, get_token, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalTokenNotFoundError

from ..configuration import write_atomically
from ..pipelines.zoomdiff.pipeline_zoomdiff import TRAINING_SUMMARY, weight_patterns
from .cards import dataset_card, dataset_facts, is_simulated, model_card, runs_of
from .remote_code import write_remote_code


REMOTE_CODE_BRANCH = "remote-code"
FIGURE = "zoom.png"
# Formats that run code when they are read, or may.
PICKLES = (".bin", ".ckpt", ".joblib", ".npy", ".pickle", ".pkl", ".pt", ".pth")
# All that can go wrong between here and the Hub: its answers, the connection, the disk. (The client's library for HTTP
# changed its name, so its base class is taken from the client.)
HUB_ERRORS = (HfHubHTTPError, *HfHubHTTPError.__bases__, OSError)
TOKEN_PATTERN = re.compile(r"\bhf_[A-Za-z0-9]{16,}\b")


def push_pipeline(
    pipe,
    repo_id: str,
    *,
    commit_message: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    create_pr: bool = False,
    variant: str | None = None,
    subfolder: str | None = None,
    statements: dict[str, str | None] | None = None,
    context=None,
    remote_code: bool = False,
) -> CommitInfo:
    """
    What [`ZoomDiffPipeline.push_to_hub`] does; its arguments are described there.

    Args:
        statements (`dict`, *optional*): `model_license`, `data_license` and `data_description`, for the card.
    """
    if remote_code and (create_pr or subfolder):
        raise ValueError("`remote_code` writes a branch of its own: it goes neither with `create_pr` nor `subfolder`.")
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as temporary, _no_token_in_errors(token):
        folder, repo_id = Path(temporary, "main"), _full_name(api, repo_id)
        if pipe.training_summary is None:
            pipe.training_summary = _summary_on_the_hub(pipe, token)
        pipe.save_pretrained(folder, variant=variant)
        _leave_out_local_paths(folder)
        check_pipeline_folder(folder, variant)
        has_figure = _draw(pipe, context, folder / FIGURE)
        card = model_card(pipe, repo_id, statements or {}, FIGURE if has_figure else None, remote_code)
        write_atomically(folder / "README.md", str(card))
        with_code = Path(temporary, REMOTE_CODE_BRANCH)
        if remote_code:
            shutil.copytree(folder, with_code)
            write_remote_code(with_code)
        refuse_tokens(Path(temporary), token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        options = {
            "repo_id": repo_id,
            "path_in_repo": subfolder,
            "commit_message": commit_message or "Upload ZoomDiffPipeline",
            "delete_patterns": [*_outdated(pipe, variant), FIGURE, TRAINING_SUMMARY],
        }
        commit = api.upload_folder(**options, folder_path=folder, create_pr=create_pr)
        if remote_code:
            api.create_branch(repo_id, branch=REMOTE_CODE_BRANCH, exist_ok=True)
            api.upload_folder(**options, folder_path=with_code, revision=REMOTE_CODE_BRANCH)
    return commit


def _outdated(pipe, variant: str | None) -> list[str]:
    """Patterns of the files that an earlier push may have left in the folders of the components."""
    # Weights of other variants stay, as in `save_pretrained`.
    return [
        f"{name}/{pattern}"
        for name, component in pipe.components.items()
        for pattern in (["*"] if component is None else weight_patterns(variant))
    ]


def push_dataset(
    source: str | Path,
    repo_id: str,
    arguments=None,
    *,
    commit_message: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    create_pr: bool = False,
    statements: dict[str, str | None] | None = None,
) -> CommitInfo:
    """
    Upload the Parquet files of a training set with a dataset card (README.md), in one commit.

    Args:
        source (`str` or `Path`): A `datasets` folder, as `zoomdiff_diffusers.data.datasets` describes it.
        repo_id (`str`): The dataset repository, "organisation/name".
        arguments (`Arguments`, *optional*):
            Those of a training on it: names of the traffic and the layers, the unit, cells and time steps.
        statements (`dict`, *optional*): `data_license` and `data_description`.

    The other arguments are those of [`ZoomDiffPipeline.push_to_hub`].

    Raises:
        ValueError: Before anything is uploaded, if the folder holds no training set or a pickle.
    """
    source, api = Path(source), HfApi(token=token)
    files = check_dataset_folder(source)
    facts = dataset_facts(source, arguments)
    with tempfile.TemporaryDirectory() as temporary, _no_token_in_errors(token):
        folder, repo_id = Path(temporary), _full_name(api, repo_id)
        for path in files:
            (folder / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / path.relative_to(source))
        write_atomically(folder / "README.md", str(dataset_card(facts, repo_id, statements or {})))
        refuse_tokens(folder, token)
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        return api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=folder,
            commit_message=commit_message or "Upload training set",
            create_pr=create_pr,
            delete_patterns="*.parquet",
        )


def check_login() -> None:
    """Raise a `ValueError` unless the Hub knows who is uploading."""
    try:
        HfApi().whoami(token=True)
    except HUB_ERRORS as error:
        raise ValueError(f"`push_to_hub`: {explain(error)}") from None


def explain(error: Exception) -> str:
    """One sentence about one of `HUB_ERRORS`, without what the server said: it could repeat the access token."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, LocalTokenNotFoundError):
        return "No access token was found. Log in with `hf auth login`, or set HF_TOKEN."
    if status == 401:
        return "The Hub asks for a valid access token (401). Log in with `hf auth login`, or set HF_TOKEN."
    if status == 403:
        return "The access token may not write to this repository (403)."
    if status is not None:
        return f"The Hub answered with status {status}."
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return str(error)  # of this machine
    return f"The Hub cannot be reached ({type(error).__name__})."


def check_pipeline_folder(folder: str | Path, variant: str | None = None) -> None:
    """Raise a `ValueError` that names what a saved pipeline lacks (index, configuration, weights), or a pickle."""
    folder = Path(folder)
    _refuse_pickles(folder)
    if not (folder / "model_index.json").is_file():
        raise ValueError(f"'{folder}' is no saved pipeline: it has no model_index.json.")
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    for name, entry in index.items():
        if not isinstance(entry, list) or name.startswith("_") or entry[0] is None:
            continue
        if not list((folder / name).glob("*config.json")):
            raise ValueError(f"'{folder}' is incomplete: {name}/ has no configuration.")
        if entry[1] in ("ZoomDiffUNet", "ZoomDiffRegressor"):
            _check_weights(folder / name, variant)


def _check_weights(folder: Path, variant: str | None) -> None:
    suffix = f".{variant}" if variant else ""
    shard_index = folder / f"diffusion_pytorch_model.safetensors.index{suffix}.json"
    expected = {f"diffusion_pytorch_model{suffix}.safetensors"}
    if shard_index.is_file():
        expected = set(json.loads(shard_index.read_text(encoding="utf-8"))["weight_map"].values())
    missing = sorted(name for name in expected if not (folder / name).is_file())
    if missing:
        raise ValueError(f"'{folder.parent}' is incomplete: {folder.name}/ has no {', '.join(missing)}.")


def check_dataset_folder(folder: str | Path) -> list[Path]:
    """The Parquet files of a training set; a `ValueError` if there are none, or a pickle."""
    folder = Path(folder)
    _refuse_pickles(folder)
    files = sorted(path for path in folder.rglob("*.parquet") if path.is_file())
    if not files:
        raise ValueError(f"'{folder}' holds neither a saved pipeline (model_index.json) nor Parquet files.")
    return files


def _refuse_pickles(folder: Path) -> None:
    if not folder.is_dir():
        raise ValueError(f"'{folder}' is not a folder.")
    pickles = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix.lower() in PICKLES)
    if pickles:
        raise ValueError(
            f"'{folder}' holds {', '.join(pickles)}: such files can run code when they are read. Only safetensors, "
            "JSON and Parquet files are uploaded; take the others out of the folder."
        )


def refuse_tokens(folder: Path, token: str | None) -> None:
    """Raise a `ValueError` if an access token stands in a text that is about to be uploaded."""
    secrets = _secrets(token)
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".md", ".json", ".py"):
            text = path.read_text(encoding="utf-8")
            if TOKEN_PATTERN.search(text) or any(secret in text for secret in secrets):
                raise ValueError(f"{path.name} holds an access token; nothing was uploaded.")


def _secrets(token: str | None) -> set[str]:
    return {secret for secret in (token, get_token()) if isinstance(secret, str)}


@contextmanager
def _no_token_in_errors(token: str | None):
    """An error of the Hub that repeats the token is raised again without what the server said."""
    try:
        yield
    except HfHubHTTPError as error:
        if any(secret in str(error) for secret in _secrets(token)):
            raise HfHubHTTPError(explain(error), response=error.response) from None
        raise


def _full_name(api: HfApi, repo_id: str) -> str:
    return repo_id if "/" in repo_id else f"{api.whoami()['name']}/{repo_id}"


def _summary_on_the_hub(pipe, token: str | None) -> dict | None:
    """The summary of a pipeline that `DiffusionPipeline` loaded from the Hub: it downloads no such file."""
    snapshot = Path(pipe.unet.config.get("_name_or_path") or "").parent
    if snapshot.parent.name != "snapshots" or pipe.name_or_path is None:
        return None
    try:
        path = hf_hub_download(pipe.name_or_path, TRAINING_SUMMARY, revision=snapshot.name, token=token)
    except (EntryNotFoundError, HfHubHTTPError):
        return None
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _leave_out_local_paths(folder: Path) -> None:
    """Folders of the machine that trained are nobody's business: only the last part of their names stays."""
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("_name_or_path", None) is not None:
            write_atomically(path, json.dumps(content, indent=2, sort_keys=True) + "\n")
    path = folder / TRAINING_SUMMARY
    if path.is_file():
        summary = json.loads(path.read_text(encoding="utf-8"))
        for group in [group for run in runs_of(summary) for group in run.get("config", {}).values()]:
            for name, value in group.items():
                if isinstance(value, str) and (Path(value).is_absolute() or value.startswith(("~", "."))):
                    group[name] = Path(value).name
        write_atomically(path, json.dumps(summary, indent=2))


def _draw(pipe, context, path: Path) -> bool:
    """Draw a generated week for the card, if there is a context and matplotlib."""
    import torch

    from ..data.simulated_context import simulate_context, simulate_zones

    try:
        from ..evaluation.plots import plot_zoom, save_figure
    except ModuleNotFoundError:
        return False
    title = "A generated week"
    if context is None:
        side = pipe.hierarchy.spatial_factors[0]
        if not is_simulated(pipe.context_processor) or pipe.hierarchy.config.time_step != 1:
            return False
        context = simulate_context(height=3 * side, width=4 * side, seed=2026)
        zones = simulate_zones(context, seed=2026)
        context |= {name: zones[name] for name in pipe.context_processor.zone_layers}
        title = "A generated week for a simulated city"
    start, hidden = "2026-03-02T00:00", dict(getattr(pipe, "_progress_bar_config", {}))
    pipe.set_progress_bar_config(disable=True)
    try:
        generator = torch.Generator().manual_seed(0)
        levels = pipe(context, start=start, num_samples_per_context=4, generator=generator).levels
    finally:
        pipe.set_progress_bar_config(**hidden)
    first = {name: values[:, 0] for name, values in levels.items()}
    processor = pipe.traffic_processor
    labels = {"unit": processor.units[0], "channel": processor.channels[0], "title": title}
    figure = plot_zoom(first, pipe.hierarchy, start, **labels, y=getattr(context, "coords", {}).get("y"))
    save_figure(figure, path, dpi=72)
    return True
