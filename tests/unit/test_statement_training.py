"""Generative training: the loss is a language model's, its gradient the same in chunks, and what comes out reranks zero-shot."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
import yaml

from tiny import checkpoint, picture
from umr.data.statements import Statement, Statements
from umr.errors import DataError, RecipeError
from umr.evaluation.statements import accuracy, answer
from umr.items import Image, Item, Text
from umr.models.reranker import Reranker
from umr.rendering.pairs import Pair
from umr.rendering.prompts import chat_frame
from umr.training import learners
from umr.training import recipe as recipes
from umr.training.run import train
from umr.training.statements import StatementSource

PROMPTS = {
    "answers": ["Yes", "No"],
    "frame": "<|im_start|>user\n{message}<|im_end|>\n<|im_start|>assistant\n",
    "prompts": {"any": "{query}|{candidate}?", "text -> image": "{candidate}{query}?"},
}
RED, BLUE = picture(64, 64, 1), picture(64, 64, 2)
STATEMENTS = [
    Statement(Item((Image(RED), Text("a red circle?"))), True, "describes"),
    Statement(Item((Image(BLUE), Text("a red circle, two of them moving over the scene?"))), False, "describes", "easy"),
    Statement(Item((Text("make it blue"),)), True, "texts"),
    Statement(Item((Image(RED), Text("make it blue"), Image(BLUE), Text("so?"))), False, "change", "near"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompts file, and statements of pictures that are all red or all blue."""
    root = tmp_path_factory.mktemp("statements")
    (root / "prompts.yaml").write_text(yaml.safe_dump(PROMPTS), "utf-8")
    lines = []
    for number in range(16):
        colour, asked = ("red", "blue")[number % 2], ("red", "blue")[number // 2 % 2]
        plain(colour, number).save(root / f"{number}.png")
        parts = [{"image": f"{number}.png"}, {"text": f"{asked}?"}]
        row = {"id": str(number), "parts": parts, "answer": colour == asked, "kind": "colour"}
        lines.append(json.dumps(row if colour == asked else {**row, "miss": "near"}))
    (root / "statements.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return root


def plain(colour: str, number: int) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (64, 64), (200 + number, 30, 30) if colour == "red" else (30, 30, 200 + number))


def tree(folder: Path, **training: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "model": {"path": str(checkpoint("qwen3-vl")), "template": str(folder / "prompts.yaml"), "attention": "bidirectional"},
        "data": [{"kind": "statements", "path": str(folder / "statements.jsonl"), "images": str(folder)}],
        "loss": {"kind": "generative"},
        "training": {"batch_size": 4, "steps": 1, "learning_rate": 1e-3, "workers": 0, **training},
    }


def learner(folder: Path, **training: Any) -> Any:
    made = learners.load(recipes.parse(tree(folder, **training), "recipe"))
    made.module.train()
    return made


def test_the_loss_is_the_next_tokens_over_the_whole_vocabulary(folder: Path):
    """Against transformers' own model with its own chat template and all logits."""
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    path = checkpoint("qwen3-vl")
    config = AutoConfig.from_pretrained(path, text_config={"is_causal": False})
    model, processor = AutoModelForImageTextToText.from_pretrained(path, config=config).eval(), AutoProcessor.from_pretrained(path)
    expected = 0.0
    for one in STATEMENTS:
        block = "<|vision_start|><|image_pad|><|vision_end|>"
        shown = "".join(part.text if isinstance(part, Text) else block for part in one.message.parts)
        images = [part.open() for part in one.message.parts if isinstance(part, Image)]
        text = PROMPTS["frame"].replace("{message}", shown)
        with torch.no_grad():
            logits_V = model(**processor(text=[text], images=images or None, return_tensors="pt")).logits[0, -1]
        target = processor.tokenizer.convert_tokens_to_ids("Yes" if one.answer else "No")
        expected += float(F.cross_entropy(logits_V[None], torch.tensor([target]))) / 4
    made = learner(folder)
    loss = made.objective.backward(made.module, made.objective.build([[one] for one in STATEMENTS]), nullcontext)
    assert float(loss) == pytest.approx(expected, abs=1e-5)
    assert expected > 2  # not the cross-entropy of two answers


def test_chunks_and_shares_add_up_to_the_same_gradient(folder: Path):
    def gradient(made: Any, shares: list[list[Statement]]) -> torch.Tensor:
        for share in shares:
            made.objective.backward(made.module, made.objective.build([[one] for one in share]), nullcontext)
        return torch.cat([parameter.grad.flatten() for parameter in made.module.parameters() if parameter.grad is not None])

    whole = gradient(learner(folder, chunk_tokens=10_000), [STATEMENTS])
    assert torch.allclose(gradient(learner(folder, chunk_tokens=1), [STATEMENTS]), whole, atol=2e-5)
    assert torch.allclose(gradient(learner(folder), [STATEMENTS[::2], STATEMENTS[1::2]]), whole, atol=2e-5)
    assert whole.abs().max() > 1e-3


def test_statements_of_a_group_compete(folder: Path):
    """Against plain sums over the logits: a pair, a row on its own, and a group with two right answers, which has no first."""
    groups = [[STATEMENTS[0], STATEMENTS[1]], [STATEMENTS[2]], [STATEMENTS[0], STATEMENTS[2], STATEMENTS[3]]]
    made = learners.load(recipes.parse({**tree(folder), "loss": {"kind": "generative", "ranking": 0.4}}, "recipe"))
    batch = made.objective.build(groups)
    assert batch.groups == [[0, 1], [2], [3], [4], [5]]
    with torch.no_grad():
        logits_RV = made.module(batch.rows, True).double()
    yes, no = made.objective.yes_id, made.objective.no_id
    odds_R = logits_RV[:, yes] - logits_RV[:, no]
    answers = -logits_RV.log_softmax(1)[range(6), [yes, no, yes, yes, yes, no]]
    expected = 0.6 * float(answers[:2].mean() + answers[2] + answers[3:].mean()) + 0.4 * float(F.softplus(odds_R[1] - odds_R[0]))
    for tokens in (10_000, 1):
        made.objective.training = made.objective.training.model_copy(update={"chunk_tokens": tokens})
        loss = made.objective.backward(made.module, batch, nullcontext)
        assert float(loss) * 4 == pytest.approx(expected, abs=1e-4)


def test_groups_are_read_from_the_file(tmp_path: Path):
    rows = [("a", "x", False), ("b", "x", True), ("c", "", True), ("d", "", False), ("e", "y", True)]
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"id": id, "group": group, "parts": [{"text": id}], "answer": answer}) for id, group, answer in rows]
    path.write_text("\n".join(lines))
    source = StatementSource("statements", Statements(path, tmp_path))
    assert [[one.message.id for one in source.example(index, 0)] for index in range(len(source))] == [["b", "a"], ["c"], ["d"], ["e"]]


