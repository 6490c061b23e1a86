"""Writing a LoRA file, under the names that diffusers and PEFT give to its matrices."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from diffusion.runtime.parameters import Params
from diffusion.weights.files import DTYPES, write_tensors
from diffusion.weights.lora import PEFT
from diffusion.weights.names import NameMap, copies, theirs, to_file


def save_lora(path: Path, part: str, names: NameMap, factors: Params, dtype: str) -> None:
    """Write what `diffusion.training.low_rank` has learnt; `diffusion.weights.lora` reads it.

    Args:
        part: "denoiser" or "text_encoder".
        names: the name map of its architecture.
    """
    tensors = {}
    flat = flatten_dict(factors)
    known = [theirs(_dotted(path[:-1]), names) for path in flat]
    for (*module, kernel, side), value in flat.items():
        ours = _dotted((*module, kernel))
        official = PEFT[part] + copies(theirs(ours, names), known)[0].removesuffix(".weight")
        wide = np.asarray(value)
        if side == "up" and flat[*module, kernel, "down"].ndim == 4:  # a 1x1 convolution
            wide = wide[None, None]
        end = "lora_A" if side == "down" else "lora_B"
        laid = to_file(wide, ours).astype(DTYPES[dtype])
        tensors[f"{official}.{end}.weight"] = np.ascontiguousarray(laid)
    write_tensors(path, tensors)


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path))
