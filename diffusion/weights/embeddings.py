"""Embeddings: words that a model did not know, each learnt as vectors (textual inversion).

Gal et al. 2022, https://arxiv.org/abs/2208.01618: a new token whose row in the text encoder's table
is found by training, and nothing else is changed. Where a token has several vectors, each is a
token of its own: `<cat>`, `<cat>_1`, `<cat>_2`, as the reference names them.

A file holds one tensor (vectors, width), or (width,). Its name is the token, or `emb_params` in the
files of web interfaces: there the file is called like the token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import jax.numpy as jnp
import numpy as np
from safetensors import safe_open

from diffusion.runtime.parameters import Params
from diffusion.text.tokenizer import Tokenizer
from diffusion.weights.stored import IN_FILES, contents, unreadable

NAMELESS = ("emb_params", "string_to_param.*", "*")
SDXL = {"clip_l", "clip_g"}
MOST = 75  # vectors; a prompt has no room for more
TABLE = ("token_embedding", "embedding")  # of the text encoder's parameters


@dataclass(frozen=True, eq=False)
class Embedding:
    """One file, read and checked."""

    path: Path
    tokens: tuple[str, ...]  # a vector each
    vectors: np.ndarray  # (n, width)

    @classmethod
    def open(cls, path: str | Path, token: str, width: int) -> Self:
        """Read a file.

        Args:
            token: what it is called in prompts; "": as the file says, or is called.
            width: of the words of the model.

        Raises FileNotFoundError, or ValueError that says what does not fit.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"embedding {path} is missing or no file")
        if reason := unreadable(path):
            raise ValueError(f"embedding {reason}")
        entries = contents(path)
        if {entry.key for entry in entries} >= SDXL:
            raise ValueError(f"embedding {path} is one of SDXL, which is not supported")
        if len(entries) != 1:
            raise ValueError(
                f"embedding {path} holds {len(entries)} tensors and should hold one; is it another "
                "kind of file?"
            )
        [entry] = entries
        *rows, found = entry.shape or (0,)
        if found != width or len(rows) > 1 or not 1 <= (rows or [1])[0] <= MOST:
            raise ValueError(
                f"embedding {path} has the shape {entry.shape}; this model needs 1 to {MOST} "
                f"vectors of {width} (SD 1.x has 768, SD 2.x 1024)"
            )
        if entry.kind not in IN_FILES:
            raise ValueError(f"embedding {path} holds {entry.kind}, and no fractions")
        with safe_open(path, "numpy") as file:
            vectors = file.get_tensor(entry.key).reshape(-1, width).astype(np.float32)
        if not np.isfinite(vectors).all():
            raise ValueError(f"embedding {path} holds values that are not finite")
        name = token or (path.stem if entry.key in NAMELESS else entry.key)
        return cls(path, (name, *(f"{name}_{i}" for i in range(1, len(vectors)))), vectors)


def open_all(files: Mapping[str, str], tokenizer: Tokenizer, width: int) -> Sequence[Embedding]:
    """The embeddings of files, each with its token or "", in this order.

    Raises as `Embedding.open`; ValueError where two have one token, or the vocabulary has it.
    """
    opened = []
    for path, token in files.items():
        found = Embedding.open(path, token, width)
        try:
            tokenizer = tokenizer.extended(found.tokens)
        except ValueError as error:
            way_out = f"name another: {path}=<name>"
            raise ValueError(f"embedding {path}: {error}; {way_out}") from error
        opened.append(found)
    return opened


def with_rows(params: Params, embeddings: Sequence[Embedding]) -> Params:
    """The parameters of a text encoder with the vectors below its table, in its precision."""
    module, leaf = TABLE
    table = params[module][leaf]
    vectors = np.concatenate([embedding.vectors for embedding in embeddings])
    longer = jnp.concatenate([table, jnp.asarray(vectors, table.dtype)])
    return params | {module: params[module] | {leaf: longer}}
