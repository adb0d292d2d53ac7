"""Children end with a parent that is killed, whatever they wait for."""

import signal
import subprocess
import sys
import time
from pathlib import Path

# The worker's second batch is larger than a pipe holds, and nobody fetches it: torch alone would leave that worker behind for good.
PROGRAM = """
import sys, time
from torch.utils.data import DataLoader, get_worker_info
from umr.training.trainer import _begin

class Large:
    def __len__(self):
        return 4
    def __getitem__(self, place):
        import os
        return os.getpid(), b"x" * 10_000_000

batches = iter(DataLoader(Large(), batch_size=None, num_workers=1, worker_init_fn=_begin))
print(next(batches)[0], flush=True)
time.sleep(600)
"""


def test_data_workers_end_with_a_killed_training(tmp_path: Path):
    (tmp_path / "program.py").write_text(PROGRAM)
    with subprocess.Popen([sys.executable, tmp_path / "program.py"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = Path("/proc") / parent.stdout.readline().strip()
        assert worker.exists()
        time.sleep(0.5)  # it makes the next batches
        parent.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while worker.exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not worker.exists()
