"""A training that is killed at random moments ends as if nothing had happened.

`python -m tests.kills --kills 50` starts a training that writes a checkpoint a step, kills it
with SIGKILL, lets it go on, and so on; in the end its weights must be those of a training that
nobody disturbed, to the last bit. (`tests/training/test_loop.py` kills at chosen places.)
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from diffusion.training.loop import train
from diffusion.training.train_config import TrainConfig
from tests.training.test_loop import Line, final_state

CONFIG = TrainConfig(
    steps=1500, batch_size=8, learning_rate=0.1, warmup=2, ema=0.9, seed=3,
    log_every=5, picture_every=50, checkpoint_every=1,
)  # fmt: skip
LONGEST = 1.5  # seconds from the first new checkpoint to the kill


def newest(folder: Path) -> int:
    """The last step of which a whole checkpoint lies there; 0: none."""
    names = [path.name for path in (folder / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def disturb(folder: Path, kills: int, seed: int) -> list[int]:
    """Kill a training `kills` times, then let it finish; the steps at which it was killed."""
    draw, found = random.Random(seed), []
    command = (sys.executable, "-m", "tests.kills", "--train", str(folder))
    for _ in tqdm(range(kills), unit="kill"):
        before = newest(folder)
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while newest(folder) == before and child.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0.0, LONGEST))
        child.kill()
        child.wait()
        found.append(newest(folder))
        if found[-1] >= CONFIG.steps:
            break
    subprocess.run(command, check=True, capture_output=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train is not None:
        train(Line(), CONFIG, given.train)
        return 0
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        steps = disturb(place / "killed", given.kills, given.seed)
        train(Line(), CONFIG, place / "whole")
        ends = [final_state(Line(), CONFIG, place / kind) for kind in ("killed", "whole")]
        logs = [
            (place / kind / "log.jsonl").read_text().count("\n") for kind in ("killed", "whole")
        ]
    same = all(jax.tree.leaves(jax.tree.map(np.array_equal, *ends)))
    print(f"killed {len(steps)} times, at steps {steps}")
    print(f"weights {'equal' if same else 'DIFFER'}; lines of the logs {logs}")
    return 0 if same and logs[0] == logs[1] else 1


if __name__ == "__main__":
    sys.exit(main())
