"""Each exercise's check refuses every mutant of its solution, except those that are equal to it."""

import ast
import difflib
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.course.execution import CHECK
from diffusion.course.exercise import check
from diffusion.course.exercises import EXERCISES
from diffusion.course.source import notebook, sources
from diffusion.course.words import Words
from tests.course.mutants import TICK, mutants, ticking

LOOPS = 20_000  # rounds that an answer may go before it counts as endless
BY_NAME = {name: found for lesson in EXERCISES.values() for name, found in lesson.items()}

LAST = "the last axis is the default"
ONLY = "of two axes the last is axis 1"
SQUARED = "a square has no sign"
IN_FRONT = "an axis of length 1 is added in front by itself"
TURNED = "height and width become one axis in either order, and are taken apart again"
# Mutants that are the right answer in other words: exercise -> the line that changed -> why.
EQUAL = {
    "merge_pair": {"return glued": "a list is taken for a tuple, on purpose"},
    "attend": {
        "return jax.nn.softmax(logits) @ value": LAST,
        "return jax.nn.softmax(logits, axis=1) @ value": ONLY,
        "return jax.nn.softmax(logits, axis=--1) @ value": ONLY,
        "logits = query @ key.T / query.shape[-1] ** 0.5": ONLY,
        "logits = query @ key.T / key.shape[1] ** 0.5": "all three are d wide",
        "logits = query @ key.T / value.shape[1] ** 0.5": "all three are d wide",
    },
    "causal": {
        "return jax.nn.softmax(jnp.where(allowed, logits, -jnp.inf))": LAST,
        "return jax.nn.softmax(jnp.where(allowed, logits, -jnp.inf), axis=1)": ONLY,
        "return jax.nn.softmax(jnp.where(allowed, logits, -jnp.inf), axis=--1)": ONLY,
        "allowed = jnp.tril(jnp.ones(logits.shape))": "1.0 is as true as True",
    },
    "cosine": {
        "return b @ a / (np.linalg.norm(a) * np.linalg.norm(b))": "a dot product is symmetric",
    },
    "perfect_eye": {
        "shares = jax.nn.softmax(-distance / (2 * (1 - alpha_bar[:, None])))": LAST,
        "shares = jax.nn.softmax(-distance / (2 * (1 - alpha_bar[:, None])), axis=-1)": ONLY,
        "distance = jnp.square(z[:, None] - signal * pictures[None]).sum(axis=(3, 2, 4))": (
            "a sum over axes has no order"
        ),
        "distance = jnp.square(z[:, None] - signal * pictures[None]).sum(axis=(2, 4, 3))": (
            "a sum over axes has no order"
        ),
        "distance = jnp.square(signal * pictures[None] - z[:, None]).sum(axis=(2, 3, 4))": SQUARED,
        "distance = jnp.square(-(z[:, None] - signal * pictures[None])).sum(axis=(2, 3, 4))": (
            SQUARED
        ),
        "distance = jnp.square(z[:, None] - signal * pictures).sum(axis=(2, 3, 4))": (
            "an axis of length 1 is added in front by itself"
        ),
    },
    "learn": {
        "while len(merges) != count:": "their number grows one by one, from 0",
        "pairs = -Counter()": "an empty one is empty",
    },
    "convolve": {
        f"padded = jnp.pad(x, ({frame}, (0, 0)))": "no window looks at the second row of zeros"
        for frame in ("(1, 2), (1, 1)", "(1, 1), (1, 2)")
    },
    "kl": {
        f"return 0.5 * each.sum(axis={axes})": "a sum over axes has no order; -2 is axis 2"
        for axes in ("(1, -2, 3)", "(1, 3, 2)", "(2, 1, 3)")
    },
    "axes": {"return kernel.transpose(3, -2, 0, 1)": "of four axes, -2 is axis 2"},
    "sinusoids": {
        "half = width / 2": "width is even",
        "angles = timesteps[:, None] * frequencies": "an axis is added in front by itself",
        "return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)": ONLY,
        "return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=--1)": ONLY,
    },
    "explained": {
        "rows = -np.asarray(x, np.float64).reshape(-1, x.shape[-1])": SQUARED,
        "rows = (-np.asarray(x, np.float64)).reshape(-1, x.shape[-1])": SQUARED,
        "rows = x.reshape(-1, x.shape[-1])": "float32 is exact enough",
        "rows = np.asarray(x).reshape(-1, x.shape[-1])": "float32 is exact enough",
        "rows = np.asarray(x, np.float64).reshape(-2, x.shape[-1])": "NumPy takes -2 for -1",
        "strengths = -np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2": (
            "a sign of all strengths leaves their shares"
        ),
        "strengths = (-np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)) ** 2": SQUARED,
        "strengths = np.linalg.svd(rows.mean(axis=0) - rows, compute_uv=False) ** 2": SQUARED,
        "strengths = np.linalg.svd(-(rows - rows.mean(axis=0)), compute_uv=False) ** 2": SQUARED,
    },
    "twice": {"return x.repeat(2, axis=1).repeat(2, axis=-2)": "of four axes, -2 is axis 2"},
    "skips": {
        "return [latest_first[i:i + each] for i in range(0, len(latest_first), each)]": (
            "both lists are as long"
        ),
    },
    "widths": {
        "if level != len(channels) - 1:": "no level is beyond the last",
        "found, h = ([], skips[-1])": "the last skip has the last level's channels",
    },
    "cut": {
        "squares = z.reshape(b, h // p, p, w // p, c, p).transpose(0, 1, 3, 2, 4, 5)": (
            "the last two axes stay beside each other"
        ),
        "squares = z.reshape(b, h // p, p, w // p, p, c).transpose(0, 1, -3, 2, 4, 5)": (
            "of six axes, -3 is axis 3"
        ),
        "squares = z.reshape(h // p, b, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5)": (
            "the first two axes stay beside each other"
        ),
    },
    "looked_far": {
        f"distance = jnp.hypot({sides})": "a length has no sign, and its sides no order"
        for sides in (
            "column[:, None] - column[None], row[:, None] - row[None]",
            "row[None] - row[:, None], column[:, None] - column[None]",
            "-(row[:, None] - row[None]), column[:, None] - column[None]",
            "row[:, None] - row[None], column[None] - column[:, None]",
            "row[:, None] - row[None], -(column[:, None] - column[None])",
        )
    }
    | {
        f"return (weights * distance[None]).sum(axis={over}).mean(axis={then})": (
            "a sum over both axes has no order; -2 is axis 1"
        )
        for over, then in (("-1", "1"), ("-1", "--1"), ("1", "-1"), ("-2", "-1"), ("--1", "-1"))
    }
    | {
        f"row, column = jnp.divmod(jnp.arange(weights.shape[{axis}]), columns)": (
            "as many look as are looked at"
        )
        for axis in ("2", "-1")
    },
    "flow_loss": {
        "return jnp.mean((noise - x0 - predict(z, t)) ** 2)": SQUARED,
        "return jnp.mean((-(predict(z, t) - (noise - x0))) ** 2)": SQUARED,
    },
    "glasses": {
        "length = jnp.sqrt((s - 1) ** 2 + s ** 2)": SQUARED,
        "length = jnp.sqrt((-(1 - s)) ** 2 + s ** 2)": SQUARED,
    }
    | {
        f"return {{'alpha_bar': {share} ** 2, 'factor': 1 / length}}": SQUARED
        for share in ("(-((1 - s) / length))", "((s - 1) / length)", "(-(1 - s) / length)")
    },
    "listen": {
        "mixed = jnp.einsum('hnm,mhd->nhd', jax.nn.softmax(logits), v)": LAST,
        "logits = jnp.einsum('nhd,mhd->hnm', q, k) / (c / heads) ** 0.5": "heads divides c",
    },
    "loss": {
        "return jnp.mean((v - prediction) ** 2)": SQUARED,
        "return jnp.mean((-(prediction - v)) ** 2)": SQUARED,
    },
    "sides": {
        "if layer <= 'conv' and padding == 'valid':": "no name stands before conv",
        "if layer == 'conv' and padding >= 'valid':": "no padding stands after valid",
        "elif layer >= 'up':": "no name stands after up",
    },
    "mixture": {
        "shares = jax.nn.softmax((logits + noise) / temperature)": LAST,
        "shares = jax.nn.softmax((logits + noise) / temperature, axis=-1)": ONLY,
        "logits = -jnp.square(codes[None] - x[:, None]).sum(axis=2)": SQUARED,
        "logits = -jnp.square(-(x[:, None] - codes[None])).sum(axis=2)": SQUARED,
        "logits = -jnp.square(x[:, None] - codes).sum(axis=2)": IN_FRONT,
    },
    "revive": {
        "distance = jnp.square(x[:, None] - codes[None]).mean(axis=2)": "the nearest stays nearest",
        "distance = jnp.square(codes[None] - x[:, None]).sum(axis=2)": SQUARED,
        "distance = jnp.square(-(x[:, None] - codes[None])).sum(axis=2)": SQUARED,
        "distance = jnp.square(x[:, None] - codes).sum(axis=2)": IN_FRONT,
        "used = jnp.isin(jnp.arange(len(fresh)), distance.argmin(axis=1))": "there are as many",
        "used = jnp.isin(jnp.arange(len(codes)), distance.argmin(axis=-1))": ONLY,
    },
    "fill": {
        "log_p = jax.nn.log_softmax(logits, axis=1)": "JAX takes NumPy's arrays, and NumPy JAX's",
        "log_p = np.asarray(jax.nn.log_softmax(logits))": LAST,
        "log_p = np.asarray(jax.nn.log_softmax(logits, axis=-1))": ONLY,
        "open_ = canvas >= mask": "no code has a number beyond the mask's",
    }
    | {
        f"sure = log_p[np.arange(len({other})), drawn] + doubts": "all are n long"
        for other in ("canvas", "doubts", "log_p", "logits")
    },
    "across_frames": {
        "films = x.reshape(-1, frames, w, h, c).transpose(0, 2, 3, 1, 4)": TURNED,
        "return seen.reshape(-1, w, h, frames, c).transpose(0, 3, 1, 2, 4).reshape(x.shape)": (
            TURNED
        ),
    },
    "look": {
        "h = norm(x) + place": "an axis is added in front by itself",
        "weights = jax.nn.softmax(q @ k.mT / q.shape[-1] ** 0.5)": LAST,
    }
    | {
        f"weights = jax.nn.softmax(q @ k.mT / {other}.shape[-1] ** 0.5, axis=-1)": "all are C wide"
        for other in ("h", "k", "place", "v", "x")
    },
    "slerp": {"angle = -jnp.arccos(cosine)": "sines above and below change their sign"},
    "weight": {
        "return jnp.clip(1, snr, 5) / (snr + 1)": "1 kept between snr and 5 is the same number",
    },
}