def test_a_trained_model_answers_and_reranks(folder: Path, tmp_path: Path):
    path = train(recipes.parse(tree(folder, steps=60, batch_size=16, learning_rate=3e-3), "recipe"), out=tmp_path / "run")
    model, statements = Reranker.load(path, device="cpu"), Statements(folder / "statements.jsonl", folder)
    assert accuracy(model, statements) == {"colour": {"all": 100.0, "true": 100.0, "near": 100.0}}
    messages = [statements[row].message for row in range(4)]
    assert np.abs(answer(model, messages[::-1])[::-1] - answer(model, messages)).max() < 1e-5
    assert chat_frame(model.engine.processor, "") == PROMPTS["frame"]
    # The prompt for text -> image is the wording of the statements, so what was learned there ranks candidates.
    red, blue = (Item.of(image=plain(colour, 40)) for colour in ("red", "blue"))
    scores = model.score(Item.of(text="blue"), [red, blue])
    assert scores[1] > 0.9 > 0.1 > scores[0]
    message = Item((*blue.parts, Text("blue?")))
    assert model.score_pairs([Pair(Item.of(text="blue"), None, blue)])[0] == pytest.approx(answer(model, [message])[0], abs=1e-5)
    (tmp_path / "swapped.yaml").write_text(yaml.safe_dump({**PROMPTS, "answers": ["No", "Yes"]}))
    swapped = Reranker.load(path, template=tmp_path / "swapped.yaml", device="cpu")
    assert np.allclose(swapped.score(Item.of(text="blue"), [red, blue]), 1 - scores, atol=1e-5)
    assert swapped.fingerprint != model.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": {"kind": "rerank"}}, "data: kind statements and loss.kind=generative go together"),
        ({"data": [{"kind": "captions", "path": "x"}]}, "data: kind statements and loss.kind=generative go together"),
        ({"model": {"path": "x"}}, "model.template: generative training needs a prompts file"),
        ({"model": {"path": "x", "template": "p.yaml", "pooling": "mean"}}, "model.pooling has no effect"),
        ({"loss": {"kind": "generative", "negatives": 1}}, "unknown key 'loss.negatives'"),
    ],
)
def test_recipes_that_make_no_sense(folder: Path, change: dict[str, Any], message: str):
    with pytest.raises(RecipeError, match=message):
        recipes.parse({**tree(folder), **change}, "recipe")


def test_the_wrong_folder_of_images_stops_before_training(folder: Path, tmp_path: Path):
    wrong = tree(folder)
    wrong["data"][0]["images"] = str(tmp_path)
    with pytest.raises(DataError, match="say with `images`"):
        train(recipes.parse(wrong, "recipe"), out=tmp_path / "run")


def test_the_recipe_of_world_is_valid_and_speaks_as_its_statements_do():
    from umr.data.world.statements import QUESTIONS
    from umr.rendering.prompts import Prompts

    root = Path(__file__).parents[2] / "recipes" / "mm-embed-world"
    recipe = recipes.load(root / "generative.yaml")
    assert recipe.loss.kind == "generative" and recipe.model.template == "recipes/mm-embed-world/prompts.yaml"
    asked = [questions[0] for questions in QUESTIONS.values()]
    for prompt in Prompts.load(root / "prompts.yaml").prompts.values():
        assert any(prompt.endswith(question) for question in asked)
