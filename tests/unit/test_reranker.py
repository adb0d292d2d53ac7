"""Scores of a reranker against transformers' own full model, alone and in batches, and what loads and what does not."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny import FAMILIES, INSTRUCTION, TEXTS, checkpoint, copy_of, picture, sample_items, sibling, text_checkpoint, workplace
from umr.errors import ModelError, RenderError
from umr.items import Image, Item, Query, Text
from umr.models.embedder import Embedder
from umr.models.reranker import ANSWERS, Reranker
from umr.rendering.pair_template import SHORT, PairTemplate
from umr.rendering.pairs import Pair

ITEMS = sample_items()
STILL = {name: item for name, item in ITEMS.items() if "video" not in item.modality}
BLOCK = "<|vision_start|><|image_pad|><|vision_end|>"
TOLERANCE = 1e-5
LONGER = Item((*ITEMS["several images, no text"].parts, Text("two of them moving over the scene, " * 8)))
"""Longer than every other query, so that whatever shares a batch with it is padded."""


@functools.cache
def reranker(family: str = "qwen3-vl", **options: Any) -> Reranker:
    return Reranker.load(checkpoint(family), **{"device": "cpu", "template": "short", **options})


def pairs_of(items: dict[str, Item]) -> list[Pair]:
    """Every item as a query and as a candidate, in rows of unequal lengths, with and without an instruction."""
    listed = list(items.values())
    return [
        Pair(query, INSTRUCTION if place % 2 else None, listed[(place * 3 + step) % len(listed)])
        for place, query in enumerate(listed)
        for step in (1, 2)
    ]


@functools.cache
def whole_model(family: str, attention: str) -> tuple[Any, Any]:
    """transformers' own model and processor, loaded without anything of ours."""
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    folder = checkpoint(family)
    config = AutoConfig.from_pretrained(folder, text_config={"is_causal": attention == "causal"})
    model = AutoModelForImageTextToText.from_pretrained(folder, config=config, attn_implementation="eager").eval()
    return model, AutoProcessor.from_pretrained(folder)


def reference(family: str, attention: str, pair: Pair) -> float:
    """P(Yes) of one row alone: the written-out string through the processor, all logits, a softmax over two of them."""

    def shown(item: Item) -> str:
        return "".join(part.text if isinstance(part, Text) else BLOCK for part in item.parts)

    asked = shown(pair.query)
    if pair.instruction:
        media = "".join(BLOCK for part in pair.query.parts if isinstance(part, Image))
        texts = "".join(part.text for part in pair.query.parts if isinstance(part, Text))
        asked = media + pair.instruction + (f" {texts}" if texts else "")
    elif any(isinstance(part, Image) for part in pair.query.parts):
        asked = "".join(sorted((shown(Item((part,))) for part in pair.query.parts), key=lambda one: one != BLOCK))
    string = f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>user\n{shown(pair.candidate)}<|im_end|>\n<|im_start|>assistant\n"
    images = [part.open() for item in (pair.query, pair.candidate) for part in item.parts if isinstance(part, Image)]
    model, processor = whole_model(family, attention)
    with torch.inference_mode():
        logits = model(**processor(text=[string], images=images or None, return_tensors="pt")).logits[0, -1].double()
    yes, no = processor.tokenizer.convert_tokens_to_ids(["Yes", "No"])
    return float(logits[[yes, no]].softmax(0)[0])


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_the_whole_model(family: str, attention: Any):
    model = reranker(family, attention=attention)
    pairs = pairs_of(STILL)
    expected = np.array([reference(family, attention, pair) for pair in pairs])
    assert expected.std() > 0.01
    assert np.abs(model.score_pairs(pairs) - expected).max() < TOLERANCE


def test_the_two_attentions_differ():
    pairs = pairs_of(STILL)
    assert np.abs(reranker(attention="causal").score_pairs(pairs) - reranker(attention="bidirectional").score_pairs(pairs)).max() > 1e-3


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_depends_on_its_pair_alone(family: str, attention: Any):
    engine: Any = reranker(family, attention=attention).engine
    for pair in pairs_of(ITEMS)[::3]:
        alone = engine.forward(engine.prepare([pair], {}))
        equal = [Pair(sibling(pair.query, 1), pair.instruction, sibling(pair.candidate, 2)), pair]
        longer = [Pair(LONGER, pair.instruction, pair.candidate), pair]
        for batch in (equal, longer):
            rows = engine.prepare(batch, {})
            assert (len({len(row.token_ids_L) for row in rows}) == 1) == (batch is equal)
            both = engine.forward(rows)
            assert np.abs(both[1] - alone[0]).max() < TOLERANCE
            assert batch is equal or np.abs(both[0] - alone[0]).max() > 1e-4


def test_order_and_packing_do_not_matter():
    pairs = pairs_of(ITEMS)
    scores = reranker().score_pairs(pairs)
    assert scores.dtype == np.float32 and scores.shape == (len(pairs),)
    assert np.abs(reranker(batch_tokens=40).score_pairs(pairs[::-1])[::-1] - scores).max() < TOLERANCE
    assert np.abs(reranker(kernel="eager").score_pairs(pairs) - scores).max() < TOLERANCE