def solutions(lessons):
    """Exercise -> the code of its solution, and the expression that its check is given."""
    found = {}
    for source in lessons:
        code = [c for c in notebook(source, solved=True).cells if c.cell_type == "code"]
        given = {
            asked[1]: _checked(cell.source) for cell in code if (asked := CHECK.search(cell.source))
        }
        for cell in code:
            if name := cell.metadata.get("exercise"):
                found[name] = cell.source, given[name]
    return found


def _checked(code):
    """The expression that a cell hands to `lesson.check`."""
    calls = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    return next(ast.unparse(c.args[1]) for c in calls if ast.unparse(c.func) == "lesson.check")


SOLUTIONS = solutions(sources())


def solved(name, code, answer):
    """Does the check say that this code is right?"""
    rounds = iter(range(LOOPS))

    def tick():
        if next(rounds, None) is None:
            raise RuntimeError("endless")

    names = {"jax": jax, "jnp": jnp, "np": np, TICK: tick}
    try:
        exec(compile(ticking(code), "<answer>", "exec"), names)
        given = eval(answer, names)
    except Exception:
        return False
    exercise = replace(BY_NAME[name], mistakes={})  # a hint is not asked for
    return check(name, exercise, given, Words("en")).solved


def changed(code, mutant):
    """The lines of the mutant that are not in the code."""
    before = ast.unparse(ast.parse(code)).splitlines()
    lines = difflib.ndiff(before, mutant.splitlines())
    return " ".join(line[1:].strip() for line in lines if line.startswith("+"))


