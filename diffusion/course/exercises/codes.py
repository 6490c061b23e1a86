"""Exercises of lesson 14, the mosaic."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.course.exercise import Exercise
from diffusion.layers.codebook import gumbel_softmax, revived, squared_distances
from diffusion.process import masked


def _distances(x: Any, codes: Any) -> Any:
    return squared_distances(x[None, None], codes)[0, 0]


def _draws() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32))  # noqa: E731
    gumbel = lambda *shape: jnp.asarray(rng.gumbel(size=shape), jnp.float32)  # noqa: E731
    return [
        (draw(5, 2), draw(4, 2), gumbel(5, 4), 1.0),
        (draw(4, 3), draw(6, 3), gumbel(4, 6), 0.5),
        (2 * draw(6, 4), 2 * draw(3, 4), gumbel(6, 3), 3.0),
    ]


def mixture(x: Any, codes: Any, noise: Any, temperature: Any) -> Any:
    """x (n, d), codes (K, d), Gumbel noise (n, K) -> mixtures of the codes (n, d)."""
    return gumbel_softmax(-_distances(x, codes), noise, temperature) @ codes


def _shared(shares: Any) -> Any:
    """Mixtures with shares that are found in another way."""
    return lambda x, codes, noise, t: shares(-_distances(x, codes), noise, t) @ codes


def _codebooks() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32))  # noqa: E731
    # The second code is nearer to (2, 2) than the first, if distances are not squared.
    three = jnp.asarray([[0.0, 0.0], [5.0, 2.0], [-9.0, 0.0]])
    return [
        (3 * draw(20, 4), 2 * draw(24, 4), draw(20, 4)),
        (draw(4, 3), draw(40, 3), draw(4, 3)),  # none is dead
        (three, jnp.asarray([[2.0, 2.0], [-9.0, 1.0]]), draw(3, 2)),
    ]


def _revived(wrong: Any) -> Any:
    def answer(codes: Any, x: Any, fresh: Any) -> Any:
        distance = _distances(x, codes)
        dead = ~np.isin(np.arange(len(codes)), distance.argmin(axis=1))
        return wrong(codes, fresh, dead, distance)

    return answer


def _in_turn(codes: Any, fresh: Any, dead: Any, distance: Any) -> Any:
    """The first fresh one for the first dead one, whatever its number."""
    found = np.array(codes)
    found[dead] = fresh[: dead.sum()]
    return found


def _canvases() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(2)
    found: list[tuple[Any, ...]] = []
    for n, k, mask, left in ((40, 5, 5, 12), (24, 4, 6, 9), (16, 7, 7, 0), (9, 3, 3, 1)):
        canvas = np.where(rng.random(n) < 0.6, mask, rng.integers(0, k, n))
        canvas[:2], canvas[-1] = mask, 1  # never all of one kind
        logits = 3 * rng.standard_normal((n, k)) + 4 * rng.standard_normal((n, 1))
        doubts = rng.gumbel(size=n)
        found.append((canvas, logits.astype(np.float32), rng.integers(0, k, n), doubts, left, mask))
    return found


def filled(canvas: Any, logits: Any, drawn: Any, doubts: Any, left: int, mask: int) -> Any:
    """The package's own step, of one picture in a row."""
    nothing, one = np.zeros((), np.float32), np.ones((), np.float32)
    row = masked.MaskTable(nothing, nothing, masked=one * (left > 0), temperature=one)
    as_map = lambda values: jnp.asarray(values)[None, None, :, None]  # noqa: E731
    _, after = masked.fill(
        mask,
        row,
        jnp.asarray(logits)[None, None],
        as_map(canvas),
        as_map(drawn),
        as_map(doubts).astype(jnp.float32),
        jnp.full(1, left),
    )
    return np.asarray(after)[0, 0, :, 0]


def _filled(sure: Any = None, hidden: Any = None, laid: Any = None) -> Any:
    """A step in which something is done in another way."""

    def answer(canvas: Any, logits: Any, drawn: Any, doubts: Any, left: int, mask: int) -> Any:
        log_p = np.asarray(jax.nn.log_softmax(logits, axis=1))
        places, open_ = np.arange(len(drawn)), canvas == mask
        marks = log_p[places, drawn] + doubts
        if sure is not None:
            marks = sure(log_p, logits, drawn, doubts, places)
        after = np.where(open_, drawn, canvas) if laid is None else laid(drawn, canvas)
        in_order = np.argsort(np.where(open_, marks, np.inf))
        chosen = in_order[:left] if hidden is None else hidden(marks, open_, left)
        after[chosen] = mask
        return after

    return answer


EXERCISES: Mapping[str, Exercise] = {
    "mixture": Exercise(
        minutes=15,
        right=mixture,
        cases=_draws,
        mistakes={
            "noise_apart": _shared(lambda logits, noise, t: jax.nn.softmax(logits / t + noise)),
            "multiplied": _shared(lambda logits, noise, t: gumbel_softmax(logits, noise, 1 / t)),
            "away": _shared(lambda logits, noise, t: gumbel_softmax(-logits, noise, t)),
            "unsquared": _shared(
                lambda logits, noise, t: gumbel_softmax(-jnp.sqrt(-logits), noise, t)
            ),
            "certain": _shared(lambda logits, noise, t: jax.nn.softmax(logits / t)),
            "axis": _shared(lambda logits, noise, t: jax.nn.softmax((logits + noise) / t, axis=0)),
            "one": lambda x, codes, noise, t: codes[(noise - _distances(x, codes)).argmax(axis=1)],
            "shares": lambda x, codes, noise, t: gumbel_softmax(-_distances(x, codes), noise, t),
            "mean": lambda x, codes, noise, t: (
                gumbel_softmax(-_distances(x, codes) / x.shape[1], noise, t) @ codes
            ),
        },
    ),
    "revive": Exercise(
        minutes=10,
        right=lambda codes, x, fresh: revived(codes, x[None, None], fresh),
        cases=_codebooks,
        mistakes={
            "living": _revived(lambda codes, fresh, dead, _: np.where(dead[:, None], codes, fresh)),
            "all": lambda codes, x, fresh: fresh,
            "in_turn": _revived(_in_turn),
            "farthest": _revived(
                lambda codes, fresh, dead, distance: np.where(
                    np.isin(np.arange(len(codes)), distance.argmax(axis=1))[:, None], codes, fresh
                )
            ),
            "removed": _revived(lambda codes, fresh, dead, _: codes[~dead]),
        },
    ),
    "fill": Exercise(
        minutes=25,
        right=filled,
        cases=_canvases,
        mistakes={
            "surest": _filled(
                hidden=lambda marks, open_, left: np.argsort(np.where(open_, -marks, np.inf))[:left]
            ),
            "known": _filled(hidden=lambda marks, open_, left: np.argsort(marks)[:left]),
            "overwritten": _filled(laid=lambda drawn, canvas: drawn.copy()),
            "raw": _filled(sure=lambda log_p, logits, drawn, doubts, i: logits[i, drawn] + doubts),
            "certain": _filled(sure=lambda log_p, logits, drawn, doubts, i: log_p[i, drawn]),
            "peak": _filled(sure=lambda log_p, logits, drawn, doubts, i: log_p.max(1) + doubts),
            "probability": _filled(
                sure=lambda log_p, logits, drawn, doubts, i: np.exp(log_p[i, drawn]) + doubts
            ),
            "too_many": _filled(
                hidden=lambda marks, open_, left: np.argsort(np.where(open_, -marks, np.inf))[
                    left : open_.sum()
                ]
            ),
        },
    ),
}
