# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
from pathlib import Path

import pytest
import yaml

from zoomdiff_diffusers.training.arguments import parse_arguments


CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_command_line_overrides_the_file_and_the_file_the_defaults(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "model: {unet: {embedding_dim: 32}}\n"
        "data: {flips: false, smooth_layers: [1, 2.5], train_region: {columns: [0, 20]}}\n"
        "training: {learning_rate: 1e-4, batch_size: 12, max_train_seconds: null, stage_items: [12, 6, 6, 3]}\n"
    )
    words = ["--config", str(file), "--batch_size", "24", "--layers", '[{"name": "poi", "kind": "count"}]']
    arguments = parse_arguments(words + ["--smooth_layers", "3", "--boundaries", "400", "200", "100", "0"])
    assert arguments.training.learning_rate == 1e-4  # PyYAML reads 1e-4 as a string
    assert arguments.training.batch_size == 24
    assert arguments.training.stage_items == [12, 6, 6, 3]
    assert arguments.training.max_train_seconds is None
    assert arguments.training.warmup_steps == parse_arguments([]).training.warmup_steps
    assert arguments.data.flips is False and arguments.data.smooth_layers == [3.0]
    assert arguments.data.train_region == {"columns": [0, 20]}
    assert arguments.data.layers == [{"name": "poi", "kind": "count"}]
    assert arguments.model.unet == {"embedding_dim": 32}
    assert arguments.scheduler.boundaries == [400, 200, 100, 0]
    assert yaml.safe_load(yaml.safe_dump(arguments.to_dict())) == arguments.to_dict()


@pytest.mark.parametrize(
    "content, words, message",
    [
        ("training: {learning_rat: 0.1}", [], "`learning_rat`. Did you mean `learning_rate`?"),
        ("trainin: {learning_rate: 0.1}", [], "`trainin`. Did you mean `training`?"),
        ("data: {learning_rate: 0.1}", [], "key in section `data`"),
        ("training: 3", [], "`training`"),
        ("[1, 2]", [], "must hold sections"),
        ("{}", ["--batchsize", "3"], "`batchsize`. Did you mean `batch_size`?"),
        ("{}", ["--crop_hour=3"], "`crop_hour`. Did you mean `crop_hours`?"),
        ("{}", ["stray"], "stray"),
        ("training: {batch_size: 0}", [], "`batch_size` must be positive"),
        ("training: {max_train_seconds: 0}", [], "`max_train_seconds` must be positive"),
        ("training: {regression_steps: -1}", [], "`regression_steps` must not be negative"),
        ("training: {regression_learning_rate: 0}", [], "`regression_learning_rate` must be positive"),
        ("training: {layer_dropout: 1.5}", [], "`layer_dropout` must lie in"),
        ("training: {layer_dropout_of: {poi: -0.1}}", [], "`layer_dropout_of.poi` must lie in"),
        ("data: {start_hour: 168}", [], "`start_hour`"),
        ("hierarchy: {temporal_scales: [24, 1]}", [], "`spatial_scales` and `temporal_scales`"),
        ("hierarchy: {rgp: uniform}", [], "`rgp` combines `spatial_scales` and `temporal_scales`"),
        ("hierarchy: {levels: []}", ["--rgp", "coarse"], "must be left out, but is 'coarse'"),
        ("training: {validation_samples: 1}", [], "`validation_samples`"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, content, words, message):
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(ValueError) as error:
        parse_arguments(["--config", str(file), *words])
    assert message in str(error.value)


def test_wrong_types_and_missing_files_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--batch_size", "many"])
    assert "batch_size" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no file"):
        parse_arguments(["--config", str(tmp_path / "missing.yaml")])


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.yaml")))
def test_every_shipped_config_is_valid(name):
    arguments = parse_arguments(["--config", str(CONFIGS / name)])
    assert arguments.training.output_dir == f"runs/{Path(name).stem}"
