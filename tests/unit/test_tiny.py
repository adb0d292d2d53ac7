from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import FAMILIES, TEXTS
from umr.errors import ModelError
from umr.items import Item
from umr.models.embedder import Embedder
from umr.models.tiny import make_checkpoint


@pytest.fixture(scope="module", params=FAMILIES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, int]:
    folder = tmp_path_factory.mktemp("made") / request.param
    return request.param, folder, make_checkpoint(request.param, folder, TEXTS)


def test_transformers_itself_loads_all_of_it(made: tuple[str, Path, int]):
    from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

    family, folder, parameters = made
    assert AutoConfig.from_pretrained(folder).model_type == family.replace("-", "_").replace(".", "_")
    model, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert 0.5e6 < parameters < 2e6
    assert AutoModelForImageTextToText.from_pretrained(folder).config.model_type == model.config.model_type
    processor = AutoProcessor.from_pretrained(folder)
    assert hasattr(processor, "image_processor") and hasattr(processor, "video_processor")
    config = model.config
    for name, token in (
        ("image_token_id", "<|image_pad|>"),
        ("video_token_id", "<|video_pad|>"),
        ("vision_start_token_id", "<|vision_start|>"),
    ):
        assert getattr(config, name) == processor.tokenizer.convert_tokens_to_ids(token)
    assert len(processor.tokenizer) <= config.get_text_config().vocab_size


def test_the_tokenizer_is_whole(made: tuple[str, Path, int]):
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(made[1])
    for text in ("a red circle top left", "ünïcödé 赤い丸 🎈\n\t x", "a  b"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text
    specials = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<emb>"]
    specials += ["<instruction_start>", "<instruction_end>", "<|endoftext|>"]
    for word in [*specials, "Yes", "No"]:
        assert len(tokenizer(word)["input_ids"]) == 1, word
    assert set(specials) <= set(tokenizer.all_special_tokens)
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    # It has learned from the texts.
    assert len(tokenizer("a red circle top left")["input_ids"]) < 10


def test_same_seed_same_bytes(tmp_path: Path):
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        torch.manual_seed(seed * 100)
        state = torch.get_rng_state()
        make_checkpoint("qwen3-vl", tmp_path / name, TEXTS, seed=seed)
        assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are left alone"
    one, two, three = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two", "three"))
    assert one == two
    assert {name for name in one if one[name] != three[name]} == {"model.safetensors"}


def test_sizes_grow(tmp_path: Path):
    small = make_checkpoint("qwen3-vl", tmp_path / "small", TEXTS, "small")
    assert 5e6 < small < 20e6
    assert Embedder.load(tmp_path / "small").encode([Item.of(text="a")]).shape == (1, 256)


def test_refusals(tmp_path: Path):
    with pytest.raises(ModelError, match="unknown family 'llava'"):
        make_checkpoint("llava", tmp_path / "x", TEXTS)
    with pytest.raises(ModelError, match="unknown size 'huge'"):
        make_checkpoint("qwen3-vl", tmp_path / "x", TEXTS, "huge")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelError, match="not an empty folder"):
        make_checkpoint("qwen3-vl", tmp_path / "full", TEXTS)
    with pytest.raises(ModelError, match="not an empty folder"):
        make_checkpoint("qwen3-vl", tmp_path / "full" / "thesis.txt", TEXTS)
    assert not (tmp_path / "x").exists()
    (tmp_path / "empty").mkdir()
    assert make_checkpoint("qwen2-vl", tmp_path / "empty", TEXTS) > 0
