"""The parameters of one network in safetensors files: checked, streamed in, written.

What a file claims is compared with what the network needs before a single number is read.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from safetensors.numpy import save_file

from diffusion.atomic_write import atomic_write
from diffusion.runtime.parameters import Params
from diffusion.weights.names import (
    IGNORED,
    TODAY,
    NameMap,
    Spelling,
    copies,
    from_file,
    theirs,
    to_file,
    today,
)
from diffusion.weights.stored import AGAIN, IN_FILES, Entry, Shape, contents

DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
ALIGNMENT = 64  # bytes; JAX uses host memory that is aligned like this without a copy
STRIPE = 128  # columns at a time: turning axes is fast where both sides stay in the cache
Adjust = Callable[[str, np.ndarray], np.ndarray]  # official name and value -> value


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
    unused: tuple[str, ...] = ()  # what the files hold besides

    @classmethod
    def open(
        cls,
        paths: list[Path],
        like: Params,
        names: NameMap,
        spelling: Spelling = TODAY,
        beside: Callable[[str], bool] = lambda name: False,
    ) -> Self:
        """Compare what the files say that they hold with `like`, which has shapes at its leaves.

        Args:
            spelling: of the names in these files.
            beside: may the files hold this tensor, too? It is left where it is.

        Raises ValueError that lists what is missing, left over, mis-shaped or of no use.
        """
        stamps = {path: _stamp(path) for path in paths}
        expected = _expected(like, names, spelling)
        found: dict[str, Tensor] = {}
        unused: list[str] = []
        problems: dict[str, list[str]] = defaultdict(list)
        entries = [entry for path in paths for entry in contents(path)]
        for there, entry in _spelled(entries, spelling):
            if IGNORED.search(there):
                continue
            if there not in expected and beside(there):
                unused.append(there)
                continue
            official, name, shape = expected.get(there, (there, "", ()))
            if official in found:
                problems["twice"].append(official)
            if entry.kind not in IN_FILES:
                problems["no fractions"].append(f"{official} of {entry.kind}")
            needed = to_file(np.broadcast_to(np.float32(0), shape), name).shape
            found[official] = Tensor(
                entry.file, entry.key, entry.kind, entry.start, official, needed, name, shape
            )
            # A Linear layer's may end with (1, 1), or with (1,).
            if there in expected and entry.shape not in (needed, (*needed, 1), (*needed, 1, 1)):
                told = f"{official} of {entry.shape} instead of {needed}"
                problems["wrong shape"].append(told)
        officials = {official for official, _, _ in expected.values()}
        problems["missing"] = sorted(officials - found.keys())
        problems["left over"] = sorted(found.keys() - officials)
        what = f"{', '.join(map(str, paths))} does not fit {spelling.beside}"
        refuse(what, problems, "use the files of one model")
        alike: dict[str, list[Tensor]] = defaultdict(list)
        for official, name, _ in expected.values():
            alike[name].append(found[official])
        tensors = [replace(first, copies=tuple(others)) for first, *others in alike.values()]
        # The largest first: the copies that are on the way add least where the memory is fullest.
        order = sorted(tensors, key=lambda tensor: (-np.prod(tensor.shape), tensor.name))
        return cls(tuple(order), names, stamps, tuple(unused))

    @property
    def shapes(self) -> dict[str, Shape]:
        """The official names of all parameters, and their shapes in the layout of the files."""
        return {tensor.official: tensor.stored for tensor in self.tensors}

    def spelled(self, names: NameMap) -> dict[str, str]:
        """What another map calls the parameters, by their official names."""
        return {tensor.official: theirs(tensor.name, names) for tensor in self.tensors}

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


def _expected(
    like: Params, names: NameMap, spelling: Spelling
) -> dict[str, tuple[str, str, Shape]]:
    """By the name in the files: the official one, ours, and our shape."""
    shapes = {name: leaf.shape for name, leaf in _flat(like)}
    if spelling.names is not None:
        return {
            theirs(name, spelling.names): (theirs(name, names), name, shape)
            for name, shape in shapes.items()
        }
    single = {theirs(name, names): (name, shape) for name, shape in shapes.items()}
    return {
        copy: (copy, *ours)
        for official, ours in single.items()
        for copy in copies(official, single)
    }


def _spelled(entries: list[Entry], spelling: Spelling) -> Iterator[tuple[str, Entry]]:
    """The tensors of a network, each with its name; those that are stored as one taken apart."""
    for entry in entries:
        if not entry.key.startswith(spelling.prefix):
            continue
        name = today(entry.key.removeprefix(spelling.prefix), spelling.old)
        end = next((end for end in spelling.fused if name.endswith(end)), "")
        parts = spelling.fused.get(end, ())
        if (
            not parts
            or not entry.shape
            or entry.shape[0] % len(parts)
            or entry.kind not in IN_FILES
        ):
            yield name, entry
            continue
        shape = (entry.shape[0] // len(parts), *entry.shape[1:])
        for i, part in enumerate(parts):
            start = entry.start + i * entry.bytes // len(parts)
            yield name.removesuffix(end) + part, replace(entry, shape=shape, start=start)


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
    write_tensors(path, flat)


def write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write arrays by their names; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as draft:
        draft.touch()
        mode = draft.stat().st_mode
        save_file(tensors, draft, metadata={"format": "pt"})
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
