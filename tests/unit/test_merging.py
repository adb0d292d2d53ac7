"""A merged adapter gives the vectors of the unmerged peft model, and the temperature stays."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from published import released
from umr.cli import main
from umr.errors import ModelError
from umr.models import parts
from umr.models.embedder import Embedder
from umr.models.merging import merge
from umr.models.settings import ModelSettings
from umr.rendering.template import BUILT_IN

ITEMS = [tiny.sample_items()[name] for name in ("text", "image+text")]


def trained(folder: Path, base: Path, **settings: Any) -> np.ndarray:
    """Save an adapter with random weights, and give the vectors of the peft model that it was saved from."""
    model = Embedder.load(base, device="cpu", **settings)
    network = parts.add_lora(model.engine.model.network, 4, 8, 0.0, ["language"])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".lora_" in name:
                parameter.normal_(0, 0.1, generator=generator)
    model.engine.model.network = network.eval()
    network.save_pretrained(folder)
    return model.encode(ITEMS)


def change(folder: Path, edit) -> None:
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    edit(state)
    save_file(state, path, {"format": "pt"})


def test_the_vectors_of_the_unmerged_model(tmp_path: Path):
    base = tiny.checkpoint("qwen2-vl")
    expected = trained(tmp_path / "adapter", base)
    assert merge(base, tmp_path / "adapter", tmp_path / "out") == []
    merged = Embedder.load(tmp_path / "out")
    np.testing.assert_allclose(merged.encode(ITEMS), expected, atol=1e-5)
    assert np.abs(expected - Embedder.load(base).encode(ITEMS)).max() > 0.01
    assert merged.engine.model.settings.temperature is None


def test_an_adapter_of_the_class_with_a_head(tmp_path: Path):
    """As transformers 4 named its layers, and with the temperature where peft keeps trained modules."""
    base = tiny.checkpoint("qwen2-vl")
    expected = trained(tmp_path / "adapter", base)

    def rename(state: dict[str, torch.Tensor]) -> None:
        for name in list(state):
            state[name.replace("base_model.model.language_model.", "base_model.model.model.")] = state.pop(name)
        state["base_model.model.sim.temp"] = torch.tensor(0.0312)

    change(tmp_path / "adapter", rename)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    config |= {"target_modules": ["q_proj", "k_proj"], "modules_to_save": ["sim"], "task_type": "TOKEN_CLS"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    merge(base, tmp_path / "adapter", tmp_path / "out")
    merged = Embedder.load(tmp_path / "out")
    np.testing.assert_allclose(merged.encode(ITEMS), expected, atol=1e-5)
    assert merged.engine.model.settings.temperature == 0.0312


def test_settings_beside_the_adapter_win(tmp_path: Path):
    base, folder = tiny.checkpoint("qwen2-vl"), tmp_path / "adapter"
    expected = trained(folder, base, attention="causal", positions="flat", template="umarvel", max_tokens=512)
    own = ModelSettings("causal", "flat", "mean", None, 512, 0.021, "joined")
    own.save(folder)
    BUILT_IN["umarvel"].save(folder)
    merge(base, folder, tmp_path / "out")
    assert ModelSettings.load(tmp_path / "out") == own
    np.testing.assert_allclose(Embedder.load(tmp_path / "out").encode(ITEMS), expected, atol=1e-5)


@pytest.mark.parametrize(("of_base", "of_adapter", "kept"), [(0.04, None, 0.04), (0.04, 0.03, 0.03), (None, 0.03, 0.03)])
def test_whose_temperature_is_kept(of_base: float | None, of_adapter: float | None, kept: float, tmp_path: Path):
    base = tiny.copy_of(tiny.checkpoint("qwen2-vl"), "base")
    settings = ModelSettings(pooling="last")
    replace(settings, temperature=of_base).save(base)
    trained(tmp_path / "adapter", base)
    if of_adapter is not None:
        replace(settings, temperature=of_adapter).save(tmp_path / "adapter")
    merge(base, tmp_path / "adapter", tmp_path / "out")
    assert ModelSettings.load(tmp_path / "out") == replace(settings, temperature=kept)


def strange(state: dict[str, torch.Tensor]) -> None:
    state["base_model.model.score.weight"] = torch.ones(2)


def elsewhere(state: dict[str, torch.Tensor]) -> None:
    name = next(name for name in state if "layers.0" in name)
    state[name.replace("layers.0", "layers.99")] = state.pop(name)


def half(state: dict[str, torch.Tensor]) -> None:
    del state[next(name for name in state if "lora_B" in name)]


def misshapen(state: dict[str, torch.Tensor]) -> None:
    name = next(name for name in state if "lora_A" in name)
    state[name] = torch.ones(4, 3)


def not_finite(state: dict[str, torch.Tensor]) -> None:
    state[next(name for name in state if "lora_B" in name)].fill_(torch.nan)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (strange, "holds base_model.model.score.weight, which is no LoRA matrix"),
        (elsewhere, r"adapts language_model.layers.99.*, which this base does not have"),
        (half, "lacks 1 of its tensors"),
        (misshapen, "does not fit this base"),
        (not_finite, "cannot be folded in"),
        (dict.clear, "holds no LoRA matrices"),
    ],
)
def test_adapters_that_are_refused(edit, says: str, tmp_path: Path):
    trained(tmp_path / "adapter", tiny.checkpoint("qwen2-vl"))
    change(tmp_path / "adapter", edit)
    with pytest.raises(ModelError, match=says) as error:
        merge(tiny.checkpoint("qwen2-vl"), tmp_path / "adapter", tmp_path / "out")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_folders_that_are_refused(tmp_path: Path):
    adapter = tmp_path / "adapter"
    trained(adapter, tiny.checkpoint("qwen2-vl"))
    with pytest.raises(ModelError, match="exists already"):
        merge(tiny.checkpoint("qwen2-vl"), adapter, tmp_path)
    with pytest.raises(ModelError, match="not a peft adapter"):
        merge(tiny.checkpoint("qwen2-vl"), tiny.checkpoint("qwen2-vl"), tmp_path / "out")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"pickled \(adapter_model.bin\)"):
        merge(tiny.checkpoint("qwen2-vl"), adapter, tmp_path / "out")
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(ModelError, match="only LORA adapters"):
        merge(tiny.checkpoint("qwen2-vl"), adapter, tmp_path / "out")


def test_weights_stay_in_the_type_they_are_kept_in(tmp_path: Path):
    base = tmp_path / "base"
    Embedder.load(tiny.checkpoint("qwen2-vl"), dtype="bfloat16").save(base)
    trained(tmp_path / "adapter", base)
    merge(base, tmp_path / "adapter", tmp_path / "out")
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}


def test_the_command_on_a_released_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """An imported checkpoint is a base like any other, and stays in exact-compatibility mode."""
    assert main(["import", "umarvel", str(released()), str(tmp_path / "base")]) == 0
    expected = trained(tmp_path / "adapter", tmp_path / "base")
    assert main(["merge", str(tmp_path / "base"), str(tmp_path / "adapter"), str(tmp_path / "out")]) == 0
    assert "positions='flat'" in capsys.readouterr().out.replace("\n", " ")
    assert ModelSettings.load(tmp_path / "out") == ModelSettings.load(tmp_path / "base")
    np.testing.assert_allclose(Embedder.load(tmp_path / "out").encode(ITEMS), expected, atol=1e-5)
