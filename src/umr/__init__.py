"""Universal multimodal retrieval: one embedding model that finds text, images, image+text and video with any of them.

The public names are imported when first used, so `import umr` costs milliseconds and does not load torch.

Example:
    >>> import umr
    >>> umr.Item.of(text="a red circle", id="1").modality
    'text'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from umr import torchvision_shim

if TYPE_CHECKING:
    from umr.data.mbeir import MBeir
    from umr.evaluation import EvaluationResult, evaluate
    from umr.items import Image, Item, Query, Text, Video
    from umr.models.embedder import Embedder
    from umr.models.reranker import Reranker
    from umr.rendering.template import Template
    from umr.search.collection import Collection
    from umr.store import VectorStore

__version__ = "0.1.0"

__all__ = [
    "Collection",
    "Embedder",
    "EvaluationResult",
    "Image",
    "Item",
    "MBeir",
    "Query",
    "Reranker",
    "Template",
    "Text",
    "VectorStore",
    "Video",
    "__version__",
    "evaluate",
]

_HOME = {
    "Collection": "umr.search.collection",
    "Embedder": "umr.models.embedder",
    "EvaluationResult": "umr.evaluation",
    "Image": "umr.items",
    "Item": "umr.items",
    "MBeir": "umr.data.mbeir",
    "Query": "umr.items",
    "Reranker": "umr.models.reranker",
    "Template": "umr.rendering.template",
    "Text": "umr.items",
    "VectorStore": "umr.store",
    "Video": "umr.items",
    "evaluate": "umr.evaluation",
}
"""The module each public name lives in."""

torchvision_shim.install()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'umr' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
