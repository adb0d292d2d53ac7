"""Folders for other engines: what is written, what vLLM would read of it, and what is refused."""

import functools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from tiny import FAMILIES, INSTRUCTION, checkpoint, embedder, sample_items, text_checkpoint
from umr.cli import main
from umr.errors import ModelError
from umr.models.embedder import Embedder
from umr.models.exporting import export_sentence_transformers
from umr.models.exporting_vllm import ARCHITECTURES, export_vllm, why_not_vllm
from unit.engines.vllm_like import MODELS, WHOLE, Launched, exported


@pytest.mark.parametrize("name", MODELS)
def test_vllm_finds_every_weight_under_its_own_name(name: str):
    """Against transformers' whole model, whose names vLLM's are made of: `language_model.model.` and `visual.` in place of its own."""
    _, launched = exported(name)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(launched.config)
    assert type(whole).__name__ == launched.architecture
    names = {key.removeprefix("model.").replace("language_model.", "language_model.model.", 1) for key in whole.state_dict()}
    assert launched.mapped_names() == names - {"lm_head.weight"}  # a pooling model has no head


@pytest.mark.parametrize("name", MODELS)
def test_vllm_is_told_direction_pooling_and_length(name: str):
    _, launched = exported(name)
    settings = MODELS[name]
    causal = settings.get("attention") == "causal"
    assert launched.config.is_causal is launched.config.get_text_config().is_causal is causal  # the scheduler's, and the layers'
    assert (
        launched.pooler["pooling_type"] == ("LAST" if settings.get("pooling") == "last" else "MEAN") and launched.pooler["use_activation"]
    )
    assert launched.pooler.get("dimensions") == settings.get("dimension")
    assert getattr(launched.config, "matryoshka_dimensions", None) == ([32] if "dimension" in settings else None)
    assert launched.options["max-model-len"] == str(settings.get("max_tokens", 2048)) and launched.options["dtype"] == "float32"
    assert launched.options["served-model-name"] == "vllm" and json.loads(launched.options["limit-mm-per-prompt"]) == {"video": 0}
    if (launched.folder / "modules.json").exists():  # where vLLM finds a pooling there, it is the one of the launch line
        assert launched.pooling_of_folder() in (None, launched.pooler["pooling_type"])


def test_the_folder_says_the_pooling_too_where_sentence_transformers_has_it():
    assert exported("qwen2-vl")[1].pooling_of_folder() == "MEAN"


@pytest.mark.parametrize("name", MODELS)
def test_an_exported_folder_is_still_the_same_model(name: str):
    model, launched = exported(name)
    again = Embedder.load(launched.folder)
    assert again.fingerprint == model.fingerprint
    items = list(sample_items().values())[:6]
    assert np.array_equal(again.encode(items, "query", INSTRUCTION), model.encode(items, "query", INSTRUCTION))


def test_number_type_and_shorter_lengths_are_kept(tmp_path: Path):
    from dataclasses import replace

    model = Embedder.load(checkpoint("qwen3-vl"), template=WHOLE, dtype="bfloat16", device="cpu")
    model.engine.model.settings = replace(model.engine.model.settings, matryoshka=(64, 16))
    model.save(tmp_path / "model")
    words = shlex.split(export_vllm(tmp_path / "model", tmp_path / "vllm"))
    assert words[words.index("--dtype") + 1] == "bfloat16" and "dimensions" not in words[words.index("--pooler-config") + 1]
    config = AutoConfig.from_pretrained(tmp_path / "vllm")
    assert config.matryoshka_dimensions == [16, 64, 128] and config.dtype == torch.bfloat16
    assert Embedder.load(tmp_path / "vllm", dtype="bfloat16").fingerprint == model.fingerprint


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, r"template 'chat' keeps tokens out of the mean \(\{skip\}\)"),
        ({"pooling": "latent"}, "pooling='latent'"),
        ({"pooling": "token_before_emb", "template": "umarvel"}, "pooling='token_before_emb'"),
        ({"template": WHOLE, "positions": "flat"}, "positions='flat'"),
        ({"pooling": "last", "template": "umarvel-one-word"}, "suffix"),
    ],
    ids=str,
)
def test_what_vllm_cannot_compute_is_refused(settings: dict[str, Any], reason: str):
    (found,) = why_not_vllm(embedder("qwen2-vl", **settings).engine)
    assert "\n" not in found
    assert re.search(reason, found), found


@pytest.mark.parametrize("folder", [text_checkpoint, functools.partial(checkpoint, "llava-next")], ids=["text", "llava-next"])
def test_backbones_that_nobody_compared_are_refused(folder: Any):
    reasons = why_not_vllm(Embedder.load(folder(), device="cpu").engine)
    assert "backbone: what vLLM makes of it was never compared" in reasons[0]


def test_a_refusal_is_one_line_and_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["export", "vllm", str(checkpoint("qwen3-vl")), str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "vLLM cannot give its vectors" in line and line.endswith("umr serve can")
    assert main(["export", "sentence-transformers", str(text_checkpoint()), str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "plain sentence-transformers cannot give its vectors: a backbone without a chat format" in line
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_the_launch_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["export", "vllm", str(exported("qwen2-vl")[1].folder), str(tmp_path / "out")]) == 0  # an export can be exported again
    said = capsys.readouterr().out
    assert "ask it with messages" in said
    assert Launched(said.splitlines()[-1]).folder == tmp_path / "out"


def test_for_sentence_transformers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["export", "sentence-transformers", str(checkpoint("qwen3-vl")), str(tmp_path / "out")]) == 0
    assert "trust_remote_code=True) loads it" in capsys.readouterr().out
    assert Embedder.load(tmp_path / "out").fingerprint == embedder("qwen3-vl").fingerprint
    with pytest.raises(ModelError, match="exists already"):
        export_sentence_transformers(checkpoint("qwen3-vl"), tmp_path / "out")
    (tmp_path / "out" / "umr.json").unlink()
    with pytest.raises(ModelError, match="a SentenceTransformer that others saved"):
        export_vllm(tmp_path / "out", tmp_path / "other")


def test_all_families_have_a_name_there():
    assert {embedder(family).engine.model.family for family in FAMILIES} == set(ARCHITECTURES)
