"""What a found thing is called in other frameworks' metadata."""

from __future__ import annotations

from typing import Any

from umr.search.hits import Hit


def fields_of(hit: Hit) -> dict[str, Any]:
    """The user's own fields, and over them where a hit is from and how it was found.

    Returns:
        `id`, `source`, `modality`, `score`, `scores`; where there are such, `page`, `start`, `end`, and `media`, an absolute path.
    """
    places = {"page": hit.page, "start": hit.start, "end": hit.end, "media": None if hit.media is None else str(hit.media)}
    found = {"id": hit.id, "source": hit.source, "modality": hit.modality, "score": hit.score, "scores": dict(hit.scores)}
    return {**hit.metadata, **found, **{name: value for name, value in places.items() if value is not None}}
