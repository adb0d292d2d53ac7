"""NV-Embed with LLaVA-NeXT's eyes: the parts of a released MM-Embed, taken apart, make the same model again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import published_nvidia
from tiny import checkpoint, copy_of, picture
from umr.errors import ModelError
from umr.items import Item
from umr.models.embedder import Embedder
from umr.models.importing import import_checkpoint
from umr.rendering.template import MM_EMBED_PUBLISHED

ITEMS = [Item.of(text="a ring on the left"), Item.of(image=picture(40, 60, 1)), Item.of(image=picture(50, 50, 2), text="two of them")]


def all_weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The language model and pooling of the released MM-Embed as an NV-Embed, and its eyes as a LLaVA-NeXT with another language model."""
    root, whole = tmp_path_factory.mktemp("parts"), published_nvidia.mm_embed()
    weights, text, eyes = all_weights(whole), root / "nv-embed", root / "llava"
    text.mkdir()
    rows = len(weights["language_model.embed_tokens.weight"])
    (text / "config.json").write_text(json.dumps(published_nvidia.nv_config(rows)), "utf-8")
    published_nvidia.tokenizer(text)
    language = {name: tensor for name, tensor in weights.items() if name.startswith("latent_attention_model.")}
    for name, tensor in weights.items():
        if name.startswith("language_model."):
            language[name.replace("language_model.", "embedding_model.")] = tensor
    save_file(language, text / "model.safetensors", {"format": "pt"})
    shutil.copytree(whole, eyes)
    for file in eyes.glob("model*"):
        file.unlink()
    config = json.loads((whole / "config.json").read_text("utf-8"))
    config["text_config"]["vocab_size"] = rows
    del config["auto_map"], config["retriever"]
    (eyes / "config.json").write_text(json.dumps(config), "utf-8")
    seen = {name: tensor for name, tensor in weights.items() if not name.startswith("latent_attention_model.")}
    seen = {name: torch.randn_like(tensor) if name.startswith("language_model.") else tensor for name, tensor in seen.items()}
    save_file(seen, eyes / "model.safetensors", {"format": "pt"})
    return text, eyes


def test_the_parts_of_a_release_make_it_again(parts: tuple[Path, Path], tmp_path: Path):
    import_checkpoint("mm-embed", published_nvidia.mm_embed(), tmp_path / "released")
    import_checkpoint("nv-embed", parts[0], tmp_path / "made", eyes=parts[1])
    released = Embedder.load(tmp_path / "released")
    made = Embedder.load(tmp_path / "made", template=MM_EMBED_PUBLISHED)
    for instruction in (None, "Find it."):
        vectors = [model.encode(ITEMS, "candidate" if instruction is None else "query", instruction) for model in (made, released)]
        assert np.abs(vectors[0] - vectors[1]).max() < 1e-5
    again = Embedder.load(tmp_path / "made").engine
    assert again.model.settings.pooling == "latent" and again.renderer.template.name == "mm-embed"


def test_parts_that_do_not_fit(parts: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(ModelError, match="eyes have no effect on mm-embed"):
        import_checkpoint("mm-embed", published_nvidia.mm_embed(), tmp_path / "a", eyes=parts[1])
    with pytest.raises(ModelError, match="the eyes come from a LLaVA-NeXT"):
        import_checkpoint("nv-embed", parts[0], tmp_path / "b", eyes=checkpoint("qwen3-vl"))
    other = copy_of(parts[0], "other")
    tokens = json.loads((other / "tokenizer.json").read_text("utf-8"))
    vocabulary = tokens["model"]["vocab"]
    first, second = [token for token in vocabulary if len(token) == 1][:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokens), "utf-8")
    with pytest.raises(ModelError, match="numbers 2 tokens unlike"):
        import_checkpoint("nv-embed", other, tmp_path / "c", eyes=parts[1])
    assert not any((tmp_path / name).exists() for name in "abc")
