"""What an import makes of a released folder, and what it refuses. The vectors: tests/numerics/test_published_checkpoints.py."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from published import MARKERS, SPARE_ROWS, TEMPERATURE, released
from umr.cli import main
from umr.errors import ModelError
from umr.items import Item
from umr.models.embedder import Embedder
from umr.models.importing import PUBLISHED, import_checkpoint
from umr.models.settings import ModelSettings

SHARD = "model-00001-of-00002.safetensors"


def broken(name: str = "released") -> Path:
    return tiny.copy_of(released(), name)


def change_weights(folder: Path, change) -> None:
    """Rewrite the shards as one file, after `change` has had the tensors."""
    state = {}
    for file in sorted(folder.glob("*.safetensors")):
        state |= load_file(file)
        file.unlink()
    (folder / "model.safetensors.index.json").unlink()
    change(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def test_what_is_written_down(tmp_path: Path):
    done = import_checkpoint("umarvel", released(), tmp_path / "out")
    assert (done.temperature, done.added_tokens, done.new_rows) == (TEMPERATURE, MARKERS, 0)
    assert ModelSettings.load(done.folder) == ModelSettings("bidirectional", "flat", "mean", None, 1024, TEMPERATURE, "joined")
    model = Embedder.load(done.folder)
    image, video = model.engine.processor.image_processor.size, model.engine.processor.video_processor.size
    assert (image["shortest_edge"], image["longest_edge"]) == (3136, 235200)
    assert video["longest_edge"] == 768 * 28 * 28
    assert model.engine.renderer.template == PUBLISHED["umarvel"].template
    old = json.loads((released() / "tokenizer.json").read_text("utf-8"))
    first = max(token["id"] for token in old["added_tokens"]) + 1
    assert model.engine.renderer.tokenizer.convert_tokens_to_ids(list(MARKERS)) == [first, first + 1, first + 2]


def test_added_tokens_keep_the_rows_they_land_on(tmp_path: Path):
    import_checkpoint("umarvel", released(), tmp_path / "out")
    old = next(t["model.embed_tokens.weight"] for t in map(load_file, released().glob("*.safetensors")) if "model.embed_tokens.weight" in t)
    new = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(new["language_model.embed_tokens.weight"], old)


def test_rows_are_made_where_there_are_none(tmp_path: Path):
    folder = broken()
    config = json.loads((folder / "config.json").read_text())
    config["vocab_size"] -= SPARE_ROWS - 1  # one is left
    (folder / "config.json").write_text(json.dumps(config))

    def cut(state: dict[str, torch.Tensor]) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            state[name] = state[name][: config["vocab_size"]].clone()

    change_weights(folder, cut)
    done = import_checkpoint("umarvel", folder, tmp_path / "out")
    assert done.new_rows == 2
    rows_VD = load_file(tmp_path / "out" / "model.safetensors")["language_model.embed_tokens.weight"]
    torch.testing.assert_close(rows_VD[-2:], rows_VD[:-2].mean(0).expand(2, -1))
    Embedder.load(tmp_path / "out").encode([Item.of(text="a")], "query", "Find.")


def test_a_tokenizer_that_has_the_tokens(tmp_path: Path):
    first = import_checkpoint("umarvel", released(), tmp_path / "first")
    folder = broken()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(first.folder / name, folder / name)
    done = import_checkpoint("umarvel", folder, tmp_path / "second")
    assert done.added_tokens == ()
    assert Embedder.load(first.folder).fingerprint == Embedder.load(done.folder).fingerprint


def test_tokens_that_are_there_without_being_special(tmp_path: Path):
    folder = broken()
    data = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    id = max(token["id"] for token in data["added_tokens"]) + 1
    data["added_tokens"].append({**data["added_tokens"][-1], "id": id, "content": "<emb>", "special": False})
    (folder / "tokenizer.json").write_text(json.dumps(data), "utf-8")
    done = import_checkpoint("lamra", folder, tmp_path / "out")
    assert done.added_tokens == ()
    assert Embedder.load(done.folder).engine.renderer.tokenizer.convert_tokens_to_ids("<emb>") == id


def test_a_checkpoint_without_a_temperature(tmp_path: Path):
    assert import_checkpoint("lamra", released(None), tmp_path / "out").temperature is None
    assert ModelSettings.load(tmp_path / "out") == ModelSettings("causal", "flat", "token_before_emb", None, 1024, None, "joined")


def test_a_temperature_that_peft_has_wrapped(tmp_path: Path):
    def wrap(state: dict[str, torch.Tensor]) -> None:
        state["sim.original_module.temp"] = torch.tensor(0.05)
        state["sim.modules_to_save.default.temp"] = state.pop("sim.temp").reshape(1)

    folder = broken()
    change_weights(folder, wrap)
    assert import_checkpoint("umarvel", folder, tmp_path / "out").temperature == TEMPERATURE


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.update({"sim.temp": torch.zeros(2)}), "sim.temp must be one positive number"),
        (lambda s: s.update({"sim.temp": torch.tensor(-1.0)}), "sim.temp must be one positive number"),
        (lambda s: s.update({"latent_attention.w": torch.ones(2)}), "holds latent_attention.w, which is no part of the published model"),
        (lambda s: s.update({"base_model.model.a.lora_A.weight": torch.ones(2)}), "holds LoRA adapters"),
        (lambda s: s.pop("model.norm.weight"), "the weights lack 1 tensors, language_model.norm.weight among them"),
    ],
)
def test_weights_that_are_not_the_published_model(change, says: str, tmp_path: Path):
    folder = broken()
    change_weights(folder, change)
    with pytest.raises(ModelError, match=says):
        import_checkpoint("umarvel", folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def pickled(folder: Path) -> None:
    for file in folder.glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))


def other_family(folder: Path) -> None:
    shutil.copy(tiny.checkpoint("qwen3-vl") / "config.json", folder / "config.json")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (pickled, r"its weights are pickled \(model-00001-of-00002.bin\), which can run code"),
        (other_family, "a qwen3_vl checkpoint; umarvel was published as qwen2_vl"),
        (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer"),
        (lambda folder: [file.unlink() for file in folder.glob("model*")], "holds no weights"),
        (lambda folder: (folder / SHARD).write_bytes(b"x" * 100), f"{SHARD}: damaged"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_folders_that_are_refused(damage, says: str, tmp_path: Path):
    folder = broken()
    damage(folder)
    with pytest.raises(ModelError, match=says) as error:
        import_checkpoint("umarvel", folder, tmp_path / "out")
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_something_is_there_already(tmp_path: Path):
    with pytest.raises(ModelError, match="exists already"):
        import_checkpoint("umarvel", released(), tmp_path)
    with pytest.raises(ModelError, match="unknown kind"):
        import_checkpoint("clip", released(), tmp_path / "out")


def test_an_interrupted_import_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ModelSettings, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        import_checkpoint("umarvel", released(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["import", "umarvel", str(released()), str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out.replace("\n", " ")
    assert "umarvel, " in said and "temperature 0.0325" in said and "added <emb> <instruction_start> <instruction_end>" in said
    assert main(["import", "umarvel", str(released()), str(tmp_path / "out")]) == 1
    assert "exists already" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("kind", sorted(PUBLISHED))
def test_a_saved_import_stays_what_it_is(kind: str, tmp_path: Path):
    import_checkpoint(kind, released(), tmp_path / "out")
    model = Embedder.load(tmp_path / "out")
    assert any("positions='flat'" in reason for reason in model.save(tmp_path / "again"))
    again = Embedder.load(tmp_path / "again")
    assert (again.fingerprint, again.query_text) == (model.fingerprint, "joined")
