"""The first scoring on a GPU: the same bytes as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from umr.store import Among, ArrayRows, Asked, Cpu, Device, Streaming


@pytest.mark.gpu
@pytest.mark.parametrize("half", [False, True])
def test_gpu_gives_the_same_bytes(half: bool):
    import torch

    rng = np.random.default_rng(0)
    candidates = rng.standard_normal((50_000, 256)).astype(np.float32)
    candidates[30_000:30_200] = candidates[7]  # more equal ones than the first scoring keeps
    queries = np.concatenate([candidates[:300], rng.standard_normal((300, 256)).astype(np.float32)])
    asked = [Asked(ArrayRows(queries), [Among.run(0, 20_000), Among.run(0, 50_000)], 50)]
    expected = Streaming(ArrayRows(candidates), asked, engine=Cpu()).run()
    torch.backends.cuda.matmul.allow_tf32 = True  # as training may have left it
    try:
        found = Streaming(ArrayRows(candidates), asked, engine=Device("cuda", half)).run()
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    for (rows, scores), (wanted, best) in zip(found[0], expected[0], strict=True):
        assert rows.tobytes() == wanted.tobytes()
        assert scores.tobytes() == best.tobytes()
