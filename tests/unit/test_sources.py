import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import training_data
from umr.data.mbeir import MBeir
from umr.errors import DataError, RecipeError
from umr.mining.mine import mine_with
from umr.mining.negatives import NegativeTable
from umr.mining.settings import MineSettings
from umr.progress import quiet
from umr.training import recipe as recipes
from umr.training.examples import draw
from umr.training.sources import open_sources
from unit.mbeir_fixture import BagEncoder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    training_data.write_tree(root / "tree")
    training_data.write_captions(root / "captions", training_data.SCENES[:7])
    training_data.write_captions(root / "more", training_data.SCENES[50:57])
    training_data.write_pairs(root / "pairs")
    return root


def opened(*sections: dict[str, Any], negatives: int = 0, seed: int = 0):
    training = {"batch_size": 2, "steps": 1, "learning_rate": 1, "seed": seed}
    tree = {"name": "x", "model": {"path": "m"}, "data": list(sections), "loss": {"negatives": negatives}, "training": training}
    return open_sources(recipes.parse(tree, "recipe"))


def mbeir(data: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "mbeir", "path": str(data / "tree"), **more}


def captions(data: Path, name: str = "captions", **more: Any) -> dict[str, Any]:
    return {"kind": "captions", "path": str(data / name / "captions.jsonl"), **more}


def pairs(data: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "text_pairs", "path": str(data / "pairs" / "nli.csv"), **more}


def test_all_kinds_with_their_weights_and_fingerprints(data: Path):
    sources, weights, prints = opened(mbeir(data, weights={"shapes_task7": 3}), captions(data, weight=0.5), pairs(data))
    sizes = {source.name: (len(source), weight) for source, weight in zip(sources, weights, strict=True)}
    assert sizes == {
        "mixed": (7, 1.0),
        "shapes_task0": (16, 1.0),
        "shapes_task7": (16, 3.0),
        "captions": (7, 0.5),
        "text_pairs": (24, 1.0),
    }
    assert [key.split(":")[0] for key in prints] == ["mbeir", "captions", "text_pairs"] and len(set(prints.values())) == 3


def test_an_example_of_a_tree(data: Path):
    (source,), _, _ = opened(mbeir(data, settings=["shapes_task0"]), negatives=1)
    first = source.example(0, 0)
    assert first.query.text == "A red circle in the top left." and first.query.modality == "text"
    assert first.positive.id in ("1:0", "1:16") and first.positives == ("1:0", "1:16")
    assert first.positive.modality == "image" and [item.id for item in first.negatives] == ["1:32"]
    assert first.instruction is not None and first.instruction.endswith(".")
    assert source.example(0, 0) == first, "the same whenever it is asked for"


def test_passes_draw_other_positives_and_wordings(data: Path):
    (source,), _, _ = opened(mbeir(data, settings=["shapes_task0"]))
    examples = [source.example(0, epoch) for epoch in range(40)]
    assert {example.positive.id for example in examples} == {"1:0", "1:16"}
    assert len({example.instruction for example in examples}) == 4
    assert all(not example.negatives for example in examples), "none were asked for"
    (other,), _, _ = opened(mbeir(data, settings=["shapes_task0"]), seed=1)
    assert [other.example(0, epoch).instruction for epoch in range(40)] != [example.instruction for example in examples]


@pytest.mark.parametrize(("mode", "wordings"), [("first", {"Find a picture of this."}), ("none", {None})])
def test_fixed_and_no_instructions(data: Path, mode: str, wordings: set[str | None]):
    (source,), _, _ = opened(mbeir(data, settings=["shapes_task0"], instructions=mode))
    assert {source.example(index, epoch).instruction for index in range(16) for epoch in range(5)} == wordings


def test_a_file_of_several_tasks_without_task_ids_and_with_a_repeated_qid(data: Path):
    (source,), _, _ = opened(mbeir(data, settings=["mixed"]))
    assert len(source) == 7
    assert [source.example(index, 0).query.modality for index in range(4)] == ["text", "image,text", "text", "image,text"]
    assert source.example(1, 0).instruction.endswith("changed.")


def test_pairs_and_their_negatives(data: Path):
    sources, _, _ = opened(captions(data), pairs(data), negatives=1)
    picture, sentence = (source.example(3, 5) for source in sources)
    assert picture.query.text == training_data.caption(training_data.SCENES[3]) and picture.instruction is None
    assert picture.positive.modality == "image" and picture.negatives == ()
    assert [item.text.split()[0] for item in sentence.negatives] == ["there"]
    assert sentence.positives == (sentence.positive.id,)
    (without,), _, _ = opened(pairs(data))
    assert without.example(3, 0).negatives == ()


def test_two_files_of_a_kind_do_not_share_ids(data: Path):
    (one, other), _, _ = opened(captions(data), captions(data, "more"))
    first, second = one.example(0, 0), other.example(0, 0)
    assert first.positive.id == second.positive.id and first.positive.digest != second.positive.digest
    assert first.space != second.space


