"""LLaVA-NeXT folders: made from nothing, laid out as published, saved by us, and read by plain sentence-transformers."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny import INSTRUCTION, TEXTS, checkpoint, copy_of, embedder, sample_items
from umr.cli import main
from umr.errors import ModelError
from umr.items import Item
from umr.models import backbone
from umr.models.embedder import Embedder
from umr.models.reranker import Reranker
from umr.models.tiny import make_checkpoint
from umr.rendering.template import Template

ITEMS = {kind: sample_items()[kind] for kind in ("text", "image", "wide image", "image+text", "several images")}
BARE = Template("bare", "{bos}{instruction}\n{media}\n{text}{eos}", "{bos}{media}\n{text}{eos}")
MARKED = Template(
    name="marked",
    with_instruction="{bos}{skip}<instruction_start>{instruction}<instruction_end>{/skip}{content}{eos}",
    without_instruction="{bos}{content}{eos}",
)


def test_umr_init_makes_a_folder_that_transformers_loads_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["init", "llava-next", str(tmp_path / "made")]) == 0 and "a llava-next with" in capsys.readouterr().out
    from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

    config = AutoConfig.from_pretrained(tmp_path / "made")
    kinds = (config.model_type, config.vision_config.model_type, config.text_config.model_type)
    assert kinds == ("llava_next", "clip_vision_model", "mistral")
    model, report = AutoModel.from_pretrained(tmp_path / "made", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert 0.5e6 < sum(parameter.numel() for parameter in model.parameters()) < 2e6
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")) and f"layers.{name.split('layers.')[1][0]}" in ("layers.2", "layers.3"):
            assert not parameter.any(), name  # later layers begin as the identity
        elif parameter.ndim > 1 or name.endswith(("image_newline", "class_embedding")):
            inputs = parameter[0].numel() if parameter.ndim > 1 else parameter.numel()
            assert parameter.std().item() * inputs**0.5 == pytest.approx(1, rel=0.3), name
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "made").lm_head.weight.shape == (config.text_config.vocab_size, 128)
    processor = AutoProcessor.from_pretrained(tmp_path / "made")
    tokenizer = processor.tokenizer
    assert type(processor).__name__ == "LlavaNextProcessor" and config.image_token_index == processor.image_token_id
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "<pad>")
    for word in ("<s>", "</s>", "<pad>", "<image>", "<emb>", "Yes", "No"):
        assert len(tokenizer(word)["input_ids"]) == 1, word


def test_same_seed_same_bytes(tmp_path: Path):
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        make_checkpoint("llava-next", tmp_path / name, TEXTS, seed=seed)
    one, two, three = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two", "three"))
    assert one == two and {name for name in one if one[name] != three[name]} == {"model.safetensors"}


@pytest.mark.parametrize("tiles", ["global", "anyres"])
def test_a_saved_model_gives_the_same_vectors_and_knows_its_tiles(tiles: str, tmp_path: Path):
    model = embedder("llava-next", image_tiles=tiles)
    model.save(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "umr.json").read_text())["image_tiles"] == tiles
    again = Embedder.load(tmp_path / "model", device="cpu")
    assert again.fingerprint == model.fingerprint
    assert np.array_equal(again.encode(list(ITEMS.values())), model.encode(list(ITEMS.values())))


def test_tiles_are_part_of_the_fingerprint_of_embedders_and_rerankers():
    prints = {embedder("llava-next", image_tiles=tiles).fingerprint for tiles in ("global", "anyres")}
    prints |= {Reranker.load(checkpoint("llava-next"), device="cpu", image_tiles=tiles).fingerprint for tiles in ("global", "anyres")}
    assert len(prints) == 4 and embedder("llava-next").fingerprint in prints
    with pytest.raises(ModelError, match="image_tiles='anyres' has no effect on a qwen3_vl backbone"):
        Reranker.load(checkpoint("qwen3-vl"), device="cpu", image_tiles="anyres")


# Layouts as published.


def llama_tokenizer(folder: Path, scheme: str) -> Any:
    """Replace a folder's tokenizer by one as Llama's and Mistral's: byte fallback, a space before words, a start token put in front."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if scheme == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))], show_progress=False
    )
    tokenizer.train_from_iterator([line for text in (*TEXTS, *["Instruct: Find it\nQuery: "] * 8) for line in text.split("\n")], trainer)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    start = [("<s>", tokenizer.token_to_id("<s>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=start)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (*special, "<image>", "<pad>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "add_bos_token": True}
    about |= {"tokenizer_class": "LlamaTokenizer", "processor_class": "LlavaNextProcessor", "padding_side": "left"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about | {"legacy": scheme == "legacy"}))
    return tokenizer


def published(scheme: str = "legacy") -> Path:
    """A folder laid out as llava-hf/llava-v1.6-mistral-7b-hf: old names of parameters, an untied head, a Llama tokenizer."""
    from safetensors.torch import load_file, save_file

    folder = copy_of(checkpoint("llava-next"), "published")
    (folder / "chat_template.jinja").unlink()
    tokenizer = llama_tokenizer(folder, scheme)
    about = json.loads((folder / "config.json").read_text())
    about |= {"image_token_index": tokenizer.token_to_id("<image>"), "tie_word_embeddings": False}
    about["text_config"] |= {"vocab_size": 1000, "tie_word_embeddings": False, "sliding_window": None}
    about["architectures"] = ["LlavaNextForConditionalGeneration"]
    (folder / "config.json").write_text(json.dumps(about))
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(5)
    for name in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        weights[name] = torch.randn(1000, 128, generator=generator) / 128**0.5
    old = {re.sub(r"^vision_tower\.", "vision_tower.vision_model.", name): tensor for name, tensor in weights.items()}
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("scheme", ["legacy", "first", "always"])
def test_a_published_layout_loads_and_is_tokenised_as_the_released_code_does(scheme: str):
    model = Embedder.load(published(scheme), device="cpu")
    processor = model.engine.processor
    for kind, item in ITEMS.items():
        if kind == "several images":
            continue
        images = "<image>" * 37 + "\n" if item.modality != "text" else ""
        query = f"Instruct: {INSTRUCTION}\nQuery: {images}{item.text}"
        for side, instruction, prompt in (("query", INSTRUCTION, query), ("candidate", None, images + item.text)):
            row = model.engine.prepare([item], side, [instruction])[0]
            assert row.token_ids_L.tolist() == [*processor.tokenizer(prompt)["input_ids"], processor.tokenizer.eos_token_id], kind
    assert np.isfinite(model.encode(list(ITEMS.values()))).all()


def test_a_published_layout_keeps_its_weights_and_its_head():
    folder = published()
    config = backbone.load_config(folder)
    inner = backbone.load_model(folder, config, "causal", "sdpa", torch.float32)
    whole = backbone.load_language_model(folder, config, "causal", "sdpa", torch.float32)
    made = backbone.load_model(checkpoint("llava-next"), backbone.load_config(checkpoint("llava-next")), "causal", "sdpa", torch.float32)
    for name, tensor in made.state_dict().items():
        if "embed_tokens" not in name:
            assert torch.equal(inner.state_dict()[name], tensor), name
    assert not torch.equal(whole.get_output_embeddings().weight, whole.get_input_embeddings().weight)
    assert torch.equal(backbone.inner_model(whole).get_input_embeddings().weight, inner.get_input_embeddings().weight)


def test_a_processor_that_makes_other_squares_than_the_model_reads_is_refused():
    folder = copy_of(checkpoint("llava-next"), "sizes")
    about = json.loads((folder / "processor_config.json").read_text())
    about["image_processor"]["crop_size"] = {"height": 80, "width": 80}
    (folder / "processor_config.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match="makes squares of 80, 96 pixels and its vision tower reads 96"):
        Embedder.load(folder, device="cpu")


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_a_sliding_window_reaches_back_and_only_with_bidirectional_attention_ahead(kernel: str, attention: str):
    folder = copy_of(checkpoint("llava-next"), "window")
    about = json.loads((folder / "config.json").read_text())
    about["text_config"] |= {"sliding_window": 4, "num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(about))
    model = Embedder.load(folder, device="cpu", attention=attention, kernel=kernel).engine.model.network
    ids = torch.arange(20, 32)[None]
    other = ids.clone()
    other[0, 6] = 99
    with torch.inference_mode():
        before, after = (model(input_ids=one, attention_mask=torch.ones_like(one)).last_hidden_state for one in (ids, other))
    changed = [place for place in range(12) if (after - before)[0, place].abs().max() > 1e-5]
    assert changed == ([6, 7, 8, 9] if attention == "causal" else [2, 3, 4, 5, 6, 7, 8, 9, 10])


# Plain sentence-transformers.


@pytest.mark.parametrize(
    "settings", [{"pooling": "last", "attention": "causal"}, {"template": BARE}, {"template": MARKED}], ids=["last", "bare", "marked"]
)
def test_plain_sentence_transformers_gives_the_same_vectors_with_tiles(settings: dict[str, Any], tmp_path: Path):
    from sentence_transformers import SentenceTransformer

    model = embedder("llava-next", image_tiles="anyres", **settings)
    assert model.save(tmp_path / "model") == []
    plain = SentenceTransformer(str(tmp_path / "model"), device="cpu", trust_remote_code=True)
    assert set(plain.modalities) == {"text", "image", "message"}
    rows: list[Any] = []
    for item in ITEMS.values():
        images = [part.source for part in item.parts if part.modality == "image"]
        rows.append(
            {**({"image": images if len(images) > 1 else images[0]} if images else {}), **({"text": item.text} if item.text else {})}
        )
    for prompt in (INSTRUCTION, None):
        ours = model.encode(list(ITEMS.values()), "query", prompt)
        assert np.abs(plain.encode(rows, prompt=prompt) - ours).max() <= 1e-5


def test_the_whole_image_alone_cannot_be_said_there_and_saving_says_so(tmp_path: Path):
    reasons = embedder("llava-next").save(tmp_path / "whole")
    assert reasons[0].startswith("image_tiles='global': transformers' LLaVA-NeXT") and not (tmp_path / "whole" / "modules.json").exists()
    (reason,) = embedder("llava-next", image_tiles="anyres").save(tmp_path / "tiled")
    assert reason.startswith("template 'mm-embed': what it skips is not one span between two special tokens")
    shutil.rmtree(tmp_path / "whole")


@pytest.mark.parametrize("tiles", ["global", "anyres"])
def test_a_reranker_is_saved_for_sentence_transformers_where_that_can_be(tiles: str, tmp_path: Path):
    from sentence_transformers import CrossEncoder

    model = Reranker.load(checkpoint("llava-next"), device="cpu", image_tiles=tiles)
    reasons = model.save(tmp_path / "model")
    scores = model.score(Item.of(text="a red circle"), list(ITEMS.values()), "Find it.")
    again = Reranker.load(tmp_path / "model", device="cpu")
    assert again.fingerprint == model.fingerprint
    assert np.array_equal(again.score(Item.of(text="a red circle"), list(ITEMS.values()), "Find it."), scores)
    if tiles == "global":
        assert len(reasons) == 1 and reasons[0].startswith("image_tiles='global'")
        return
    assert reasons == []
    pairs = [("a red circle", "a red circle"), ("a red circle", ITEMS["image"].parts[0].source)]
    theirs = CrossEncoder(str(tmp_path / "model"), device="cpu").predict(pairs, prompt="Find it.")
    assert np.abs(theirs - scores[:2]).max() <= 1e-5
