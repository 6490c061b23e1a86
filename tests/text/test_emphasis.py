"""Signs of web interfaces in a prompt: what they mean, and which rows of tokens they make."""

import contextlib
import time
import warnings

import numpy as np
import pytest

from diffusion.text import emphasis
from diffusion.text.emphasis import EmphasisWarning, escape, files, parse, rows
from diffusion.text.tokenizer import Tokenizer


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a red house", [("a red house", 1)]),
        ("a (red) house", [("a ", 1), ("red", 1.1), (" house", 1)]),
        ("a ((red)) house", [("a ", 1), ("red", 1.1**2), (" house", 1)]),
        ("a (red:1.3) house", [("a ", 1), ("red", 1.3), (" house", 1)]),
        ("a (red : .5 )", [("a ", 1), ("red ", 0.5)]),
        ("(red:-1)", [("red", -1)]),
        ("a [red] house", [("a ", 1), ("red", 1 / 1.1), (" house", 1)]),
        ("((red:1.5) big)", [("red", 1.5 * 1.1), (" big", 1.1)]),
        ("[[red] big]", [("red", 1.1**-2), (" big", 1 / 1.1)]),
        (r"a \(red\) \[big\]", [("a (red) [big]", 1)]),
        (r"(a \(red\):1.2)", [("a (red)", 1.2)]),
        (r"a\b\\c", [(r"ab\c", 1)]),  # a lone backslash is no sign, and is left out there
        ("(red house", [("red house", 1.1)]),
        ("[red house", [("red house", 1 / 1.1)]),
        ("red) house] :1.3)", [("red) house] :1.3)", 1)]),
        ("red: a house:1.3", [("red: a house:1.3", 1)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1), (" c", 1 / 1.1)]),
        ("(a:1.2)(b:1.2)", [("ab", 1.2)]),
        ("() [] a", [("  a", 1)]),
        ("", []),
    ],
)
def test_signs_and_weights(prompt, parts):
    [found] = parse(prompt)
    assert [text for text, _ in found] == [text for text, _ in parts]
    np.testing.assert_allclose([w for _, w in found], [w for _, w in parts], rtol=1e-12)


def test_break_begins_anew():
    assert parse("a BREAK b") == [[("a ", 1)], [(" b", 1)]]
    assert parse("BREAK a BREAK") == [[], [(" a ", 1)], []]
    assert parse("(a BREAK b:2)") == [[("a ", 2)], [(" b", 2)]]
    assert parse("BREAKFAST and a break") == [[("BREAKFAST and a break", 1)]]


@pytest.mark.parametrize("text", ["a (red) [big] house", r"a \(b\) \\", "", "(:1.3)"])
def test_an_escaped_text_says_what_it_said(text):
    assert parse(escape(text)) == [[(text, 1)] if text else []]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a [cat:dog:0.5]", r"'\[cat:dog:0.5\]': words that change on the way"),
        ("a [dog:10] here", "words that change on the way"),
        ("a [cat|dog]", "words that change on the way"),
        ("a cat AND a dog", "'AND': words that change on the way and prompts that are added up"),
        ("a (cat:101)", r"'cat' weighs 101; give up to 100"),
        ("(" * 101 + "a", r"brackets more than 100 deep; write \(words:1.3\)"),
    ],
)
def test_what_is_not_supported_is_named(prompt, message):
    with pytest.raises(ValueError, match=message):
        parse(prompt)


def test_escaped_brackets_change_nothing_on_the_way():
    assert parse(r"\[cat|dog\] \[a:b:1\]") == [[("[cat|dog] [a:b:1]", 1)]]


@pytest.fixture(scope="module")
def tokenizer():
    captions = ["a red house, two old trees, a moon", "yellow flowers, a house"]
    return Tokenizer.train(captions, vocab_size=700, length=10)


def test_a_plain_prompt_has_the_tokenizer_s_row(tokenizer):
    for prompt in ("a red house", "", "(a) [red] (house:1.3)"):
        tokens, weights = rows(tokenizer, prompt)
        plain = prompt.translate(dict.fromkeys(map(ord, "()[]:1.3")))
        np.testing.assert_array_equal(tokens, tokenizer(plain))
        assert weights.dtype == np.float32
    np.testing.assert_allclose(
        weights, [[1, 1.1, 1 / 1.1, 1.3, 1, 1, 1, 1, 1, 1]], rtol=1e-6
    )  # begin and end, and the filling, weigh 1


