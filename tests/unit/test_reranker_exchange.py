"""A saved reranker in plain sentence-transformers, and foreign CrossEncoders in `Reranker`: the same scores."""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny import FAMILIES, INSTRUCTION, TEXTS, checkpoint, copy_of, film, picture, sample_items, text_checkpoint, workplace
from umr.errors import MediaError, ModelError
from umr.items import Image, Item, Text
from umr.models import reranker_exchange
from umr.models.cross_encoder import CrossEncoderEngine
from umr.models.embedder import Embedder
from umr.models.reranker import Reranker
from umr.rendering.pair_template import BUILT_IN
from umr.rendering.pairs import Pair

ITEMS = sample_items()
TOLERANCE = 1e-5
SIMPLE = [
    Item.of(text="a red circle"),
    Item.of(text="two of them moving over the scene, " * 6),
    Item.of(text="ring.png"),
    Item.of(image=picture(64, 64, 1)),
    Item.of(image=picture(90, 70, 3), text="make it blue"),
    Item.of(images=[picture(64, 64, 1), picture(128, 64, 2)], text="two of them"),
]


@functools.cache
def saved(family: str, template: str = "short", attention: str = "causal") -> tuple[Reranker, Path]:
    model = Reranker.load(checkpoint(family), device="cpu", template=template, attention=attention)  # type: ignore[arg-type]
    folder = workplace() / f"saved-{family}-{template}-{attention}"
    assert model.save(folder) == []
    return model, folder


@functools.cache
def plain(folder: Path) -> Any:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(folder), device="cpu")


def foreign(folder: Path) -> Path:
    """The same folder as someone else's: without what we wrote for ourselves."""
    copy = copy_of(folder, "foreign")
    (copy / "umr_reranker.json").unlink()
    (copy / "pair_template.json").unlink()
    return copy


def as_input(item: Item) -> Any:
    """An item as a user of sentence-transformers writes it."""
    images = [part.open() for part in item.parts if isinstance(part, Image)]
    value: dict[str, Any] = {"image": images if len(images) > 1 else images[0]} if images else {}
    return value | ({"text": item.text} if item.text else {})


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("family", FAMILIES)
def test_plain_cross_encoder_gives_the_same_scores(family: str, attention: str):
    model, folder = saved(family, attention=attention)
    for instruction in (None, INSTRUCTION):
        pairs = [Pair(query, instruction, candidate) for query in SIMPLE for candidate in SIMPLE[1::2]]
        theirs = plain(folder).predict(
            [(as_input(pair.query), as_input(pair.candidate)) for pair in pairs], prompt=instruction, batch_size=5
        )
        ours = model.score_pairs(pairs)
        assert ours.std() > 0.01
        assert np.abs(ours - theirs).max() < TOLERANCE


@pytest.mark.parametrize("template", ["umarvel", "plain"])
def test_other_templates(template: str):
    model, folder = saved("qwen3-vl", template)
    pairs = [Pair(query, None, candidate) for query in SIMPLE[2:5] for candidate in SIMPLE[2:5]]
    theirs = plain(folder).predict([(as_input(pair.query), as_input(pair.candidate)) for pair in pairs])
    assert np.abs(model.score_pairs(pairs) - theirs).max() < TOLERANCE


def test_texts_and_films_as_they_come():
    model, folder = saved("qwen3-vl", "short")
    texts = [Item.of(text=text) for text in ("ring", "a star")]
    assert np.abs(model.score(texts[0], texts) - plain(folder).predict([("ring", "ring"), ("ring", "a star")])).max() < TOLERANCE
    ranked = plain(folder).rank("ring", ["ring", picture(64, 64)], prompt=INSTRUCTION)
    expected = model.score(texts[0], [texts[0], Item.of(image=picture(64, 64))], INSTRUCTION)
    assert np.abs(expected[[one["corpus_id"] for one in ranked]] - [one["score"] for one in ranked]).max() < TOLERANCE
    # Frames of 24 a second, which is what both take for granted.
    theirs = plain(folder).predict([("ring", {"video": film(4)})])
    assert np.abs(model.score(texts[0], [Item.of(video=film(4))]) - theirs).max() < TOLERANCE