def test_a_partial_tree_is_used_as_far_as_it_goes(data: Path, tmp_path: Path):
    root = training_data.write_tree(tmp_path / "tree")
    (root / "images" / "0.png").unlink()
    pool = root / "cand_pool" / "global" / "mbeir_union_train_cand_pool.jsonl"
    pool.write_text("".join(line for line in pool.open() if json.loads(line)["did"] not in ("1:1", "1:33")))
    (source,), _, _ = opened({"kind": "mbeir", "path": str(root), "settings": ["shapes_task0"], "on_error": "skip"}, negatives=1)
    examples = [source.example(index, 0) for index in range(len(source))]
    assert len(examples) == 15, "query 1 has lost its only positive"
    assert examples[0].positives == ("1:16",) and examples[0].query.id == "1:0"
    (whole,), _, _ = opened({"kind": "mbeir", "path": str(root), "settings": ["shapes_task0"]})
    with pytest.raises(DataError, match="1:1"):
        whole.example(1, 0)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"settings": ["shapes_task1"]}, "has no training setting 'shapes_task1'; it has mixed, shapes_task0, shapes_task7"),
        ({"weights": {"shapes": 2}}, "has no training setting 'shapes'"),
        ({"settings": ["mixed"], "weights": {"shapes_task0": 2}}, "a weight for 'shapes_task0' has no effect"),
    ],
)
def test_settings_that_are_not_there(data: Path, section: dict[str, Any], says: str):
    with pytest.raises(RecipeError, match=says):
        opened(mbeir(data, **section))


def test_negatives_that_nobody_has(data: Path):
    with pytest.raises(RecipeError, match=r"loss\.negatives has no effect"):
        opened(mbeir(data, settings=["shapes_task7"]), negatives=2)


@pytest.mark.parametrize("kind", ["mbeir", "captions", "text_pairs"])
def test_data_that_is_not_there(tmp_path: Path, kind: str):
    with pytest.raises(DataError, match="nowhere") as error:
        opened({"kind": kind, "path": str(tmp_path / "nowhere")})
    assert "\n" not in str(error.value)


def test_draws_are_even_and_depend_on_the_seed():
    counts = [sum(draw(0, str(key), 3) == number for key in range(3000)) for number in range(3)]
    assert all(900 < count < 1100 for count in counts)
    assert [draw(0, str(key), 3) for key in range(20)] != [draw(1, str(key), 3) for key in range(20)]


def test_negatives_for_some_settings_only(data: Path):
    sources, _, _ = opened(mbeir(data, settings=["shapes_task0", "shapes_task7"], negatives_for=["shapes_task0"]), negatives=1)
    held = {source.name: {len(source.example(index, 0).negatives) for index in range(len(source))} for source in sources}
    assert 1 in held["shapes_task0"] and held["shapes_task7"] == {0}
    with pytest.raises(RecipeError, match="negatives_for has no effect"):
        opened(mbeir(data, negatives_for=["shapes_task0"]))
    with pytest.raises(RecipeError, match="nowhere_task0"):
        opened(mbeir(data, negatives_for=["nowhere_task0"]), negatives=1)


def test_mined_negatives_belong_to_the_data_that_they_were_mined_from(data: Path, tmp_path: Path):
    with quiet():
        out = mine_with(BagEncoder(), MBeir(data / "tree"), tmp_path / "mined", MineSettings(max_similarity=None), tmp_path / "work")
    sources, _, prints = opened(mbeir(data, mined=str(out)), negatives=2)
    table = NegativeTable(out)
    for source in sources:
        for index in range(len(source)):
            example = source.example(index, 0)
            assert [item.id for item in example.negatives] and {item.id for item in example.negatives} <= set(table.of(example.query.id))
    assert prints[f"mined:{out}"] == table.fingerprint
    other = training_data.write_tree(tmp_path / "tree")
    file = MBeir(other).query_path("shapes_task0", "train")
    file.write_text("".join(reversed(file.open().readlines())))
    with pytest.raises(RecipeError, match="was mined from other data than what is in"):
        opened({"kind": "mbeir", "path": str(other), "mined": str(out)}, negatives=2)


def test_negatives_are_drawn_anew_each_epoch(world: Path):
    section = {"kind": "mbeir", "path": str(world), "settings": ["edits_task7"]}
    (source,), _, _ = opened(section, negatives=2)
    drawn = [tuple(item.id for item in source.example(0, epoch).negatives) for epoch in range(8)]
    assert len(set(drawn)) > 1 and all(len(set(ids)) == 2 for ids in drawn)
    assert drawn[3] == tuple(item.id for item in source.example(0, 3).negatives)
    assert not {did for ids in drawn for did in ids} & set(source.example(0, 0).positives)


def test_strangers_answer_other_queries_and_are_drawn_anew_each_epoch(data: Path):
    training = {"batch_size": 2, "steps": 1, "learning_rate": 1}
    loss = {"kind": "rerank", "negatives": 0, "strangers": 3}
    tree = {"name": "x", "model": {"path": "m"}, "data": [mbeir(data), captions(data), pairs(data)], "loss": loss, "training": training}
    sources, _, _ = open_sources(recipes.parse(tree, "recipe"))
    for source in sources:
        answers = {did for index in range(len(source)) for did in source.example(index, 0).positives}
        seen = set()
        for index in range(len(source)):
            example = source.example(index, 0)
            assert example.strangers == source.example(index, 0).strangers and example.negatives == ()
            assert len(example.strangers) <= 3 and not {item.id for item in example.strangers} & set(example.positives)
            assert {item.id for item in example.strangers} <= answers
            seen |= {item.id for item in example.strangers}
        assert len(seen) > 1
        assert any(source.example(index, 0).strangers != source.example(index, 1).strangers for index in range(len(source)))
