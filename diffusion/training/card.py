"""What was asked for, and what a model's card remembers of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffusion.runtime.devices import described
from diffusion.training.log import Watch
from diffusion.weights import folder


@dataclass(frozen=True)
class Order:
    """What was asked for; see `train_part`."""

    part: str
    output: Path
    settings: Sequence[str]
    watch: Watch | None
    start: Path | None = None


def record(order: Order, part: str, summary: dict[str, Any], replaced: str | None = None) -> None:
    """Add how a part was trained to training.json, the machine's half of the model's card.

    Args:
        replaced: an earlier training of the same network, of whose work nothing is left but what
            the summary's `start` tells.
    """
    card = folder.load_card(order.output)
    if summary.items() <= card.get(part, {}).items():
        return  # finished before, perhaps elsewhere and long ago
    command = f"diffusion train {order.part}"
    if order.start is not None:
        command += f" --start {order.start.name}"
    if order.settings:
        command += f" --set {' '.join(order.settings)}"
    if replaced is not None:
        card.pop(replaced, None)
    card[part] = summary | {
        "command": command,
        "finished": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": described(),
        "versions": {name: version(name) for name in ("jax", "flax", "optax", "numpy")},
    }
    folder.write_json(order.output / folder.CARD, card)
