import numpy as np
import pytest

from umr.search import lately
from umr.search.columns import KEPT, Columns
from umr.search.lately import Lately
from unit.search.cones import rows_of


def test_what_was_found_last_is_remembered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lately, "REMEMBERED", 3)
    columns = Columns("text", rows_of(["a", "b", "c", "d"], "text", np.eye(4, dtype=np.float16)).select(KEPT))
    found = Lately()
    found.note(["a", "b", "c"], columns, [0, 1, 2])
    found.note(["a", "d"], columns, [0, 3])
    assert found.of(["d", "b", "a", "unknown"]) == {"d": (columns, 3), "a": (columns, 0)}
