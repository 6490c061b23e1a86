"""Every check knows the right answer, catches each plausible wrong one, and says which it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffusion.config import VariancePreservingConfig
from diffusion.course import Lesson
from diffusion.course.exercise import Exercise, check
from diffusion.course.exercises import EXERCISES, film
from diffusion.course.words import TABLE, Words
from diffusion.process import process, samplers
from diffusion.stages.motion import TemporalBlock
from diffusion.training.conv_autoencoder import keras_adam

ALL = [(name, exercise) for lesson in EXERCISES.values() for name, exercise in lesson.items()]
MISTAKES = [(name, exercise, hint) for name, exercise in ALL for hint in exercise.mistakes]
WORDS = Words("en")


@pytest.mark.parametrize(("name", "exercise"), ALL, ids=[name for name, _ in ALL])
def test_the_right_answer_is_right(name, exercise):
    report = check(name, exercise, exercise.right, WORDS)
    assert report.solved, report
    assert f"{len(exercise.cases())} of" in report.text or exercise.cases() == [()]


@pytest.mark.parametrize(
    ("name", "exercise", "hint"), MISTAKES, ids=[f"{name}-{hint}" for name, _, hint in MISTAKES]
)
def test_every_mistake_is_caught_by_its_name(name, exercise, hint):
    report = check(name, exercise, exercise.mistakes[hint], WORDS)
    assert not report.solved
    assert TABLE["en"][f"hint.{name}.{hint}"] in report.text


@pytest.mark.parametrize(("name", "exercise"), ALL, ids=[name for name, _ in ALL])
def test_there_are_two_mistakes_and_minutes(name, exercise):
    assert len(exercise.mistakes) >= 2
    assert 1 <= exercise.minutes <= 30


@pytest.mark.parametrize(("name", "exercise"), ALL, ids=[name for name, _ in ALL])
def test_what_is_not_filled_in_is_not_solved_yet(name, exercise):
    report = check(name, exercise, lambda *_: ..., WORDS)
    assert (report.solved, report.text) == (False, f"{name}: not solved yet.")


def raises(kind):
    def answer(*_):
        raise kind("sizes differ")

    return answer


TWO = Exercise(
    minutes=1,
    right=lambda x: {"double": 2 * x, "name": "x"},
    cases=lambda: [(np.arange(3.0),), (np.ones((2, 2)),)],
    mistakes={},
)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (raises(NotImplementedError), "two: not solved yet."),
        (None, "two: not solved yet."),
        (..., "two: not solved yet."),
        (lambda *_: None, "two: not solved yet."),
        (
            raises(TypeError),
            "raises an error in case 1: TypeError: sizes differ\n  It is in line ",
        ),
        (
            lambda x: {"double": 2 * x[:2], "name": "x"},
            "In 'double': The shape should be (3,), yours is (2,)",
        ),
        (lambda x: [2 * x], "There should be the entries double, name; yours are [array("),
        (lambda x: {"double": x * np.nan, "name": "x"}, "3 of 3 values are infinite"),
        (
            lambda x: {"double": 2 * x, "name": "y"},
            "In 'name': It should be 'x', yours is 'y'.",
        ),
        (lambda x: {"double": ..., "name": "x"}, "two: 1 of 2 are right so far."),
        (lambda x: {"double": ..., "name": "y"}, "In 'name': It should be 'x', yours is 'y'."),
        (lambda x: {"double": ..., "name": ...}, "two: not solved yet."),
        (lambda x: {"double": [1, ...], "name": ...}, "two: not solved yet."),
        (lambda x: {"double": "many", "name": "x"}, "It should be (3,), yours is 'many'."),
        (
            lambda x: {"double": 2 * x + (x > 1.5), "name": "x"},
            "difference is 1, at [2]: it should be 4, yours is 5.",
        ),
        (
            lambda x: {"double": 2 * x + (x.ndim > 1), "name": "x"},
            "not right yet (case 2 of 2)",
        ),
    ],
)
def test_what_is_wrong_is_explained(answer, said):
    report = check("two", TWO, answer, WORDS)
    assert not report.solved
    assert said in repr(report)


def test_arrays_of_jax_and_rounding_are_accepted():
    answer = lambda x: {"double": jnp.asarray(2 * x) * (1 + 1e-7), "name": "x"}  # noqa: E731
    report = check("two", TWO, answer, WORDS)
    assert report.solved, report


def test_a_value_is_an_answer_too():
    size = Exercise(1, lambda: 42, lambda: [()], {"half": lambda: 21})
    assert check("size", size, 42, WORDS).solved
    assert not check("size", size, 41, WORDS).solved
    assert check("size", size, np.asarray(42), WORDS).solved
    assert not check("size", size, "42", WORDS).solved
    row = Exercise(1, lambda: [1, 2], lambda: [()], {})
    assert check("row", row, np.array([1, 2]), WORDS).solved
    assert "not right: array([1, 3])" in check("row", row, np.array([1, 3]), WORDS).text


def test_a_value_that_is_looked_for_is_not_told():
    wanted = {"canvas": (3, 16), "picture": (3, 64)}
    shapes = Exercise(1, lambda: wanted, lambda: [()], {"flat": lambda: wanted | {"canvas": (48,)}})
    words = Words("en")
    said = check("ledger", shapes, {"canvas": (3, 8), "picture": (3, 64)}, words).text
    assert said == "ledger: not right yet.\n  This is not right: canvas: (3, 8)."
    said = check("ledger", shapes, {"canvas": (3, 8), "picture": ...}, words).text
    assert "16" not in said
    said = check("ledger", shapes, {"canvas": (3, 16), "picture": ...}, words)
    assert (said.solved, said.text) == (False, "ledger: 1 of 2 are right so far.")
    assert check("ledger", shapes, wanted, words).text == "ledger: right."
    assert "entries canvas, picture; yours are 5" in check("ledger", shapes, 5, words).text


def test_two_mistakes_in_one_dictionary_are_recognised_each():
    answer = EXERCISES[0]["ledger"].right() | {"canvas": (3, 64, 64, 3), "context": (3, 128)}
    text = check("ledger", EXERCISES[0]["ledger"], answer, WORDS).text
    assert "canvas: (3, 64, 64, 3)" in text
    assert "context: (3, 128)" in text
    assert TABLE["en"]["hint.ledger.pixels"] in text


def test_a_long_row_is_told_by_its_first_wrong_place():
    row = Exercise(1, lambda n: [n, 2, 3], lambda: [(1,)], {})
    assert "In 1: It should be 2, yours is 5." in check("row", row, lambda n: [n, 5, 3], WORDS).text
    assert "should be 3 parts, yours are 2" in check("row", row, lambda n: [n, 2], WORDS).text


@pytest.mark.parametrize(("factor", "said"), [(-1, "the other sign"), (3, "is 3 times what")])
def test_one_factor_is_noticed(factor, said):
    half = Exercise(1, lambda x: x / 2, lambda: [(np.array([1.0, -3.0]),)], {})
    assert said in check("half", half, lambda x: factor * x / 2, WORDS).text


def test_a_mistake_that_is_no_number_is_recognised():
    strict = lambda x: np.array([np.nan, 1.0])  # noqa: E731
    one = Exercise(1, lambda x: x, lambda: [(np.ones(2),)], {"strict": strict})
    assert TABLE["en"]["hint.causal.strict"] in check("causal", one, strict, WORDS).text


def test_answers_that_could_hang_or_break_a_check():
    row = Exercise(1, lambda x: ["a"], lambda: [(1,)], {})
    loop = []
    loop.append(loop)
    assert not check("row", row, lambda x: loop, WORDS).solved
    assert not check("row", row, lambda x: [np.ones(2)], WORDS).solved
    assert not check("row", row, {"a": ...}, WORDS).solved


def test_the_exercise_of_second_order_is_the_projects_sampler():
    known = process(VariancePreservingConfig(prediction="v"))
    table = samplers.table("dpm++2m", known, 10)
    z, x0, before = np.random.default_rng(0).standard_normal((3, 1, 2, 2, 3)).astype(np.float32)
    bars = known.alpha_bars[table.timestep]
    for i in (1, 5, 8):
        given = map(jnp.asarray, (z, x0, before, 0 * z))
        theirs, _ = samplers.update(table.row(i), *given)
        ours = EXERCISES[10]["second_order"].right(z, x0, before, *bars[i - 1 : i + 2])
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_exercise_of_adam_is_the_projects_optimizer():
    gradients = {"a": jnp.asarray([1e-7, -1e-6, 1e-3])}
    optimizer = keras_adam(1e-3)
    memory = optimizer.init(gradients)
    for step in (1, 2, 3):
        changes, memory = optimizer.update(gradients, memory)
        ours = EXERCISES[13]["change"].right(memory.mean["a"], memory.square["a"], step)
        np.testing.assert_allclose(ours, changes["a"], rtol=1e-4)


def test_the_exercise_of_the_look_is_the_projects_block():
    x, norm, place, layers = film.EXERCISES["look"].cases()[0]
    block = TemporalBlock(x.shape[-1], 1, rngs=nnx.Rngs(0))
    for name, kernel in layers.items():
        getattr(block.attention1, name).kernel[...] = kernel
    for last in (block.attention2.out, block.feed_forward.linear2):  # these two say nothing
        last.kernel[...] = 0 * last.kernel[...]
    found = film.EXERCISES["look"].right(x, norm, place, layers)
    np.testing.assert_allclose(found, block(x), atol=1e-5)


def test_a_row_that_is_cut_one_token_too_late_is_refused():
    def late(ids, length, bos, eos):
        ids = ids if len(ids) < length else ids[: length - 2]
        return np.array([bos, *ids, eos, *[eos] * length][:length])

    report = check("row", EXERCISES[1]["row"], late, WORDS)
    assert "case 5 of 5" in report.text
    assert TABLE["en"]["hint.row.cut_end"] in report.text


def test_an_answer_that_empties_its_inputs_meets_full_ones_again():
    names, numbers = ["a", "b"], np.ones(2)
    pop = Exercise(1, lambda x, y: [*x, *y.tolist()], lambda: [(names, numbers)] * 2, {})

    def empties(x, y):
        y *= 3
        return [x.pop(0) for _ in range(len(x))] + y.tolist()

    assert not check("pop", pop, empties, WORDS).solved
    assert names == ["a", "b"]
    assert numbers.tolist() == [1.0, 1.0]


def test_a_right_answer_is_right_on_accelerators_which_round_products():
    """What the device would do with float32 products, the CPU cannot show; the setting it can."""
    asked = []

    def product(x, y):
        asked.append(jax.config.jax_default_matmul_precision)
        return x @ y

    cases = lambda: [(jnp.ones((2, 3)), jnp.ones((3, 4)))]  # noqa: E731
    assert check("product", Exercise(1, product, cases, {}), product, WORDS).solved
    assert asked == ["highest"] * 2
    assert jax.config.jax_default_matmul_precision is None


def test_single_precision_is_enough_for_the_ratio_of_signal_to_noise():
    def snr(alpha_bar):
        alpha_bar = jnp.asarray(alpha_bar, jnp.float32)
        return alpha_bar / (1 - alpha_bar)

    assert check("snr", EXERCISES[3]["snr"], snr, WORDS).solved


def test_every_language_says_everything():
    for table in TABLE.values():
        assert table.keys() == TABLE["en"].keys()


def test_a_lesson_says_where_it_runs_and_checks(capsys):
    lesson = Lesson(3)
    assert capsys.readouterr().out.startswith("Lesson 3, The dotted canvas. JAX finds 1 x cpu")
    assert lesson.check("snr", EXERCISES[3]["snr"].right).solved
    with pytest.raises(ValueError, match="no exercise 'nsr'; it has add_noise"):
        lesson.check("nsr", None)
    with pytest.raises(ValueError, match="no lesson 99"):
        Lesson(99)
    with pytest.raises(ValueError, match="does not speak 'xx'; it speaks en"):
        Lesson(3, "xx")


NESTED = Exercise(1, lambda _: [["a", "b"], ["c"]], lambda: [(1,)], {})


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (["a", "b", "c"], "There should be 2 parts, yours are 3."),
        ([["a", "b"], ["d"]], "In 1: In 0: It should be 'c', yours is 'd'."),
        ("abc", "It should be list, yours is str."),
    ],
)
def test_lists_of_lists_keep_their_order_and_depth(answer, said):
    assert said in check("nested", NESTED, lambda _: answer, WORDS).text
    assert check("nested", NESTED, lambda _: [("a", "b"), ["c"]], WORDS).solved