def test_score_is_score_pairs():
    candidates = list(ITEMS.values())
    query = ITEMS["image+text"]
    expected = reranker().score_pairs([Pair(query, INSTRUCTION, candidate) for candidate in candidates])
    assert np.array_equal(reranker().score(query, candidates, INSTRUCTION), expected)
    assert np.array_equal(reranker().score(Query(query, INSTRUCTION), candidates), expected)
    assert np.abs(reranker().score(query, candidates) - expected).max() > 1e-3
    assert reranker().score(query, []).shape == (0,)
    with pytest.raises(RenderError, match="brings its own instruction"):
        reranker().score(Query(query, INSTRUCTION), candidates, INSTRUCTION)
    with pytest.raises(RenderError, match="not Item and str"):
        reranker().score(query, ["ring"])  # type: ignore[list-item]


def test_media_are_decoded_once_a_call(monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    read = Image.open
    monkeypatch.setattr(Image, "open", lambda part: (opened.append(part.digest), read(part))[1])
    candidates = [Item.of(image=picture(64, 64, seed)) for seed in range(40)]  # more than are prepared at once
    reranker().score(Item.of(image=picture(90, 70, 99)), candidates)
    assert len(opened) == len(set(opened)) == 41


def test_media_of_long_calls_are_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("umr.models.reranker.KEPT_MEDIA_BYTES", 100_000)
    done: dict[str, Any] = {}
    engine: Any = reranker().engine
    pairs = [Pair(ITEMS["image"], None, Item.of(image=picture(64, 64, seed))) for seed in range(20)]
    engine.prepare(pairs, done)
    assert 0 < sum(block.patches_PC.nbytes for block in done.values()) <= 100_000


class TestChoosing:
    @pytest.mark.parametrize("attention", ["causal", "bidirectional"])
    def test_probabilities_are_those_of_the_whole_model(self, attention: Any):
        candidates = [ITEMS["image"], ITEMS["text"], ITEMS["image+text"]]
        got = reranker(attention=attention).choose(ITEMS["unicode text"], candidates, INSTRUCTION)
        listed = f"(1) {BLOCK}\n(2) a red circle\n(3) {BLOCK}make it blue\n"
        asked = f"{INSTRUCTION} {ITEMS['unicode text'].text}"
        string = f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>user\n{listed}<|im_end|>\n<|im_start|>assistant\n"
        images = [part.open() for item in candidates for part in item.parts if isinstance(part, Image)]
        model, processor = whole_model("qwen3-vl", attention)
        with torch.inference_mode():
            logits = model(**processor(text=[string], images=images, return_tensors="pt")).logits[0, -1].double()
        expected = logits[processor.tokenizer.convert_tokens_to_ids(["1", "2", "3"])].softmax(0).numpy()
        assert np.abs(got - expected).max() < TOLERANCE
        assert abs(float(got.sum()) - 1) < 1e-6

    def test_numbers_without_a_token(self, monkeypatch: pytest.MonkeyPatch):
        folder = copy_of(checkpoint("qwen3-vl"), "numberless")
        tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        tokenizer["model"]["vocab"]["\u0100\u0101"] = tokenizer["model"]["vocab"].pop("4")  # "4" has become unknown
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
        model = Reranker.load(folder, device="cpu", template="short")
        items = list(ITEMS.values())
        assert model.choose(ITEMS["text"], items[:3]).shape == (3,)
        with pytest.raises(ModelError, match="'4' is not a single token"):
            model.choose(ITEMS["text"], items[:4])
        assert model.score(ITEMS["text"], items[:4]).shape == (4,)


class TestForward:
    def test_seven_logits_a_row_with_gradients(self):
        model = Reranker.load(checkpoint("qwen3-vl"), device="cpu", template="short")
        engine: Any = model.engine
        rows = engine.renderer.render(pairs_of(STILL)[:4])
        logits = engine.model(rows)
        assert logits.shape == (4, len(ANSWERS)) and logits.dtype == torch.float32
        torch.nn.functional.cross_entropy(logits[:, :2], torch.tensor([0, 1, 0, 1])).backward()
        gradient = engine.model.network.get_input_embeddings().weight.grad
        assert gradient[engine.model.answer_ids[0]].abs().max() > 0

    def test_adapters_leave_the_head_alone(self):
        from umr.models import parts

        model = Reranker.load(checkpoint("qwen3-vl"), device="cpu", template="short")
        engine: Any = model.engine
        before = model.score_pairs(pairs_of(STILL))
        head = engine.model.network.lm_head
        engine.model.network = parts.add_lora(engine.model.network, 4, 8, 0.0, ["language"])
        for name, parameter in engine.model.network.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        assert engine.model.network.get_output_embeddings() is head
        adapted = model.score_pairs(pairs_of(STILL))
        assert np.abs(adapted - before).max() > 1e-3
        with pytest.raises(ModelError, match="LoRA"):
            model.save(workplace() / "adapted")
        engine.model.network = parts.merge_lora(engine.model.network)
        assert np.abs(model.score_pairs(pairs_of(STILL)) - adapted).max() < TOLERANCE

    def test_half_precision_answers_in_fp32(self):
        engine: Any = reranker(dtype="bfloat16").engine
        logits = engine.model(engine.renderer.render(pairs_of(STILL)[:2]))
        assert logits.dtype == torch.float32


class TestLoading:
    def test_a_retriever_answers_through_its_tied_embeddings(self):
        folder = workplace() / "retriever"
        Embedder.load(checkpoint("qwen3-vl"), device="cpu").save(folder)
        model = Reranker.load(folder, device="cpu", template="short")
        assert model.engine.model.settings.attention == "bidirectional"  # as it was trained
        assert np.array_equal(model.score_pairs(pairs_of(STILL)), reranker(attention="bidirectional").score_pairs(pairs_of(STILL)))
        assert reranker().engine.model.settings.attention == "causal"

    def test_weights_without_a_head(self):
        folder = copy_of(checkpoint("qwen3-vl"), "untied")
        config = json.loads((folder / "config.json").read_text("utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}), "utf-8")
        with pytest.raises(ModelError, match=r"no head to answer with \(lm_head.weight\)"):
            Reranker.load(folder, device="cpu")

    def test_untied_head(self):
        from transformers import AutoConfig, AutoModelForImageTextToText

        folder = copy_of(checkpoint("qwen3-vl"), "own-head")
        config = AutoConfig.from_pretrained(folder, tie_word_embeddings=False)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            network = AutoModelForImageTextToText.from_pretrained(folder, config=config)
            torch.nn.init.normal_(network.lm_head.weight, std=0.1)
        network.save_pretrained(folder)
        model = Reranker.load(folder, device="cpu", template="short")
        assert model.fingerprint != reranker().fingerprint
        assert np.abs(model.score_pairs(pairs_of(STILL)) - reranker().score_pairs(pairs_of(STILL))).max() > 1e-3
        model.save(workplace() / "own-head-saved")
        assert Reranker.load(workplace() / "own-head-saved", device="cpu").fingerprint == model.fingerprint

    def test_text_only_families(self):
        folder = copy_of(text_checkpoint(), "causal-lm")
        config = json.loads((folder / "config.json").read_text("utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}), "utf-8")
        model = Reranker.load(folder, device="cpu")
        assert model.engine.renderer.template.name == "plain"
        scores = model.score(Item.of(text="ring"), [Item.of(text=text) for text in TEXTS[:5]])
        assert scores.std() > 0
        with pytest.raises(ModelError, match="reads text only"):
            Reranker.load(folder, device="cpu", max_pixels=1000)
        (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True, "logit_scale": 0.5}), "utf-8")
        with pytest.raises(ModelError, match="logit_scale"):
            Reranker.load(folder, device="cpu")

    def test_answers_must_be_single_tokens(self):
        with pytest.raises(ModelError, match="the answer 'yes' of pair template 'qwen3-vl-reranker' is not a single token"):
            Reranker.load(checkpoint("qwen3-vl"), device="cpu", template="qwen3-vl-reranker")

    def test_other_answers(self):
        swapped = PairTemplate(**{**SHORT.__dict__, "yes": "No", "no": "Yes"})
        pairs = pairs_of(STILL)
        assert np.abs(reranker(template=swapped).score_pairs(pairs) + reranker().score_pairs(pairs) - 1).max() < 1e-6

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"attention": "both"}, "attention='both'"),
            ({"max_tokens": 3}, "max_tokens=3"),
            ({"template": "chat"}, "unknown pair template"),
            ({"dtype": "int8"}, "dtype='int8'"),
            ({"device": "abacus"}, "device='abacus' is not here"),
            ({"batch_tokens": 0}, "batch_tokens=0"),
            ({"revision": "main"}, "revision='main' has no effect"),
            ({"min_pixels": 10_000, "max_pixels": 5_000}, "above max_pixels"),
        ],
    )
    def test_settings_that_cannot_be(self, options: dict[str, Any], message: str):
        with pytest.raises(ModelError, match=message):
            Reranker.load(checkpoint("qwen3-vl"), **{"device": "cpu", **options})

    def test_what_changes_scores_changes_the_fingerprint(self):
        others = [{"attention": "bidirectional"}, {"max_tokens": 99}, {"template": "umarvel"}, {"max_pixels": 9000}, {"dtype": "bfloat16"}]
        prints = [reranker().fingerprint, *(reranker(**options).fingerprint for options in others)]
        assert len(set(prints)) == len(prints) and all(len(one) == 16 for one in prints)
        assert reranker(kernel="eager").fingerprint == reranker(batch_tokens=99).fingerprint == prints[0]

    def test_damaged_settings(self, tmp_path: Path):
        folder = tmp_path / "model"
        reranker().save(folder)
        for text in ("{", "[]", '{"pooling": "mean"}', '{"attention": "sideways"}'):
            (folder / "umr_reranker.json").unlink()
            (folder / "umr_reranker.json").write_text(text)
            with pytest.raises(ModelError, match=r"umr_reranker\.json|sideways"):
                Reranker.load(folder, device="cpu")
