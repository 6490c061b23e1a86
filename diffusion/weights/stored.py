"""What a file of weights is, by its first bytes, and what a safetensors file says that it holds.

Only safetensors are read, in which nothing can run. What a file is called does not matter.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

IN_FILES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
AGAIN = "copy the model folder again"
PICKLE = re.compile(rb"PK\x03\x04|\x80[\x02-\x05]")  # of PyTorch, in a zip file or alone
POINTER = b"version https://git-lfs"
CONVERT = (
    'python -c "import sys, torch, safetensors.torch as s; '
    "w = torch.load(sys.argv[1], map_location='cpu', weights_only=True); "
    "w = w.get('state_dict', w); "
    "s.save_file({k: v.clone().contiguous() for k, v in w.items() if torch.is_tensor(v)}, "
    'sys.argv[2])" FILE NEW.safetensors'
)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """A tensor that a file says that it holds."""

    file: Path
    key: str  # its name in the file
    shape: Shape
    kind: str  # one of `IN_FILES`, or another
    start: int  # of its bytes in the file

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(IN_FILES[self.kind]).itemsize


def kind(path: Path) -> str:
    """What a file holds: "safetensors", a "pickle", a git-lfs "pointer", or "" for all others.

    Raises OSError where it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(32)
    if head.startswith(POINTER):
        return "pointer"
    if PICKLE.match(head):
        return "pickle"
    length = int.from_bytes(head[:8], "little")
    return "safetensors" if head[8:9] == b"{" and 8 + length <= path.stat().st_size else ""


def unreadable(path: Path) -> str:
    """Why a file is not read, and the way out; "" if nothing is known against it."""
    found = kind(path)
    if found == "pickle":
        return (
            f"{path} is a pickle, which can run any program when it is read; take the .safetensors "
            "file of the same model, or convert it where PyTorch is, which loads nothing but "
            f"numbers so: {CONVERT}"
        )
    if found == "pointer":
        return (
            f"{path} is a pointer of git-lfs and not the file; call `git lfs install` and "
            "`git lfs pull` where you cloned it"
        )
    return ""


def metadata(path: Path) -> dict[str, str]:
    """What the head of a safetensors file says besides its tensors, as far as it is text."""
    with safe_open(path, "numpy") as file:
        return dict(file.metadata() or {})


def number(path: Path, key: str) -> float | None:
    """A single number that a file holds under a name, such as the steps of its training."""
    with safe_open(path, "numpy") as file:
        if key not in file.keys() or math.prod(file.get_slice(key).get_shape()) != 1:  # noqa: SIM118
            return None
        return float(file.get_tensor(key).item())


def contents(path: Path) -> list[Entry]:
    """All tensors of a file. Raises ValueError for a pickle, a pointer and a damaged file.

    We look up where the bytes start ourselves, as `safe_open` copies: loading took 1.8 times as
    long.
    """
    try:
        if reason := unreadable(path):
            raise ValueError(reason)
        with safe_open(path, "numpy"):  # compares all that the header claims with the file
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (SafetensorError, OSError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"weights file {path} is damaged ({error}); {AGAIN}") from error
    header.pop("__metadata__", None)
    return [
        Entry(
            path, key, tuple(entry["shape"]), entry["dtype"], 8 + length + entry["data_offsets"][0]
        )
        for key, entry in header.items()
    ]
