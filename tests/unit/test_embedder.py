import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny import FAMILIES, INSTRUCTION, checkpoint, copy_of, embedder, film, picture, sample_items, text_checkpoint
from umr.errors import MediaError, ModelError, RenderError, UmrError
from umr.items import Item, Video
from umr.models.embedder import Embedder
from umr.protocols import Encoder
from umr.rendering.template import CHAT, Template, umarvel

SRC = Path(__file__).parents[2] / "src"


def items() -> list[Item]:
    return list(sample_items().values())


# --- encoding


@pytest.mark.parametrize("family", FAMILIES)
def test_unit_vectors_in_input_order(family: str):
    model = embedder(family)
    rows = items() * 8  # more than one block of the background thread
    vectors = model.encode(rows)
    assert isinstance(model, Encoder)
    assert vectors.dtype == np.float32 and vectors.shape == (len(rows), model.dimension) == (len(rows), 128)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
    for place in (0, 20, 50, len(rows) - 1):
        assert np.abs(model.encode([rows[place]])[0] - vectors[place]).max() <= 1e-5
    assert np.array_equal(model.encode(rows), vectors), "the same call gives the same bytes"


def test_nothing_gives_nothing():
    out = embedder("qwen3-vl").encode([])
    assert out.shape == (0, 128) and out.dtype == np.float32
    assert embedder("qwen3-vl", dimension=32).encode([], "query", []).shape == (0, 32)


def test_any_sequence_of_items():
    model = embedder("qwen3-vl")
    assert np.array_equal(model.encode(tuple(items())), model.encode(items()))
    with pytest.raises(RenderError, match=r"encode takes items, not str; write Item\.of\(text="):
        model.encode(["a red circle"])


def test_instructions():
    model = embedder("qwen3-vl")
    rows = items()[:3]
    one, each = model.encode(rows, "query", INSTRUCTION), model.encode(rows, "query", [INSTRUCTION] * 3)
    assert np.array_equal(one, each)
    with pytest.raises(ModelError, match="2 instructions for 3 items"):
        model.encode(rows, "query", [None, None])
    with pytest.raises(RenderError, match="query side"):
        model.encode(rows, "candidate", INSTRUCTION)


def test_an_error_in_one_item_names_it(tmp_path: Path):
    bad = tmp_path / "broken.jpg"
    bad.write_bytes(b"not an image")
    with pytest.raises(MediaError, match=r"broken\.jpg"):
        embedder("qwen3-vl").encode([*items(), Item.of(image=bad)])


def test_dimension_is_a_scaled_prefix():
    full, short = embedder("qwen3-vl").encode(items()), embedder("qwen3-vl", dimension=32)
    prefix = full[:, :32] / np.linalg.norm(full[:, :32], axis=1, keepdims=True)
    assert short.dimension == 32 and np.abs(short.encode(items()) - prefix).max() < 1e-6


def test_max_pixels_bounds_images_and_frames():
    bounded = embedder("qwen3-vl", max_pixels=64 * 64)
    rows = [Item.of(image=picture(300, 200)), Item.of(video=Video(film(4, 300, 200), fps=2.0))]
    for row in bounded.engine.prepare(rows, "candidate", [None, None]):
        (block,) = row.blocks
        assert block.grid[1] * block.grid[2] * 16**2 <= 64 * 64
    enlarged = embedder("qwen3-vl", min_pixels=200 * 200)
    (row,) = enlarged.engine.prepare([Item.of(image=picture(64, 64))], "candidate", [None])
    assert row.blocks[0].grid[1] * row.blocks[0].grid[2] * 16**2 >= 200 * 200


# --- fingerprint


def test_fingerprint_is_stable():
    assert Embedder.load(checkpoint("qwen3-vl")).fingerprint == embedder("qwen3-vl").fingerprint
    model = Embedder.load(checkpoint("qwen3-vl"))
    first = model.fingerprint
    model.encode(items(), "query", INSTRUCTION)
    del model.__dict__["fingerprint"]
    assert model.fingerprint == first, "using a model does not change it"
    assert Embedder.load(checkpoint("qwen3-vl"), template=Template("other name", *layouts(CHAT))).fingerprint == first
    # Neither the kernel nor the packing changes a vector beyond rounding.
    assert embedder("qwen3-vl", kernel="eager").fingerprint == first
    assert Embedder.load(checkpoint("qwen3-vl"), batch_tokens=100).fingerprint == first


def layouts(template: Template) -> tuple[str, str, str]:
    return template.with_instruction, template.without_instruction, template.default_instruction


def test_fingerprint_differs_with_everything_a_vector_depends_on():
    settings: list[dict[str, Any]] = [
        {},
        {"template": "umarvel"},
        {"template": umarvel(generation_prompt=True)},
        {"attention": "causal"},
        {"positions": "flat"},
        {"pooling": "last"},
        {"dimension": 32},
        {"max_tokens": 100},
        {"min_pixels": 128 * 128},
        {"max_pixels": 64 * 64},
        {"dtype": "bfloat16"},
    ]
    prints = [embedder("qwen3-vl", **each).fingerprint for each in settings]
    prints += [embedder(family).fingerprint for family in FAMILIES[:2]]
    assert len(set(prints)) == len(prints)
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in prints)