def test_qwen3_vl_reranker_convention(tmp_path: Path):
    folder = with_lowercase_answers(tmp_path)
    model = Reranker.load(folder, device="cpu", template="qwen3-vl-reranker")
    assert model.save(tmp_path / "saved") == []
    pairs = [Pair(query, instruction, candidate) for instruction in (None, "Find it.") for query in SIMPLE[2:] for candidate in SIMPLE[2:]]
    ours = model.score_pairs(pairs)
    for instruction in (None, "Find it."):
        where = [index for index, pair in enumerate(pairs) if pair.instruction == instruction]
        asked = [(as_input(pairs[index].query), as_input(pairs[index].candidate)) for index in where]
        assert np.abs(ours[where] - plain(tmp_path / "saved").predict(asked, prompt=instruction)).max() < TOLERANCE
    # Its own weights with modules of its own, rendered by us after all.
    asked_for = Reranker.load(foreign(tmp_path / "saved"), device="cpu", template="qwen3-vl-reranker")
    assert np.abs(asked_for.score_pairs(pairs) - ours).max() < 1e-6
    with pytest.raises(Exception, match="no listwise layout"):
        model.choose(SIMPLE[0], SIMPLE[:2])


def with_lowercase_answers(tmp_path: Path) -> Path:
    """A checkpoint whose tokenizer has "yes" and "no", as the real ones do."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = tmp_path / "lowercase"
    processor = AutoProcessor.from_pretrained(checkpoint("qwen3-vl"))
    processor.tokenizer.add_tokens(["yes", "no"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AutoModelForImageTextToText.from_pretrained(checkpoint("qwen3-vl"))
        network.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
        with torch.no_grad():
            network.get_input_embeddings().weight[-2:].normal_(0, 0.1)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


class TestSaving:
    def test_loads_again_as_it_was(self):
        model, folder = saved("qwen3-vl", "short", "bidirectional")
        again = Reranker.load(folder, device="cpu")
        assert again.fingerprint == model.fingerprint
        candidates = list(ITEMS.values())
        assert np.array_equal(again.score(ITEMS["text"], candidates), model.score(ITEMS["text"], candidates))
        assert np.array_equal(again.choose(ITEMS["text"], candidates[:5]), model.choose(ITEMS["text"], candidates[:5]))
        other = Reranker.load(folder, device="cpu", attention="causal", template="umarvel")
        assert other.fingerprint != model.fingerprint

    def test_settings_are_kept(self, tmp_path: Path):
        Reranker.load(checkpoint("qwen3-vl"), device="cpu", max_tokens=300, max_pixels=9000).save(tmp_path / "model")
        again = Reranker.load(tmp_path / "model", device="cpu")
        assert again.engine.model.settings.max_tokens == 300
        assert again.engine.processor.image_processor.size["longest_edge"] == 9000

    def test_another_model_is_replaced_and_other_things_are_not(self, tmp_path: Path):
        model, folder = saved("qwen3-vl", "short")
        target = tmp_path / "model"
        shutil.copytree(folder, target)
        (target / "left over").touch()
        model.save(target)
        assert not (target / "left over").exists() and [path.name for path in tmp_path.iterdir()] == ["model"]
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "a.txt").touch()
        with pytest.raises(ModelError, match="something else than a model"):
            model.save(tmp_path / "notes")

    def test_an_interrupted_save_leaves_the_old_model(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        model, folder = saved("qwen3-vl", "short")
        target = tmp_path / "model"
        shutil.copytree(folder, target)

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(reranker_exchange.exchange, "write_listing", interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.save(target)
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        assert Reranker.load(target, device="cpu").fingerprint == model.fingerprint

    def test_a_text_only_reranker(self, tmp_path: Path):
        folder = copy_of(text_checkpoint(), "causal-lm")
        config = json.loads((folder / "config.json").read_text("utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}), "utf-8")
        model = Reranker.load(folder, device="cpu")
        assert model.save(tmp_path / "saved") == []
        for instruction in (None, INSTRUCTION):
            theirs = plain(tmp_path / "saved").predict([("blue ring", text) for text in TEXTS[:5]], prompt=instruction)
            ours = model.score(Item.of(text="blue ring"), [Item.of(text=text) for text in TEXTS[:5]], instruction)
            assert np.abs(ours - theirs).max() < TOLERANCE

    def test_the_embedder_says_what_it_is(self):
        with pytest.raises(ModelError, match=r"a reranker, which gives no vectors; load it with Reranker\.load"):
            Embedder.load(saved("qwen3-vl", "short")[1], device="cpu")

    @pytest.mark.parametrize("name", BUILT_IN)
    def test_the_chat_template_refuses_other_roles(self, name: str):
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

        def refuse(message: str) -> None:
            raise ValueError(message)

        environment.globals["raise_exception"] = refuse
        render = environment.from_string(reranker_exchange.jinja(BUILT_IN[name], timestamps=False)).render
        roles = [{"role": "query", "content": "ring"}, {"role": "document", "content": [{"type": "text", "text": "star"}]}]
        assert "ring" in render(messages=roles) and "star" in render(messages=roles)
        with pytest.raises(ValueError, match="roles query and document"):
            render(messages=[{"role": "user", "content": "ring"}])


class TestForeign:
    def test_a_multimodal_one_keeps_its_scores(self):
        model, folder = saved("qwen3-vl", "short")
        other = Reranker.load(foreign(folder), device="cpu")
        assert isinstance(other.engine, CrossEncoderEngine) and len(other.fingerprint) == 16
        queries = [ITEMS["text"], ITEMS["image+video+text"], Item((Text("before"), *ITEMS["image"].parts))]
        pairs = [Pair(query, ins, candidate) for query in queries for candidate in ITEMS.values() for ins in (None, INSTRUCTION)]
        assert np.abs(other.score_pairs(pairs) - model.score_pairs(pairs)).max() < TOLERANCE
        with pytest.raises(ModelError, match="cannot choose among several"):
            other.choose(ITEMS["text"], [ITEMS["text"], ITEMS["image"]])
        with pytest.raises(ModelError, match="save it with its own"):
            other.save(workplace() / "never")

    def test_a_pooled_head(self, tmp_path: Path):
        from sentence_transformers import CrossEncoder
        from sentence_transformers.base.modules import Dense, Transformer
        from sentence_transformers.sentence_transformer.modules import Pooling

        chat = {"chat_template": reranker_exchange.jinja(BUILT_IN["short"], timestamps=True)}
        language = Transformer(str(checkpoint("qwen3-vl")), transformer_task="feature-extraction", processor_kwargs=chat)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            head = Dense(128, 1, activation_function=None, module_input_name="sentence_embedding", module_output_name="scores")
        theirs = CrossEncoder(modules=[language, Pooling(128, "mean"), head], device="cpu")
        theirs.save_pretrained(str(tmp_path / "model"))
        ours = Reranker.load(tmp_path / "model", device="cpu")
        expected = theirs.predict([(as_input(SIMPLE[0]), as_input(item)) for item in SIMPLE], activation_fn=torch.nn.Sigmoid())
        assert np.abs(ours.score(SIMPLE[0], SIMPLE) - expected).max() < TOLERANCE

    def test_a_text_only_classifier(self, tmp_path: Path):
        from sentence_transformers import CrossEncoder
        from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

        tokenizer = AutoTokenizer.from_pretrained(text_checkpoint())
        size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for labels in (1, 3):
                config = BertConfig(vocab_size=len(tokenizer), num_labels=labels, initializer_range=0.3, **size)
                BertForSequenceClassification(config).save_pretrained(tmp_path / str(labels))
                tokenizer.save_pretrained(tmp_path / str(labels))
        ours = Reranker.load(tmp_path / "1", device="cpu")
        expected = CrossEncoder(str(tmp_path / "1"), device="cpu").predict([("ring", text) for text in TEXTS[:5]])
        got = ours.score(Item.of(text="ring"), [Item.of(text=text) for text in TEXTS[:5]])
        assert expected.std() > 0 and np.abs(got - expected).max() < TOLERANCE
        with pytest.raises(MediaError, match="holds image, which this model does not take"):
            ours.score(Item.of(text="ring"), [ITEMS["image"]])
        with pytest.raises(ModelError, match="gives 3 scores a pair"):
            Reranker.load(tmp_path / "3", device="cpu")

    def test_what_is_no_reranker(self, tmp_path: Path):
        _, folder = saved("qwen3-vl", "short")
        with pytest.raises(ModelError, match="max_tokens would have no effect"):
            Reranker.load(foreign(folder), device="cpu", max_tokens=99)
        with pytest.raises(ModelError, match="pixel budgets would have no effect"):
            Reranker.load(foreign(folder), device="cpu", max_pixels=9000)
        copy = foreign(folder)
        about = json.loads((copy / "config_sentence_transformers.json").read_text("utf-8"))
        (copy / "config_sentence_transformers.json").write_text(json.dumps({**about, "model_type": "SentenceTransformer"}), "utf-8")
        with pytest.raises(ModelError, match=r"a SentenceTransformer, not a CrossEncoder; load it with Embedder\.load"):
            Reranker.load(copy, device="cpu")
        (copy / "config_sentence_transformers.json").unlink()
        with pytest.raises(ModelError, match="does not say what kind"):
            Reranker.load(copy, device="cpu")
