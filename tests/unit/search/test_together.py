import threading

import pytest

from umr.search import together
from umr.search.together import Work, done


@pytest.mark.parametrize("apart", [True, False])
def test_results_are_joined_in_order(apart: bool):
    works = [Work([lambda n=n: n for n in range(start, 3)], list) for start in range(4)]
    assert done(works, apart) == [[0, 1, 2], [1, 2], [2], []]


def test_jobs_go_on_at_the_same_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(together, "threads", lambda: 2)
    together._pool.cache_clear()
    both = threading.Barrier(2, timeout=30)
    assert sorted(done([Work([both.wait, both.wait], list)], apart=True)[0]) == [0, 1]
    together._pool.cache_clear()


def test_an_error_arrives():
    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        done([Work([fails, lambda: 1], list)], apart=True)
