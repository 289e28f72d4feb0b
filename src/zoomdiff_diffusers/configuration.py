# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Components of a pipeline that consist of configuration only: the hierarchy and the two processors."""

import json
import os
import tempfile
from pathlib import Path

from diffusers.configuration_utils import ConfigMixin
from diffusers.utils import PushToHubMixin


class ConfigurableComponent(ConfigMixin, PushToHubMixin):
    """Base class of components whose whole state is a JSON file, saved and loaded as Diffusers does for schedulers."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, subfolder: str | None = None, **kwargs):
        """
        Load the component from a folder or a Hub repository.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): A folder, or the id of a Hub repository.
            subfolder (`str`, *optional*): Where the component lies inside it, for example "hierarchy".
            kwargs: Options of the download (`revision`, `token`, `cache_dir`, ...); overrides of the configuration.
        """
        config, remaining = cls.load_config(
            pretrained_model_name_or_path, subfolder=subfolder, return_unused_kwargs=True, **kwargs
        )
        return cls.from_config(config, **remaining)

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs):
        """
        Write the configuration into `save_directory`, atomically: an interrupted call leaves the previous file intact.

        Args:
            save_directory (`str` or `os.PathLike`): The folder, created where it does not exist.
            push_to_hub (`bool`, defaults to `False`): Also upload the folder; `kwargs` go to `push_to_hub`.
        """
        self.save_config(os.fspath(save_directory), push_to_hub=push_to_hub, **kwargs)

    def to_json_file(self, json_file_path: str | os.PathLike):
        """Write the configuration to `json_file_path`: to a temporary name first, then renamed."""
        write_atomically(json_file_path, self.to_json_string())

    def update_config(self, **values):
        """Replace configuration values that were computed after construction, for example fitted statistics."""
        defaults = [name for name in self.config.get("_use_default_values", []) if name not in values]
        self.register_to_config(**values, _use_default_values=defaults)


def write_atomically(path: str | os.PathLike, text: str):
    """Write `text` to a temporary file beside `path`, then rename it, so that readers never see half a file."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as writer:
            writer.write(text)
        os.chmod(temporary, 0o644)  # mkstemp makes it readable by its owner alone
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def as_json(value):
    """Return `value` as it would come back from JSON: tuples become lists, NumPy numbers become Python's."""
    return json.loads(json.dumps(value, default=lambda item: item.tolist()))
