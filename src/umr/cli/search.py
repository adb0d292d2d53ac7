"""`umr search`: find things in a collection."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from umr.search.collection import Collection
    from umr.search.hits import Hit, Results

SHOWN = 70
"""Characters of a hit's text in the table."""


class SearchMode(StrEnum):
    """What ranks."""

    vector = "vector"
    words = "words"
    hybrid = "hybrid"


def search(
    collection: Annotated[Path, typer.Option(help="Folder of the collection.")],
    text: Annotated[str | None, typer.Option(help="What to search for, in words.")] = None,
    image: Annotated[Path | None, typer.Option(help="Image to search with; with --text, the two are one question.")] = None,
    video: Annotated[Path | None, typer.Option(help="Video to search with.")] = None,
    like: Annotated[str | None, typer.Option(metavar="ID", help="Find what is nearest to this row instead.")] = None,
    minus: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="What to avoid, in words. May be repeated.")] = None,
    minus_image: Annotated[list[Path] | None, typer.Option(help="What to avoid, as an image. May be repeated.")] = None,
    text_weight: Annotated[
        float | None, typer.Option(help="Embed text and media apart and add them up, the text with this weight. Default: 1.")
    ] = None,
    media_weight: Annotated[float | None, typer.Option(help="The same, the image or video with this weight. Default: 1.")] = None,
    minus_weight: Annotated[float | None, typer.Option(help="How much of what is to be avoided is subtracted. Default: 0.5.")] = None,
    instruction: Annotated[
        str | None, typer.Option(help="What to find, for models that take instructions. Default: the collection's.")
    ] = None,
    where: Annotated[list[str] | None, typer.Option(help="Condition such as 'year>=2020' or colour=red. May be repeated.")] = None,
    modality: Annotated[list[str] | None, typer.Option(help="Find only this: text, image, image,text or video. May be repeated.")] = None,
    k: Annotated[int, typer.Option("-k", "--results", min=1, help="Results.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="Results to pass over.")] = 0,
    mode: Annotated[SearchMode, typer.Option(help="Rank by vectors, by words (BM25), or by both.")] = SearchMode.vector,
    depth: Annotated[int | None, typer.Option(min=1, help="Of a hybrid search: results of each kind to merge. Default: 200.")] = None,
    words_weight: Annotated[float | None, typer.Option(help="Of a hybrid search: weight of words. Default: 1, as of vectors.")] = None,
    reranker: Annotated[str | None, typer.Option(help="Rerank the first results: folder or hub id of a reranker.")] = None,
    rerank_depth: Annotated[int | None, typer.Option(min=1, help="Results to rerank. Default: 50.")] = None,
    rerank_seconds: Annotated[float | None, typer.Option(help="Stop reranking after this time.")] = None,
    rerank_weight: Annotated[
        float | None, typer.Option(help="Order reranked results by cosine + WEIGHT * P(Yes). Default: 1 in mode vector, else P(Yes) alone.")
    ] = None,
    calibration: Annotated[Path | None, typer.Option(help="Add offsets by modality: a file that umr calibrate wrote.")] = None,
    group_by: Annotated[str | None, typer.Option(help="source, or a metadata field: of each value only the best results.")] = None,
    per_group: Annotated[int | None, typer.Option(min=1, help="How many of each. Default: 1.")] = None,
    model: Annotated[str | None, typer.Option(help="Where the collection's model is now. Default: where it was.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")] = False,
) -> None:
    """Search a collection with text, an image, a video, or several of them together."""
    from umr.cli import console

    options: dict[str, Any] = {"where": where, "modalities": modality, "k": k, "offset": offset, "group_by": group_by}
    options |= {"per_group": per_group}
    only_asked: dict[str, object] = {
        "text": text,
        "image": image,
        "video": video,
        "minus": minus,
        "minus-image": minus_image,
        "instruction": instruction,
    }
    only_asked |= {"text-weight": text_weight, "media-weight": media_weight, "minus-weight": minus_weight, "depth": depth}
    only_asked |= {"words-weight": words_weight, "reranker": reranker, "rerank-depth": rerank_depth, "rerank-seconds": rerank_seconds}
    only_asked |= {"rerank-weight": rerank_weight, "calibration": calibration, "model": model}
    only_asked["mode"] = None if mode is SearchMode.vector else mode
    if like is not None:
        found = _like(collection, like, only_asked, options)
    else:
        asked = _question(text, image, video, text_weight, media_weight)
        asked |= {"minus": _minus(minus, minus_image, minus_weight), "instruction": instruction}
        options |= {"mode": mode.value, "depth": depth, "words_weight": words_weight, "reranker": reranker, "rerank_depth": rerank_depth}
        options |= {"rerank_seconds": rerank_seconds, "rerank_weight": rerank_weight, "calibration": calibration}
        if mode is not SearchMode.words or reranker is not None:
            console.hush_transformers()
        found = _open(collection, model, mode).search(**asked, **options)
    _show(found, json)


def _open(folder: Path, model: str | None, mode: SearchMode) -> Collection:
    from umr.errors import RecipeError
    from umr.search.collection import Collection

    if mode is SearchMode.words and model is not None:
        raise RecipeError("--model has no effect in mode words, which embeds nothing; leave it out")
    return Collection.open(folder, model)


def _like(folder: Path, id: str, only_asked: dict[str, object], options: dict[str, Any]) -> Results:
    from umr.errors import RecipeError
    from umr.search.collection import Collection

    for name, value in only_asked.items():
        if value is not None:
            raise RecipeError(f"--{name} has no effect with --like, which searches with a stored vector; leave it out")
    return Collection.open(folder).more_like(id, **options)


def _question(
    text: str | None, image: Path | None, video: Path | None, text_weight: float | None, media_weight: float | None
) -> dict[str, Any]:
    """One composed item, or, where a weight is given, parts."""
    from umr.errors import RecipeError
    from umr.items import Item
    from umr.search.asking import Part

    if text_weight is None and media_weight is None:
        return {"text": text, "image": image, "video": video}
    if text is None or (image is None and video is None):
        raise RecipeError("--text-weight and --media-weight weigh a text against an image or a video; give both, or leave the weights out")
    parts = [Part(Item.of(image=image, video=video), 1.0 if media_weight is None else media_weight)]
    return {"parts": [*parts, Part(Item.of(text=text), 1.0 if text_weight is None else text_weight)]}


def _minus(texts: list[str] | None, images: list[Path] | None, weight: float | None) -> list[Any] | None:
    from umr.errors import RecipeError
    from umr.items import Item
    from umr.search.asking import MINUS_WEIGHT, Part

    items = [Item.of(text=text) for text in texts or ()] + [Item.of(image=image) for image in images or ()]
    if weight is not None and not items:
        raise RecipeError("--minus-weight has no effect without --minus or --minus-image; leave it out")
    return [Part(item, MINUS_WEIGHT if weight is None else weight) for item in items] or None


def _show(found: Results, as_json: bool) -> None:
    from umr.cli import console

    if as_json:
        import json

        console.say(json.dumps(found.to_json(), ensure_ascii=False, indent=1))
        return
    if not found.hits:
        console.say("nothing found")
        return
    stages = list(dict.fromkeys(stage for hit in found for stage in hit.scores))
    rows = ((str(hit.rank), _plain(hit.id), hit.modality, *_scores(hit, stages), _shortened(hit.text)) for hit in found)
    console.table(("", "id", "modality", *stages, "text"), rows)
    console.say(f"order: {found.order}")
    for note in found.notes:
        console.say(note)


def _scores(hit: Hit, stages: list[str]) -> list[str]:
    return [f"{hit.scores[stage]:.4f}" if stage in hit.scores else "" for stage in stages]


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return _plain(line if len(line) <= SHOWN else line[: SHOWN - 1] + "…")


def _plain(text: str) -> str:
    """Text as it is: rich would take brackets for its markup."""
    from rich.markup import escape

    return escape(text)
