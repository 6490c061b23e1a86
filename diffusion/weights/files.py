"""The parameters of one network in safetensors files: found, checked, streamed in, written.

A model folder may come from anywhere. Only safetensors are read, in which nothing can run; what a
file claims is compared with what the network needs before a single number is read; and no link or
name leads out of the folder.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import jax
import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from diffusion.atomic_write import atomic_write
from diffusion.runtime.parameters import Params
from diffusion.weights.names import IGNORED, NameMap, copies, from_file, theirs, to_file, today

DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
IN_FILES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
LARGEST_JSON = 16 * 2**20  # bytes; the index of the largest model has a hundredth of it
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
ALIGNMENT = 64  # bytes; JAX uses host memory that is aligned like this without a copy
STRIPE = 128  # columns at a time: turning axes is fast where both sides stay in the cache
AGAIN = "copy the model folder again"

Shape = tuple[int, ...]
Adjust = Callable[[str, np.ndarray], np.ndarray]  # official name and value -> value


def regular(root: Path, path: Path) -> Path:
    """`path`, if it is an ordinary file that lies in the model folder `root`.

    A link may lead to another place of the folder, or of the Hugging Face cache that it is part of.
    Raises FileNotFoundError, or ValueError for a way out of the folder.
    """
    home = Path(os.path.realpath(root))  # Path.resolve fails for a link that leads to itself
    if home.parent.name == "snapshots":  # there the files are links to ../../blobs
        home = home.parent.parent
    if not Path(os.path.realpath(path)).is_relative_to(home):
        raise ValueError(f"{path} is a link that leads out of {root}; put the file itself there")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing or no file; {AGAIN}")
    return path


def read_json(path: Path, root: Path | None = None) -> dict[str, Any]:
    """The object in a JSON file, which must lie in `root` (else: in its folder) as `regular` says.

    Raises FileNotFoundError, or ValueError where it holds none.
    """
    size = regular(root or path.parent, path).stat().st_size
    if size > LARGEST_JSON:
        raise ValueError(f"{path} has {size:,} bytes, too many for a configuration; {AGAIN}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); {AGAIN}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds no JSON object; {AGAIN}")
    return data


def find(root: Path, folder: str, stem: str) -> list[Path]:
    """The safetensors files of one network: one, or the shards that an index names.

    Files in full precision come before the half-sized `fp16` variant.
    Raises FileNotFoundError, or ValueError where there is only a pickle or a senseless index.
    """
    place = root / folder
    for name in (
        f"{stem}.safetensors",
        f"{stem}.safetensors.index.json",
        f"{stem}.fp16.safetensors",
        f"{stem}.safetensors.index.fp16.json",
        f"{stem}.fp16.safetensors.index.json",
    ):
        if (place / name).exists():
            found = regular(root, place / name)
            return [found] if found.suffix == ".safetensors" else _shards(root, found)
    pickles = sorted(p.name for p in place.glob("*") if p.suffix in PICKLES)
    if pickles:
        raise ValueError(
            f"{place / pickles[0]} is a pickle, which can run any program when it is read; take "
            f"{stem}.safetensors of the same model, or convert it where nothing can be harmed: "
            "`DiffusionPipeline.from_pretrained(FOLDER).save_pretrained(NEW)` of diffusers does it"
        )
    raise FileNotFoundError(f"{place / stem}.safetensors is missing; {AGAIN}")


def _shards(root: Path, index: Path) -> list[Path]:
    weight_map = read_json(index, root).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index} has no weight_map; {AGAIN}")
    for name in weight_map.values():
        if not isinstance(name, str) or not re.fullmatch(r"[^/\\:]+\.safetensors", name):
            raise ValueError(f"{index} names a file outside of its folder; {AGAIN}")
    return [regular(root, index.parent / name) for name in sorted(set(weight_map.values()))]


@dataclass(frozen=True)
class Tensor:
    """One parameter, where it is in the files and what it will be here."""

    file: Path
    key: str  # its name in the file
    kind: str  # one of `IN_FILES`
    start: int  # of its bytes in the file
    official: str  # its name in the files of today,
    stored: Shape  # and its shape
    name: str  # our name
    shape: Shape  # our shape
    copies: tuple["Tensor", ...] = ()  # the same once more, under other names


@dataclass(frozen=True)
class Weights:
    """The files of one network, checked against what the network needs; nothing is read yet."""

    tensors: tuple[Tensor, ...]
    names: NameMap
    stamps: Mapping[Path, tuple[int, ...]]  # by which the files are known again

    @classmethod
    def open(cls, paths: list[Path], like: Params, names: NameMap) -> Self:
        """Compare what the files say that they hold with `like`, which has shapes at its leaves.

        Raises ValueError that lists what is missing, left over, mis-shaped or of no use.
        """
        stamps = {path: _stamp(path) for path in paths}
        single = {theirs(name, names): (name, leaf.shape) for name, leaf in _flat(like)}
        expected = {
            copy: ours for official, ours in single.items() for copy in copies(official, single)
        }
        found: dict[str, Tensor] = {}
        problems: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            for key, stored, kind, start in _contents(path):
                official = today(key)
                if IGNORED.search(official):
                    continue
                if official in found:
                    problems["twice"].append(official)
                if kind not in IN_FILES:
                    problems["no fractions"].append(f"{official} of {kind}")
                name, shape = expected.get(official, ("", ()))
                needed = to_file(np.broadcast_to(np.float32(0), shape), name).shape
                found[official] = Tensor(path, key, kind, start, official, needed, name, shape)
                # A Linear layer's may end with (1, 1).
                if official in expected and stored not in (needed, (*needed, 1, 1)):
                    told = f"{official} of {stored} instead of {needed}"
                    problems["wrong shape"].append(told)
        problems["missing"] = sorted(expected.keys() - found.keys())
        problems["left over"] = sorted(found.keys() - expected.keys())
        what = f"{', '.join(map(str, paths))} does not fit the config.json beside it"
        refuse(what, problems, "use the files of one model")
        alike: dict[str, list[Tensor]] = defaultdict(list)
        for official in expected:
            alike[found[official].name].append(found[official])
        tensors = [replace(first, copies=tuple(others)) for first, *others in alike.values()]
        # The largest first: the copies that are on the way add least where the memory is fullest.
        order = sorted(tensors, key=lambda tensor: (-np.prod(tensor.shape), tensor.name))
        return cls(tuple(order), names, stamps)

    @property
    def shapes(self) -> dict[str, Shape]:
        """The official names of all parameters, and their shapes in the layout of the files."""
        return {tensor.official: tensor.stored for tensor in self.tensors}

    def read(self, dtype: str = "float32", adjusts: Sequence[Adjust] = ()) -> Params:
        """Read all parameters, a few at a time, in a precision of `DTYPES`.

        `adjusts` change values on the way, in the layout of the files (LoRA does).
        Raises ValueError that names a parameter that is not finite, copies that differ, or a
        damaged file.
        """
        read = partial(_read, dtype=_in_memory(dtype), adjusts=adjusts)
        for path, stamp in self.stamps.items():
            if _stamp(path) != stamp:
                raise ValueError(f"weights file {path} has changed since; load the model again")
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as workers:
            values = zip(self.tensors, workers.map(read, self.tensors), strict=True)
            return unflatten_dict({_path(tensor.name): value for tensor, value in values})


def _read(tensor: Tensor, dtype: np.dtype[Any], adjusts: Sequence[Adjust]) -> Array:
    file, value = tensor.file, _mapped(tensor)
    for copy in tensor.copies:
        if not np.array_equal(value, _mapped(copy)):
            raise ValueError(
                f"{file}: {tensor.key} and {copy.key} differ; only models where they are the same "
                "are supported"
            )
    for adjust in adjusts:
        value = adjust(tensor.official, value)
    value = from_file(value, tensor.name)
    filled = _aligned(tensor.shape, dtype)
    with np.errstate(over="ignore"):
        for i in range(0, value.shape[-1], STRIPE):
            filled[..., i : i + STRIPE] = value[..., i : i + STRIPE]
    if not _finite(filled):
        raise ValueError(
            f"{file}: {tensor.key} holds values that are not finite in {dtype}; {AGAIN}"
            + (", or load it in float32" if dtype.itemsize == 2 else "")
        )
    return jax.device_put(filled)


def _mapped(tensor: Tensor) -> np.ndarray:
    try:
        return np.memmap(tensor.file, IN_FILES[tensor.kind], "r", tensor.start, tensor.stored)
    except (ValueError, OSError) as error:
        raise ValueError(f"weights file {tensor.file} is damaged ({error}); {AGAIN}") from error


def save_params(
    path: Path,
    params: Params,
    names: NameMap,
    *,
    dtype: str | None = None,
    linear_projection: bool = True,
    prefix: str = "",
    outside: str = "",
) -> None:
    """Write parameters under their official names; the file appears whole or not at all.

    They keep their precision, unless `dtype` is one of `DTYPES`; ValueError where that cannot hold
    a value. `names.to_file` has `linear_projection`; `prefix` stands before every name but those
    in the module `outside`.
    """
    flat: dict[str, np.ndarray] = {}
    official = [theirs(name, names) for name, _ in _flat(params)]
    for name, value in _flat(params):
        laid = to_file(np.asarray(value), name, linear_projection)
        if dtype is not None:
            with np.errstate(over="ignore"):
                laid = laid.astype(_in_memory(dtype))
            if not _finite(laid):
                raise ValueError(f"{name} holds values that are not finite in {dtype}")
        laid = np.ascontiguousarray(laid)
        for copy in copies(theirs(name, names), official):
            stands_alone = outside and copy.startswith(f"{outside}.")
            flat[copy if stands_alone else prefix + copy] = laid
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as draft:
        draft.touch()
        mode = draft.stat().st_mode
        save_file(flat, draft, metadata={"format": "pt"})
        draft.chmod(mode)  # safetensors makes a file that nobody else may read


def _in_memory(dtype: str) -> np.dtype[Any]:
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}")
    return np.dtype(DTYPES[dtype])


def refuse(what: str, problems: Mapping[str, Sequence[str]], way_out: str) -> None:
    """Raises ValueError that lists the problems, if there are any."""
    told = [
        f"{len(names)} {problem}: " + ", ".join(names[:6]) + ", ..." * (len(names) > 6)
        for problem, names in problems.items()
        if names
    ]
    if told:
        raise ValueError(f"{what} ({'; '.join(told)}); {way_out}")


def _stamp(path: Path) -> tuple[int, ...]:
    """Size, time of the last change and number of a file."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _contents(path: Path) -> list[tuple[str, Shape, str, int]]:
    """Of each tensor in a file: name, shape, type, and where its bytes start.

    We look up the last ourselves, as `safe_open` copies: loading took 1.8 times as long.
    """
    try:
        with safe_open(path, "numpy"):  # compares all that the header claims with the file
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"weights file {path} is damaged ({error}); {AGAIN}") from error
    header.pop("__metadata__", None)
    return [
        (key, tuple(entry["shape"]), entry["dtype"], 8 + length + entry["data_offsets"][0])
        for key, entry in header.items()
    ]


def _flat(params: Params) -> list[tuple[str, Any]]:
    """The parameters by their dotted names."""
    return [(".".join(map(str, path)), leaf) for path, leaf in flatten_dict(params).items()]


def _path(name: str) -> tuple[str | int, ...]:
    """`down.blocks.0` -> ("down", "blocks", 0): Flax numbers the modules of a list."""
    return tuple(int(part) if part.isdigit() else part for part in name.split("."))


def _aligned(shape: Shape, dtype: np.dtype[Any]) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _finite(values: np.ndarray) -> bool:
    if values.dtype.itemsize != 2:
        return bool(np.isfinite(values).all())
    # Infinities and NaN have all bits of the exponent set; NumPy looks at halves one by one.
    exponent = np.uint16(0x7C00 if values.dtype == np.float16 else 0x7F80)
    return not np.any((values.view(np.uint16) & exponent) == exponent)
