"""What any configuration is checked for."""

import dataclasses
from typing import Any

LARGEST_NUMBER = 2**20  # of anything in a network
DEEPEST = 128  # layers, which Flax traces one by one


def check_sizes(config: Any, prefix: str = "") -> None:
    """Raises ValueError where a whole number, of whatever it is, is below 1 or absurdly large."""
    for field_ in dataclasses.fields(config):
        name, entry = prefix + field_.name, getattr(config, field_.name)
        if dataclasses.is_dataclass(entry):
            check_sizes(entry, name + ".")
        numbers = entry if isinstance(entry, tuple) else (entry,)
        whole = [n for n in numbers if isinstance(n, int) and not isinstance(n, bool)]
        if not numbers or min(whole, default=1) < 1:
            raise ValueError(f"{name} is {entry}; give whole numbers from 1 on")
        most = DEEPEST if field_.name.startswith("layers") else LARGEST_NUMBER
        if max(whole, default=1) > most or len(numbers) > DEEPEST:
            raise ValueError(f"{name} is {entry}; give {most} at most")