def test_each_break_has_a_row(tokenizer):
    tokens, weights = rows(tokenizer, "a red house BREAK two (trees:2)")
    np.testing.assert_array_equal(tokens, tokenizer(["a red house", "two trees"]))
    assert weights[1, 2] == 2
    assert weights.sum() == weights.size + 1
    np.testing.assert_array_equal(rows(tokenizer, "BREAK a")[0], tokenizer(["", "a"]))
    np.testing.assert_array_equal(rows(tokenizer, "a BREAK")[0], tokenizer(["a"]))


def test_what_does_not_fit_goes_on_in_another_row(tokenizer):
    """Eight tokens a row; after the last comma, for all are near."""
    cut = ["a red house,", "two old trees a moon, a red"]
    np.testing.assert_array_equal(rows(tokenizer, " ".join(cut))[0], tokenizer(cut))
    words = ["a red house two old trees a red", "house a moon"]
    np.testing.assert_array_equal(rows(tokenizer, " ".join(words))[0], tokenizer(words))
    full = "a red house two old trees a red"
    np.testing.assert_array_equal(rows(tokenizer, full)[0], tokenizer([full]))
    np.testing.assert_array_equal(rows(tokenizer, f"{full}, a")[0], tokenizer([full, ", a"]))


def test_a_comma_that_is_far_ends_no_row():
    tokenizer = Tokenizer.train(["a red house,"], vocab_size=600, length=32)
    words = "a, " + "red " * 35
    tokens, _ = rows(tokenizer, words)
    np.testing.assert_array_equal(tokens, tokenizer(["a, " + "red " * 28, "red " * 7]))


def test_the_most_rows(tokenizer):
    assert len(rows(tokenizer, "a BREAK " * 6)[0]) == 6
    with pytest.raises(ValueError, match="the prompt needs 7 rows of 8 tokens; 6 is the most"):
        rows(tokenizer, "a BREAK " * 7)


@pytest.mark.parametrize(
    ("prompt", "note"),
    [
        ("a (red) house", r"'\(red\)' is read as words; --emphasis weighs \(words:1.3\) and"),
        ("a [red] house", r"'\[red\]' is read as words"),
        ("a BREAK b", "'BREAK' is read as words"),
        ("a <lora:style:0.8>", "<lora:style:0.8> adds no file here; name it: --lora style.safe"),
    ],
)
def test_a_prompt_that_looks_like_it_has_one_note(prompt, note):
    with pytest.warns(EmphasisWarning, match=note) as told:
        emphasis.tell([prompt, "trees (blurry)" if "lora" not in prompt else ""])
    assert len(told) == 1


def test_others_have_none():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        emphasis.tell(["a red house, 1:30 o'clock; :)", "a break", "3 < 5 > 2", ""])


def test_files_are_named_with_the_way_to_add_them(tokenizer):
    assert files("<lora:a b:0.8> x <lyco:c> <hypernet:d:te=1:0.5>") == [
        "<lora:a b:0.8> adds no file here; name it: --lora a b.safetensors=0.8",
        "<lyco:c> adds no file here; name it: --lora c.safetensors",
        "<hypernet:d:te=1:0.5> adds no file here; name it: --lora d.safetensors",
    ]
    with pytest.warns(EmphasisWarning, match="--lora style.safetensors=0.8"):
        tokens, _ = rows(tokenizer, "a red house <lora:style:0.8>")
    np.testing.assert_array_equal(tokens, tokenizer("a red house"))


@pytest.mark.parametrize(
    "prompt",
    [":1" * 10_000, "[" + ":1111" * 10_000, " " * 50_000, "[" + "1" * 50_000, "<lora:" * 10_000,
     "(a " * 99 + "a)" * 10_000],
)  # fmt: skip
def test_no_prompt_takes_long(prompt):
    began = time.process_time()
    for read in (parse, files, emphasis.LOOKS.search):
        with contextlib.suppress(ValueError):
            read(prompt)
    assert time.process_time() - began < 5
