"""What a collection holds, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from umr.search.settings import CollectionSettings
from umr.search.table import Table


@dataclass(frozen=True)
class Stats:
    """Numbers of a collection.

    Attributes:
        rows: things that can be found.
        modalities: rows of each modality that occurs.
        files: files that were looked at, by what became of them: `indexed`, `rejected`.
        version: of the rows; changes with every change.
        model, fingerprint, dimension: what made the vectors.
        root: the folder that was indexed.
        created: when, in ISO form.
    """

    rows: int
    modalities: Mapping[str, int]
    files: Mapping[str, int]
    version: str
    model: str
    fingerprint: str
    dimension: int
    root: str | None
    created: str

    @classmethod
    def of(cls, settings: CollectionSettings, table: Table) -> Self:
        """Count."""
        version, kinds = table.version(), Counter[str]()
        for batch in table.scan(["modality"]):
            kinds.update({found["values"]: found["counts"] for found in batch.column("modality").value_counts().to_pylist()})
        return cls(
            rows=kinds.total(),
            modalities={kind: kinds[kind] for kind in sorted(kinds)},
            files=dict(Counter(file.status for file in table.files())),
            version=version,
            model=settings.model,
            fingerprint=settings.fingerprint,
            dimension=settings.dimension,
            root=settings.root,
            created=settings.created.isoformat(),
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)
