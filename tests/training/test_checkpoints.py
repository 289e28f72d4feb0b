# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import pytest
import torch

from zoomdiff_diffusers.training.checkpoints import (
    changed_settings,
    find_checkpoint,
    flatten_optimizer,
    list_checkpoints,
    read_state,
    read_tensors,
    restore_optimizer,
    save_checkpoint,
)


def test_only_the_newest_complete_checkpoints_stay(tmp_path):
    for step in (5, 9, 10, 100):
        save_checkpoint(
            tmp_path, step, {"unet": {"weight": torch.full((2, 3), step)}}, {"seconds": 1.5}, total_limit=2
        )
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-100"]
    assert read_state(tmp_path / "checkpoint-100") == {"step": 100, "seconds": 1.5}
    assert torch.equal(read_tensors(tmp_path / "checkpoint-100", "unet")["weight"], torch.full((2, 3), 100))
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


def test_a_half_written_checkpoint_is_ignored_and_replaced(tmp_path):
    save_checkpoint(tmp_path, 5, {"unet": {"weight": torch.ones(2)}}, {}, total_limit=3)
    with pytest.raises(AttributeError):  # a crash in the middle of writing
        save_checkpoint(tmp_path, 8, {"unet": {"weight": torch.ones(2)}, "ema": {"weight": "not a tensor"}}, {}, 3)
    (tmp_path / "checkpoint-7").mkdir()  # no state.json: copied only in part
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "checkpoint-5"
    with pytest.raises(ValueError, match="not a complete checkpoint"):
        find_checkpoint(tmp_path, str(tmp_path / "checkpoint-7"))
    save_checkpoint(tmp_path, 8, {"unet": {"weight": torch.zeros(2)}}, {}, 3)
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "checkpoint-8"
    assert sorted(path.name for path in (tmp_path / "checkpoint-8").iterdir()) == ["state.json", "unet.safetensors"]
    with pytest.raises(ValueError, match="holds no complete checkpoint"):
        find_checkpoint(tmp_path / "elsewhere", "latest")


def save(folder, step, limit, value=1.0):
    return save_checkpoint(folder, step, {"unet": {"weight": torch.full((2,), value)}}, {}, limit)


def test_later_steps_of_a_branch_that_was_left_go_with_the_first_checkpoint_of_the_new_one(tmp_path):
    for step in (1000, 2000, 3000):
        save(tmp_path, step, limit=3)
    assert save(tmp_path, 1100, limit=2) == find_checkpoint(tmp_path, "latest") == tmp_path / "checkpoint-1100"
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-1000", "checkpoint-1100"]
    save(tmp_path, 1100, limit=2, value=2.0)  # the run was taken back once more
    assert read_tensors(tmp_path / "checkpoint-1100", "unet")["weight"].tolist() == [2.0, 2.0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1000", "checkpoint-1100"]


def test_nothing_is_deleted_before_the_new_checkpoint_is_complete(tmp_path):
    for step in (1000, 2000):
        save(tmp_path, step, limit=2)
    with pytest.raises(AttributeError):  # a crash in the middle of writing
        save_checkpoint(tmp_path, 1000, {"unet": {"weight": "not a tensor"}}, {}, 1)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-1000", "checkpoint-2000"]
    assert read_tensors(tmp_path / "checkpoint-1000", "unet")["weight"].tolist() == [1.0, 1.0]


def test_a_half_deleted_checkpoint_is_not_taken_for_a_complete_one(tmp_path, monkeypatch):
    for step in (1000, 2000):
        save(tmp_path, step, limit=2)

    def killed(folder, ignore_errors=False):
        if folder.name == "checkpoint-2000":
            raise KeyboardInterrupt

    monkeypatch.setattr("zoomdiff_diffusers.training.checkpoints.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 1100, limit=2)
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "checkpoint-1100"


def test_the_optimizer_comes_back_to_the_bit():
    def run(steps, tensors=None):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        names = ["weight", "bias"]
        groups = [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=0.1, fused=True)
        if tensors is not None:
            model.load_state_dict({name: tensors.pop(name) for name in names})
            restore_optimizer(optimizer, names, tensors)
        for step in steps:
            optimizer.zero_grad()
            inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            model(inputs).square().sum().backward()
            optimizer.step()
        return {**model.state_dict(), **flatten_optimizer(optimizer, names)}

    whole = run(range(6))
    half = {name: value.clone() for name, value in run(range(3)).items()}
    resumed = run(range(3, 6), half)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_changed_settings_are_named():
    saved = {"training": {"seed": 0, "max_train_steps": 5}, "data": {"dataset": "a"}}
    current = {"training": {"seed": 1, "max_train_steps": 9}, "data": {"dataset": "a"}}
    assert changed_settings(saved, current, {"max_train_steps"}) == ["training.seed: 0 -> 1"]