def test_fingerprint_differs_with_one_weight(tmp_path: Path):
    folder = copy_of(checkpoint("qwen3-vl"), "weights")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "deepstack" in name)
    tensors[name].view(-1)[0] += 1e-3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert Embedder.load(folder).fingerprint != embedder("qwen3-vl").fingerprint


def test_saving_refreshes_the_fingerprint_after_training(tmp_path: Path):
    model = Embedder.load(checkpoint("qwen3-vl"))
    before = model.fingerprint
    with torch.no_grad():
        next(model.engine.model.network.parameters()).add_(0.01)
    model.save(tmp_path / "model")
    assert model.fingerprint == Embedder.load(tmp_path / "model").fingerprint != before


def test_the_temperature_is_kept_and_changes_no_vector(tmp_path: Path):
    from dataclasses import replace

    model = Embedder.load(checkpoint("qwen3-vl"))
    model.engine.model.settings = replace(model.engine.model.settings, temperature=0.03)
    model.save(tmp_path / "model")
    again = Embedder.load(tmp_path / "model")
    assert again.engine.model.settings.temperature == 0.03 and again.fingerprint == embedder("qwen3-vl").fingerprint


# --- settings of a folder


def test_a_folder_knows_its_settings_and_arguments_override_them(tmp_path: Path):
    first = Embedder.load(
        checkpoint("qwen2-vl"), template="umarvel", attention="causal", positions="flat", pooling="last", dimension=16, max_tokens=77
    )
    first.save(tmp_path / "model")
    again = Embedder.load(tmp_path / "model")
    assert again.engine.model.settings == first.engine.model.settings
    assert again.engine.model.network.config.get_text_config().is_causal is True
    assert again.engine.renderer.template == umarvel() and again.engine.renderer.max_tokens == 77
    other = Embedder.load(tmp_path / "model", attention="bidirectional", pooling="mean", dimension=64)
    assert other.engine.model.settings.positions == "flat" and other.dimension == 64
    assert other.engine.model.network.config.get_text_config().is_causal is False


def test_new_models_are_bidirectional():
    assert embedder("qwen2-vl").engine.model.network.config.get_text_config().is_causal is False


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close(tmp_path: Path, dtype: str):
    model = embedder("qwen3-vl", dtype=dtype)
    vectors = model.encode(items())
    assert vectors.dtype == np.float32
    assert (vectors * embedder("qwen3-vl").encode(items())).sum(1).min() > 0.99
    model.save(tmp_path / "model")
    assert np.array_equal(Embedder.load(tmp_path / "model", dtype=dtype).encode(items()), vectors)


# --- text-only backbones


def test_a_text_backbone_with_an_instruction():
    model = Embedder.load(text_checkpoint())
    assert model.engine.renderer.template.name == "plain" and model.dimension == 64
    rows = [Item.of(text="a red circle"), Item.of(text="two of them moving over the scene " * 9), Item.of(text="make it blue")]
    together = model.encode(rows, "query", INSTRUCTION)
    alone = np.concatenate([model.encode([row], "query", INSTRUCTION) for row in rows])
    assert np.abs(together - alone).max() <= 1e-5
    assert np.abs(together - model.encode(rows, "query")).max(1).min() > 1e-3, "the instruction is attended to"
    eager = Embedder.load(text_checkpoint(), kernel="eager").encode(rows, "query", INSTRUCTION)
    assert np.abs(eager - together).max() <= 1e-5


def test_a_text_backbone_averages_the_text_alone():
    from transformers import AutoModel, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(text_checkpoint()), AutoModel.from_pretrained(text_checkpoint())
    network.config.is_causal = False
    whole = tokenizer(f"{INSTRUCTION} make it blue", return_tensors="pt", return_offsets_mapping=True)
    ends_L = whole.pop("offset_mapping")[0, :, 1]
    with torch.inference_mode():
        hidden_LD = network(**whole).last_hidden_state[0]
    mean_D = hidden_LD[ends_L > len(INSTRUCTION) + 1].mean(0)
    vector = Embedder.load(text_checkpoint()).encode([Item.of(text="make it blue")], "query", INSTRUCTION)[0]
    assert np.abs(vector - (mean_D / mean_D.norm()).numpy()).max() <= 1e-5
    causal = Embedder.load(text_checkpoint(), attention="causal").encode([Item.of(text="make it blue")], "query", INSTRUCTION)[0]
    assert np.abs(causal - vector).max() > 1e-3


def test_a_text_backbone_refuses_media():
    with pytest.raises(RenderError, match="reads text only"):
        Embedder.load(text_checkpoint()).encode([Item.of(image=picture(64, 64))])


# --- mistakes


