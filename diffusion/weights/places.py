"""Where the files of a model lie: in a folder, behind links, in the local Hugging Face cache.

A model folder may come from anywhere. So a link in it may lead to three places, and to no other:
somewhere in the same folder; the Hugging Face cache, where all files of a snapshot are links to
`blobs/` and older versions of its tools put links into other folders; and, where the folder of a
part is itself a link (`vae -> ../vae-ft-mse`), into that folder. See docs/models.md.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from diffusion.weights import stored
from diffusion.weights.stored import AGAIN

LARGEST_JSON = 16 * 2**20  # bytes; the index of the largest model has a hundredth of it
OTHERS = {  # what else there may be in place of safetensors
    ".msgpack": "Flax",
    ".h5": "TensorFlow",
    ".onnx": "ONNX",
    ".onnx_data": "ONNX",
    ".gguf": "llama.cpp",
}
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def cache() -> Path:
    """The folder in which the tools of Hugging Face keep what they download."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{home}/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()


def cached(repository: str) -> Path | None:
    """The newest snapshot of a repository (`org/name`) in the cache, if there is one."""
    if not REPOSITORY.fullmatch(repository) or ".." in repository:
        return None
    return snapshot(cache() / f"models--{repository.replace('/', '--')}")


def snapshot(folder: Path) -> Path | None:
    """Of a folder `models--org--name`: the snapshot of its main branch, else the newest one."""
    if not folder.name.startswith("models--"):
        return None
    main = folder / "refs/main"
    if main.is_file():
        named = folder / "snapshots" / main.read_text(encoding="utf-8", errors="replace").strip()
        if named.parent == folder / "snapshots" and named.is_dir():
            return named
    found = [path for path in folder.glob("snapshots/*") if path.is_dir()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def regular(root: Path, path: Path) -> Path:
    """`path`, if it is an ordinary file of the model folder `root`; for links see above.

    Raises FileNotFoundError, or ValueError for a way out of the folder.
    """
    real = Path(os.path.realpath(path))  # Path.resolve fails for a link that leads to itself
    if not any(real.is_relative_to(home) for home in _homes(root, path)):
        raise ValueError(f"{path} is a link that leads out of {root}; put the file itself there")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing or no file; {AGAIN}")
    return path


def _homes(root: Path, path: Path) -> list[Path]:
    """Where a file of a model folder may really lie."""
    part = root / path.relative_to(root).parts[0]
    places = [root, part] if part.is_symlink() and part.is_dir() else [root]
    homes = [Path(os.path.realpath(place)) for place in (*places, cache())]
    for home in homes[:-1]:  # in the cache, the files of a snapshot are links to ../../blobs
        ups = [up for up in (home, *home.parents) if up.parent.name == "snapshots"]
        homes += [up.parents[1] for up in ups if up.parents[1].name.startswith("models--")]
    return homes


def read_json(path: Path, root: Path | None = None) -> dict[str, Any]:
    """The object in a JSON file, which must lie in `root` (else: in its folder) as `regular` says.

    Raises FileNotFoundError, or ValueError where it holds none.
    """
    size = regular(root or path.parent, path).stat().st_size
    if size > LARGEST_JSON:
        raise ValueError(f"{path} has {size:,} bytes, too many for a configuration; {AGAIN}")
    if reason := stored.unreadable(path):
        raise ValueError(reason)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); {AGAIN}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds no JSON object; {AGAIN}")
    return data


def find(root: Path, folder: str, stem: str) -> list[Path]:
    """The safetensors files of one network: one, or the shards that an index names.

    Files without a variant in their name come first, then `fp16`, then whatever single variant
    there is. Raises FileNotFoundError, or ValueError where there are only files that are not read,
    several variants, or a senseless index.
    """
    place = root / folder
    names = sorted(os.listdir(place)) if place.is_dir() else []
    variants = _variants(names, stem)
    if not variants:
        files = [place / name for name in names if (place / name).is_file()]
        return [regular(root, _other(files, place / f"{stem}.safetensors"))]
    if variants.keys().isdisjoint({"", "fp16"}) and len(variants) > 1:
        raise ValueError(
            f"{place} has the variants {', '.join(variants)}; copy the one that you want to "
            f"{stem}.safetensors there"
        )
    chosen = next((name for name in ("", "fp16") if name in variants), next(iter(variants)))
    found = regular(root, place / variants[chosen])
    return [found] if found.suffix == ".safetensors" else _shards(root, found)


def _variants(names: list[str], stem: str) -> dict[str, str]:
    """The file, or the index of the shards, of each variant."""
    pattern = re.compile(rf"{re.escape(stem)}(?:\.(\w+))?\.safetensors(\.index(?:\.(\w+))?\.json)?")
    found: dict[str, str] = {}
    for match in filter(None, map(pattern.fullmatch, names)):
        variant = match[1] or match[3] or ""
        if variant not in found or match[2] is None:  # a whole file rather than shards
            found[variant] = match[0]
    return found


def _other(files: list[Path], wanted: Path) -> Path:
    """Safetensors under another name. Raises ValueError or FileNotFoundError that says what is
    there in place of the wanted file."""
    whole = [path for path in files if stored.kind(path) == "safetensors"]
    if len(whole) == 1 and "-of-" not in whole[0].name:
        return whole[0]
    for path in files:
        if reason := stored.unreadable(path):
            raise ValueError(reason)
    for path in files:
        if path.suffix in OTHERS:
            raise ValueError(
                f"{path} is a file of {OTHERS[path.suffix]}, which is not read; take "
                f"{wanted.name} of the same model"
            )
    raise FileNotFoundError(f"{wanted} is missing; {AGAIN}")


def _shards(root: Path, index: Path) -> list[Path]:
    weight_map = read_json(index, root).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index} has no weight_map; {AGAIN}")
    for name in weight_map.values():
        if not isinstance(name, str) or not re.fullmatch(r"[^/\\:]+\.safetensors", name):
            raise ValueError(f"{index} names a file outside of its folder; {AGAIN}")
    return [regular(root, index.parent / name) for name in sorted(set(weight_map.values()))]
