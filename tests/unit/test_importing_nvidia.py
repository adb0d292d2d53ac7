"""What the imports of NV-Embed and MM-Embed write down, and what they refuse. The vectors: tests/numerics/test_published_nvidia.py."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from published_nvidia import LATENT_HEADS, LATENT_WIDTH, LATENTS, MULTIPLIER, mm_embed, nv_config, nv_embed
from umr.cli import main
from umr.errors import ModelError
from umr.items import Item
from umr.models.embedder import Embedder
from umr.models.importing import import_checkpoint
from umr.models.latent_attention import LatentSizes
from umr.models.pooling import WEIGHTS
from umr.models.settings import ModelSettings
from umr.rendering.template import MM_EMBED_PUBLISHED

SIZES = LatentSizes(LATENTS, LATENT_HEADS, LATENT_WIDTH, MULTIPLIER)
RELEASES = {"nv-embed": nv_embed, "mm-embed": mm_embed}
LATENT = "latent_attention_model."


def broken(kind: str) -> Path:
    return tiny.copy_of(RELEASES[kind](), kind)


def reconfigure(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def change_weights(folder: Path, change) -> None:
    """Rewrite the shards as one file, after `change` has had the tensors."""
    state = {}
    for file in sorted(folder.glob("*.safetensors")):
        state |= load_file(file)
        file.unlink()
    (folder / "model.safetensors.index.json").unlink()
    change(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("kind", RELEASES)
def test_what_is_written_down(kind: str, tmp_path: Path):
    done = import_checkpoint(kind, RELEASES[kind](), tmp_path / "out")  # type: ignore[arg-type]
    assert (done.temperature, done.added_tokens, done.new_rows) == (None, (), 0 if kind == "nv-embed" else 2)
    assert ModelSettings.load(done.folder) == ModelSettings(pooling="latent", latent=SIZES, max_tokens=4096)
    config = json.loads((done.folder / "config.json").read_text())
    text = config.get("text_config", config)
    assert text["is_causal"] is False and text["sliding_window"] is None and text["rope_parameters"]["rope_theta"] == 10_000
    assert not {"auto_map", "retriever", "global_image_patch_only", "padding_side", "add_eos_token"} & set(config)
    before, after, pooling = weights(RELEASES[kind]()), weights(done.folder), load_file(done.folder / WEIGHTS)
    assert done.parameters == sum(tensor.numel() for tensor in (*after.values(), *pooling.values()))
    assert torch.equal(pooling["to_key_value.weight"], before[f"{LATENT}cross_attend_blocks.0.fn.to_kv.weight"])
    model = Embedder.load(done.folder)
    names = [name for name in after if name.endswith("embed_tokens.weight")]
    rows_VD, old_VD = after[names[0]], next(tensor for name, tensor in before.items() if name.endswith("embed_tokens.weight"))
    assert torch.equal(rows_VD[: len(old_VD)], old_VD)
    if kind == "mm-embed":
        tokenizer = model.engine.renderer.tokenizer
        assert tokenizer.convert_ids_to_tokens([len(old_VD), len(old_VD) + 1]) == ["<image>", "<pad>"]
        assert torch.equal(rows_VD[len(old_VD) + 1], old_VD[2]), "padding is looked up as the end of the text"
        assert model.engine.renderer.template == MM_EMBED_PUBLISHED
    again = Embedder.load(done.folder)
    reasons = again.save(tmp_path / "again")
    assert reasons and Embedder.load(tmp_path / "again").fingerprint == model.fingerprint


def tokens(model: Embedder, item: Item, instruction: str | None) -> list[tuple[str, bool]]:
    row = model.engine.renderer.render([item], "query", instruction)[0]
    return list(zip(model.engine.renderer.tokenizer.convert_ids_to_tokens(row.token_ids_L.tolist()), row.pool_L.tolist(), strict=True))


@pytest.mark.parametrize(
    ("changes", "last_masked", "last"),
    [
        ({}, ":", "</s>"),
        ({"add_eos": False}, ":", "d"),
        ({"is_mask_instruction": False}, None, "</s>"),
        ({"padding_side": "left"}, None, "</s>"),
    ],
    ids=str,
)
def test_the_instruction_is_masked_as_the_config_says(changes: dict[str, Any], last_masked: str | None, last: str, tmp_path: Path):
    folder = broken("nv-embed")
    reconfigure(folder, **changes)
    row = tokens(Embedder.load(import_checkpoint("nv-embed", folder, tmp_path / "out").folder), Item.of(text="a red"), "Find it.")
    assert row[0][0] == "<s>" and row[-1][0].endswith(last) and row[-1][1]
    masked = [token for token, pooled in row if not pooled]
    assert [pooled for _, pooled in row] == [False] * len(masked) + [True] * (len(row) - len(masked))
    assert (masked[-1][-1:] if masked else None) == last_masked


def test_mm_embed_without_an_end_of_the_text(tmp_path: Path):
    folder = broken("mm-embed")
    reconfigure(folder, add_eos_token=False, global_image_patch_only=False)
    model = Embedder.load(import_checkpoint("mm-embed", folder, tmp_path / "out").folder)
    assert model.engine.model.settings.image_tiles == "anyres"
    row = tokens(model, Item.of(text="a red"), "Find it.")
    assert row[0] == ("<s>", False) and row[-1][0] != "</s>"
    assert next(token for token, pooled in row if pooled) == "<0x0A>"


def test_the_language_model_as_its_own_folder_describes_it(tmp_path: Path):
    folder = broken("mm-embed")
    retriever = nv_config(1)
    retriever["text_config"]["rope_theta"] = 500.0
    retriever["latent_attention_config"]["num_cross_heads"] = 4
    (folder / "nv").mkdir()
    (folder / "nv" / "config.json").write_text(json.dumps(retriever))
    reconfigure(folder, retriever="nv")
    done = import_checkpoint("mm-embed", folder, tmp_path / "out")
    assert ModelSettings.load(done.folder).latent == LatentSizes(LATENTS, 4, 2 * LATENT_WIDTH, MULTIPLIER)
    assert json.loads((done.folder / "config.json").read_text())["text_config"]["rope_parameters"]["rope_theta"] == 500


def test_half_precision_stays_but_in_the_pooling(tmp_path: Path):
    done = import_checkpoint("nv-embed", nv_embed(torch.bfloat16), tmp_path / "out")
    assert {tensor.dtype for tensor in weights(done.folder).values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in load_file(done.folder / WEIGHTS).values()} == {torch.float32}
    vectors = Embedder.load(done.folder, dtype="bfloat16").encode([Item.of(text="a red circle")])
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize("kind", RELEASES)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop(f"{LATENT}latents"), "has no latent attention"),
        (lambda s: s.update({"lm_head.weight": torch.ones(2)}), "holds lm_head.weight, which is no part of the published model"),
        (lambda s: s.update({"base_model.model.a.lora_A.weight": torch.ones(2)}), "holds LoRA adapters"),
        (lambda s: s.pop(next(name for name in s if name.endswith("layers.0.mlp.up_proj.weight"))), "the weights lack 1 tensors"),
        (lambda s: s.pop(next(name for name in s if name.endswith("embed_tokens.weight"))), "embed_tokens.weight"),
        (lambda s: s.pop(f"{LATENT}cross_attend_blocks.1.norm.bias"), "latent attention is not of the published layout"),
        (lambda s: s.pop(f"{LATENT}cross_attend_blocks.0.fn.to_q.weight"), "latent attention is not of the published layout"),
    ],
)
def test_weights_that_are_not_the_published_model(kind: str, change, says: str, tmp_path: Path):
    folder = broken(kind)
    change_weights(folder, change)
    with pytest.raises(ModelError, match=says) as error:
        import_checkpoint(kind, folder, tmp_path / "out")  # type: ignore[arg-type]
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "damage", "says"),
    [
        ("nv-embed", lambda folder: reconfigure(folder, model_type="mistral"), "a mistral checkpoint, not NV-Embed's"),
        ("nv-embed", lambda folder: reconfigure(folder, mask_type="c"), "mask_type='c'"),
        ("nv-embed", lambda folder: reconfigure(folder, text_config=None), "not NV-Embed's"),
        ("nv-embed", lambda folder: reconfigure(folder, latent_attention_config={"num_cross_heads": 7}), "layout with 7 heads"),
        ("nv-embed", lambda folder: (folder / "config.json").write_text("{"), "unreadable"),
        ("nv-embed", lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
        ("nv-embed", lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer"),
        ("nv-embed", shutil.rmtree, "no such folder"),
        ("mm-embed", lambda folder: reconfigure(folder, model_type="llava"), "a llava checkpoint; MM-Embed was published as llava_next"),
        ("mm-embed", lambda folder: reconfigure(folder, retriever="someone/else"), "retriever='someone/else'"),
        ("mm-embed", lambda folder: (folder / "preprocessor_config.json").unlink(), "processor"),
        ("mm-embed", lambda folder: [file.rename(file.with_suffix(".bin")) for file in folder.glob("*.safetensors")], "pickled"),
    ],
)
def test_folders_that_are_refused(kind: str, damage, says: str, tmp_path: Path):
    folder = broken(kind)
    damage(folder)
    with pytest.raises(ModelError, match=says) as error:
        import_checkpoint(kind, folder, tmp_path / "out")  # type: ignore[arg-type]
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_release_of_the_other_kind(tmp_path: Path):
    with pytest.raises(ModelError, match="a llava_next checkpoint, not NV-Embed's"):
        import_checkpoint("nv-embed", mm_embed(), tmp_path / "out")
    with pytest.raises(ModelError, match="a nvembed checkpoint; MM-Embed"):
        import_checkpoint("mm-embed", nv_embed(), tmp_path / "out")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["import", "nv-embed", str(nv_embed()), str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out.replace("\n", " ")
    assert "nv-embed, " in said and "no learned temperature" in said
    assert main(["import", "mm-embed", str(nv_embed()), str(tmp_path / "other")]) == 1
    assert "MM-Embed was published as llava_next" in capsys.readouterr().err.replace("\n", " ")