def the_error(*arguments: Any, **settings: Any) -> str:
    with pytest.raises(UmrError) as caught:
        Embedder.load(*arguments, **settings)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600, text
    return text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pooling": "max"}, "pooling='max'; use one of mean, last, token_before_emb"),
        ({"attention": "both"}, "attention='both'; use one of bidirectional, causal"),
        ({"positions": "2d"}, "positions='2d'; use one of mrope, flat"),
        ({"dimension": 129}, "dimension=129 must lie between 1 and the hidden size, 128"),
        ({"dimension": 0}, "dimension=0"),
        ({"dimension": -3}, "dimension=-3"),
        ({"max_tokens": 3}, "max_tokens=3 is too short"),
        ({"dtype": "float64"}, "dtype='float64'; use one of"),
        ({"kernel": "warp"}, "warp"),
        ({"batch_tokens": 0}, "batch_tokens=0"),
        ({"device": "nonsense"}, "device='nonsense'"),
        ({"min_pixels": 10**7, "max_pixels": 100}, "min_pixels=10000000 is above max_pixels=100"),
        ({"template": "chatty"}, "unknown template 'chatty'"),
        ({"template": Path("no/such/file.json")}, "no/such/file.json"),
        ({"pooling": "token_before_emb"}, "<emb>"),
        ({"revision": "main"}, "revision='main' has no effect on a folder"),
    ],
    ids=str,
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str):
    assert words in the_error(checkpoint("qwen3-vl"), **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_here():
    assert "device='cuda'" in the_error(checkpoint("qwen3-vl"), device="cuda")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"positions": "flat"}, "positions='flat' has no effect"),
        ({"min_pixels": 100}, "reads text only"),
        ({"max_pixels": 10**6}, "reads text only"),
        ({"dimension": 65}, "the hidden size, 64"),
    ],
    ids=str,
)
def test_settings_without_effect_on_a_text_backbone(settings: dict[str, Any], words: str):
    assert words in the_error(text_checkpoint(), **settings)


def test_folders_that_are_no_models(tmp_path: Path):
    assert "neither a folder here nor a model that can be fetched" in the_error(tmp_path / "missing")
    assert "neither a folder here" in the_error("no/such/thing/at/all")
    (tmp_path / "empty").mkdir()
    assert "no config.json" in the_error(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    assert "no config.json" in the_error(tmp_path / "file")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_type": "no_such_family"}'])
def test_an_unreadable_config(content: str):
    folder = copy_of(checkpoint("qwen3-vl"), "config")
    (folder / "config.json").write_text(content)
    assert str(folder) in the_error(folder)


def test_a_folder_without_a_processor():
    folder = copy_of(checkpoint("qwen3-vl"), "processor")
    for name in ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)
    assert "the processor or tokenizer cannot be loaded" in the_error(folder)
    folder = copy_of(checkpoint("qwen3-vl"), "tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    assert "the processor or tokenizer cannot be loaded" in the_error(folder)


def test_weights_that_are_missing_broken_or_incomplete():
    folder = copy_of(checkpoint("qwen3-vl"), "weights")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("q_proj.weight"))
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, file, metadata={"format": "pt"})
    assert "lack 1 tensors" in the_error(folder) and name in the_error(folder)
    save_file({**tensors, name: tensors[name][:, :5].clone()}, file, metadata={"format": "pt"})
    assert "cannot be loaded" in the_error(folder)
    file.write_bytes(b"\x00" * 100)
    assert "cannot be loaded" in the_error(folder)
    file.unlink()
    assert "cannot be loaded" in the_error(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"colour": "red"}', '{"dimension": "64"}', '{"max_tokens": "9"}', '{"pooling": 3}'])
def test_a_damaged_settings_file(content: str):
    folder = copy_of(checkpoint("qwen3-vl"), "settings")
    (folder / "umr.json").write_text(content)
    assert str(folder) in the_error(folder)


def test_a_damaged_template_file():
    folder = copy_of(checkpoint("qwen3-vl"), "template")
    (folder / "template.json").write_text(json.dumps({"name": "x"}))
    assert "template.json: not a template file" in the_error(folder)


def test_without_network_a_hub_id_is_one_clear_error():
    """In a process of its own, with the hub's address pointing nowhere and nothing told to stay offline."""
    code = """
import sys
from umr.errors import ModelError
from umr.models.embedder import Embedder
try:
    Embedder.load("Qwen/Qwen3-VL-Embedding-2B")
except ModelError as error:
    sys.stdout.write(str(error))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"PYTHONPATH": str(SRC), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("Qwen/Qwen3-VL-Embedding-2B: neither a folder here nor a model that can be fetched (")
    assert "\n" not in done.stdout


def test_a_hub_id_brings_its_settings_and_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The hub's cache on disk is laid out by hand; everything else is the real client, offline."""
    from huggingface_hub import constants

    model = Embedder.load(checkpoint("qwen3-vl"), template="umarvel", dimension=16)
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    model.save(repository / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for revision in (None, "main", commit):
        again = Embedder.load("someone/tiny", revision=revision)
        assert again.fingerprint == model.fingerprint
    assert np.array_equal(again.encode(items()), model.encode(items()))
    assert "neither a folder here" in the_error("someone/tiny", revision="other")
