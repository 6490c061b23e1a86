"""Exercises of lesson 2, the teacher's story."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.course.exercise import Exercise
from diffusion.layers.attention import attention, attention_weights


def _states() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32))  # noqa: E731
    return [(draw(5, 8), draw(5, 8), draw(5, 8)), (2 * draw(3, 4), draw(6, 4), draw(6, 4))]


def _attend(query: Any, key: Any, value: Any) -> Any:
    return attention(query[None], key[None], value[None], heads=1)[0]


def _softmax(logits: Any, axis: int = -1) -> Any:
    return jax.nn.softmax(logits, axis)


def _masked(logits: Any) -> Any:
    n = len(logits)
    identity = jnp.eye(n)
    mask = jnp.tril(jnp.ones((n, n), bool))
    scaled = logits * n**0.5  # the function divides by sqrt(d), which is n here
    return attention_weights(scaled[None], identity[None], 1, mask)[0, 0]


def _only(logits: Any, mask: Any, axis: int = -1) -> Any:
    return _softmax(jnp.where(mask, logits, -jnp.inf), axis)


def _cosine(a: Any, b: Any) -> Any:
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


EXERCISES: Mapping[str, Exercise] = {
    "attend": Exercise(
        minutes=15,
        right=_attend,
        cases=_states,
        mistakes={
            "unscaled": lambda q, k, v: _softmax(q @ k.T) @ v,
            "width": lambda q, k, v: _softmax(q @ k.T / q.shape[1]) @ v,
            "axis": lambda q, k, v: _softmax(q @ k.T / q.shape[1] ** 0.5, 0) @ v,
            "raw": lambda q, k, v: (q @ k.T / q.shape[1] ** 0.5) @ v,
            "keys": lambda q, k, v: _softmax(q @ k.T / q.shape[1] ** 0.5) @ k,
        },
    ),
    "causal": Exercise(
        minutes=8,
        right=_masked,
        cases=lambda: [(q @ k.T,) for q, k, _ in _states()[:1]] + [(jnp.zeros((4, 4)),)],
        mistakes={
            "ahead": lambda logits: _only(logits, jnp.triu(jnp.ones(logits.shape, bool))),
            "zeros": lambda logits: _softmax(jnp.tril(logits)),
            "afterwards": lambda logits: jnp.tril(_softmax(logits)),
            "everything": _softmax,
            "axis": lambda logits: _only(logits, jnp.tril(jnp.ones(logits.shape, bool)), 0),
            "strict": lambda logits: _only(logits, jnp.tril(jnp.ones(logits.shape, bool), -1)),
        },
    ),
    "cosine": Exercise(
        minutes=4,
        right=_cosine,
        cases=lambda: [(np.asarray(q[0]), np.asarray(k[1])) for q, k, _ in _states()],
        mistakes={
            "product": lambda a, b: a @ b,
            "squares": lambda a, b: a @ b / ((a @ a) * (b @ b)),
        },
    ),
}
