# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Named checks that every denoiser of DRDM passes: each takes the model, its inputs by stage and a scratch folder."""

import copy

import torch


def _outputs(model, inputs) -> list[torch.Tensor]:
    with torch.no_grad():
        return [
            model(
                **stage["forward"], context_embedding=model.encode_context(stage["context"], stage["forward"]["level"])
            ).sample
            for stage in inputs
        ]


def check_output_has_shape_and_type_of_sample(model, inputs, tmp_path):
    for stage, output in zip(inputs, _outputs(model, inputs)):
        sample = stage["forward"]["sample"]
        assert output.shape == sample.shape and output.dtype == sample.dtype
        assert torch.isfinite(output).all()


def check_tuple_output_equals_dict_output(model, inputs, tmp_path):
    for stage in inputs:
        with torch.no_grad():
            as_tuple = model(**stage["forward"], return_dict=False)
            as_output = model(**stage["forward"])
        assert isinstance(as_tuple, tuple) and len(as_tuple) == 1
        assert torch.equal(as_tuple[0], as_output.sample)


def check_save_and_load_give_the_same_outputs(model, inputs, tmp_path):
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
    loaded = type(model).from_pretrained(tmp_path)
    kept = {name: value for name, value in model.config.items() if not name.startswith("_")}
    assert {name: value for name, value in loaded.config.items() if not name.startswith("_")} == kept
    for before, after in zip(_outputs(model, inputs), _outputs(loaded, inputs)):
        assert torch.equal(before, after)


def check_from_config_has_the_same_parameters(model, inputs, tmp_path):
    clone = type(model).from_config(model.config)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in clone.state_dict().items()} == shapes


def check_every_parameter_is_trained_by_all_stages_together(model, inputs, tmp_path):
    model = copy.deepcopy(model)
    for stage in inputs:
        embedding = model.encode_context(stage["context"], stage["forward"]["level"])
        model(**stage["forward"], context_embedding=embedding).sample.square().mean().backward()
    untrained = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert untrained == []


def check_gradient_checkpointing_gives_the_same_gradients(model, inputs, tmp_path):
    gradients = []
    for checkpointing in (False, True):
        clone = copy.deepcopy(model)
        if checkpointing:
            clone.enable_gradient_checkpointing()
        for stage in inputs:
            embedding = clone.encode_context(stage["context"], stage["forward"]["level"])
            clone(**stage["forward"], context_embedding=embedding).sample.square().mean().backward()
        gradients.append([parameter.grad for parameter in clone.parameters()])
    for plain, checkpointed in zip(*gradients):
        torch.testing.assert_close(plain, checkpointed)


def check_bfloat16_is_close_to_float32(model, inputs, tmp_path):
    expected = _outputs(model, inputs)
    half = copy.deepcopy(model).to(torch.bfloat16)
    for stage, reference in zip(inputs, expected):
        forward = {
            name: value.to(torch.bfloat16) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
            for name, value in stage["forward"].items()
        }
        forward["timestep"] = stage["forward"]["timestep"]
        with torch.no_grad():
            embedding = half.encode_context(stage["context"].to(dtype=torch.bfloat16), forward["level"])
            output = half(**forward, context_embedding=embedding).sample
        assert output.dtype == torch.bfloat16
        assert (output.float() - reference).norm() < 0.05 * reference.norm()


def check_batch_equals_single_items(model, inputs, tmp_path):
    for stage, together in zip(inputs, _outputs(model, inputs)):
        for index in range(len(together)):
            one = {
                "forward": {
                    name: value[index : index + 1] if isinstance(value, torch.Tensor) else value
                    for name, value in stage["forward"].items()
                },
                "context": stage["context"][index : index + 1],
            }
            torch.testing.assert_close(_outputs(model, [one])[0], together[index : index + 1], rtol=1e-4, atol=1e-5)


def check_compiles_without_graph_breaks(model, inputs, tmp_path):
    for stage in inputs:
        compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)
        with torch.no_grad():
            torch.testing.assert_close(compiled(**stage["forward"]).sample, model(**stage["forward"]).sample)


MODEL_CHECKS = [
    check_output_has_shape_and_type_of_sample,
    check_tuple_output_equals_dict_output,
    check_save_and_load_give_the_same_outputs,
    check_from_config_has_the_same_parameters,
    check_every_parameter_is_trained_by_all_stages_together,
    check_gradient_checkpointing_gives_the_same_gradients,
    check_bfloat16_is_close_to_float32,
    check_batch_equals_single_items,
    check_compiles_without_graph_breaks,
]