@pytest.mark.slow  # some 3,000 small programs
@pytest.mark.filterwarnings("ignore")  # a mutant may do what it likes
@pytest.mark.parametrize("name", SOLUTIONS)
def test_no_mutant_of_a_solution_passes(name):
    code, answer = SOLUTIONS[name]
    assert solved(name, code, answer)
    equal = EQUAL.get(name, {})
    made = [(changed(code, mutant), mutant) for _, mutant in mutants(code)]
    assert len(made) > 5
    assert equal.keys() <= dict(made).keys()  # none is listed that is not made
    passed = {line for line, mutant in made if solved(name, mutant, answer)}
    assert not passed - equal.keys()


def test_every_exercise_has_a_solution():
    assert SOLUTIONS.keys() == BY_NAME.keys()


def test_what_mutants_are_made():
    code = "def f(a, b):\n    return g(a, 2 * b, axis=-1)"
    lines = [changed(code, mutant) for _, mutant in mutants(code)]
    for line in (
        "return -g(a, 2 * b, axis=-1)",
        "return g(2 * b, a, axis=-1)",
        "return g(b, 2 * b, axis=-1)",
        "return g(a, 3 * b, axis=-1)",
        "return g(a, 2 / b, axis=-1)",
        "return g(a, b, axis=-1)",
        "return g(2 * b, axis=-1)",
        "return g(a, 2 * b)",
        "return g(a, 2 * b, axis=1)",
    ):
        assert line in lines
    assert len(set(lines)) == len(lines)


def test_an_endless_answer_is_no_answer():
    code = "def glue(word, pair):\n    while True:\n        pass"
    assert not solved("merge_pair", code, "glue")
