"""Tests of `diffusion.text.tokenizer`."""

import json
import unicodedata
import warnings
from collections import Counter

import numpy as np
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from diffusion.text.characters import LATER_ACCENTS, WORD
from diffusion.text.clip_files import LARGEST_FILE
from diffusion.text.tokenizer import (
    BASE_TOKENS,
    BOS,
    EOS,
    PromptCutWarning,
    Tokenizer,
    apply_merges,
    count_pairs,
    learn_merges,
    merge_pair,
    normalise,
    word_symbols,
)

CAPTIONS = [
    "a red house with two old trees and yellow flowers",
    "a blue house at night, the moon is high",
    "kırmızı bir ev, iki yaşlı ağaç ve sarı çiçekler",
    "kirmizi bir ev, karlı bir gün",
    "gece vakti mavi ev",
]
GARDEN = Tokenizer.train(CAPTIONS, 700)
OFFICIAL = Tokenizer(GARDEN.vocab, GARDEN.merges)  # CLIP's own rules: no folding of İ
STABLE_DIFFUSION_2 = Tokenizer(GARDEN.vocab, GARDEN.merges, pad_token="!", any_case=(BOS, EOS))

any_text = st.text(alphabet=st.characters())  # the whole of Unicode, lone surrogates included
houses = st.sampled_from([*"aehosuıiİIΣςDT'!<|>/ \t\n12", "\u0307", "\ud800", "🏡", "</w>", "'s"])
texts = any_text | st.lists(houses, max_size=40).map("".join)
# Hypothesis writes markers out, too: it tries the constants of the code under test.
unmarked = texts.filter(lambda text: not any(mark in text.lower() for mark in (BOS, EOS)))
tokenizers = pytest.mark.parametrize("tokenizer", [GARDEN, OFFICIAL, STABLE_DIFFUSION_2])
# A tenth of a second; by the square of the length it is minutes.
in_linear_time = pytest.mark.timeout(60)
property_test = settings(derandomize=True, max_examples=100)


def without_space(text: str) -> str:
    return "".join(text.split())


def flagged(marker, normalized=True):
    return {"content": marker, "normalized": normalized, "lstrip": False}


def write_one_file(folder, **changes):
    """A tokenizer.json as `transformers` 5 writes it, with changes to its "model"."""
    tokens = [*BASE_TOKENS, "ev</w>", BOS, EOS]
    vocab = {token: number for number, token in enumerate(tokens)}
    model = {"type": "BPE", "dropout": None, "unk_token": EOS, "continuing_subword_prefix": ""}
    model |= {"end_of_word_suffix": "</w>", "vocab": vocab, "merges": [["e", "v</w>"]]} | changes
    added = [{"id": 513, **flagged(BOS, False)}, {"id": 514, **flagged(EOS)}]
    data = {"version": "1.0", "added_tokens": added, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    return folder


def write_folder(folder, merges, special=None, config=None):
    """Files laid out as the official ones are: 512 byte tokens, merges in order, BOS, EOS."""
    tokens = [*BASE_TOKENS, *(merge.replace(" ", "") for merge in merges), BOS, EOS]
    vocab = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    if special is not None:
        (folder / "special_tokens_map.json").write_text(json.dumps(special), encoding="utf-8")
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


class TestMergeLoop:
    def test_counts_neighbours_as_often_as_their_word_was_seen(self):
        assert count_pairs({("s", "u", "n"): 2, ("u", "n"): 3}) == {("s", "u"): 2, ("u", "n"): 5}

    def test_merges_from_the_left(self):
        assert merge_pair(("a", "a", "a"), ("a", "a")) == ("aa", "a")
        assert merge_pair(("b", "a", "b", "a"), ("b", "a")) == ("ba", "ba")
        assert merge_pair(("a", "b"), ("b", "a")) == ("a", "b")

    def test_order_of_merges_worked_by_hand(self):
        # sun x4: s u n.     sunny x2: s u n n y.     fun x3: f u n.     (. marks the end of a word)
        # un. 7, su 6, ...              -> u n.       now sun. is  s un.   and fun. is  f un.
        # s+un. 4, f+un. 3, su 2, ...   -> s un.
        # f+un. 3, four pairs with 2    -> f un.
        # nn 2, ny. 2, su 2, un 2       -> n n   (the first of equals in code point order)
        # nn+y. 2, su 2, u+nn 2         -> nn y.
        # su 2, u+nny. 2                -> s u,   then su nny.
        counts = {"sun": 4, "sunny": 2, "fun": 3}
        merges = learn_merges({word_symbols(word): n for word, n in counts.items()}, 100)
        assert merges == [
            ("u", "n</w>"),
            ("s", "un</w>"),
            ("f", "un</w>"),
            ("n", "n"),
            ("nn", "y</w>"),
            ("s", "u"),
            ("su", "nny</w>"),
        ]

    @property_test
    @given(st.text("ab", min_size=1, max_size=60), st.lists(st.text("ab", min_size=1)))
    def test_heap_agrees_with_merging_rank_by_rank(self, word, corpus):
        merges = learn_merges(Counter(map(word_symbols, corpus)), 40)
        slow = word_symbols(word)
        for pair in merges:
            slow = merge_pair(slow, pair)
        assert apply_merges(word_symbols(word), {p: rank for rank, p in enumerate(merges)}) == slow


class TestTraining:
    def test_vocabulary_has_the_order_of_clip(self):
        tokens = list(GARDEN.vocab)
        assert tokens[0] == "!"
        assert tokens[255] == "\u0143"  # the last of the spare symbols: the soft hyphen's byte
        assert tokens[256] == "!</w>"
        assert tokens[:512] == list(BASE_TOKENS)
        assert tokens[512:-2] == ["".join(pair) for pair in GARDEN.merges]
        assert tokens[-2:] == [BOS, EOS]
        assert list(GARDEN.vocab.values()) == list(range(GARDEN.vocab_size))

    def test_same_texts_in_any_order_give_the_same_tokenizer(self):
        again = Tokenizer.train(iter(reversed(CAPTIONS)), 700)
        assert again.merges == GARDEN.merges
        assert list(again.vocab.items()) == list(GARDEN.vocab.items())

    def test_stops_at_the_wanted_size(self):
        assert Tokenizer.train(CAPTIONS, 540).vocab_size == 540

    def test_stops_early_when_each_word_is_one_token(self):
        tokenizer = Tokenizer.train(["red house"], 10_000)
        assert tokenizer.vocab_size == 512 + 2 + 4 + 2  # r-e-d needs 2 merges, h-o-u-s-e 4
        assert tokenizer.tokens("red house") == ["red</w>", "house</w>"]

    def test_a_token_built_in_two_ways_has_one_number(self):
        # ab and bc are both frequent, so that abc is once ab + c and once a + bc.
        words = {("a", "b", "c", "x</w>"): 1, ("a", "b"): 9, ("b", "c"): 5, ("a", "bc"): 3}
        merges = learn_merges(words, 9)
        assert {("ab", "c"), ("a", "bc")} <= set(merges)
        assert len({"".join(pair) for pair in merges}) < len(merges)

    def test_no_text_leaves_the_bytes(self):
        assert Tokenizer.train([], 514).vocab_size == 514

    @pytest.mark.parametrize("size", [513, 0, -1])
    def test_refuses_a_vocabulary_without_room_for_the_bytes(self, size):
        with pytest.raises(ValueError, match="514"):
            Tokenizer.train(CAPTIONS, size)

    def test_refuses_a_single_string(self):
        with pytest.raises(ValueError, match="list of texts"):
            Tokenizer.train("a red house", 600)


class TestAnyText:
    @tokenizers
    @property_test
    @given(unmarked)
    def test_decode_undoes_encode_up_to_white_space(self, tokenizer, text):
        expected = normalise(text, tokenizer.fold_dotted_i)
        assert without_space(tokenizer.decode(tokenizer.encode(text))) == without_space(expected)

    def test_decode_leaves_markers_out(self):
        assert OFFICIAL.decode(OFFICIAL.encode(f"{BOS}ev{BOS}!")) == "ev !"
        assert OFFICIAL.decode(OFFICIAL.encode(f"ev{EOS}red")) == "ev"

    @tokenizers
    @property_test
    @given(texts)
    @example(f"{BOS}{EOS}")
    def test_a_row_is_bos_tokens_eos_padding(self, tokenizer, text):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PromptCutWarning)
            batch = tokenizer(text)
        assert batch.shape == (1, 77)
        assert batch.dtype == np.int32
        ids = tokenizer.encode(text)
        assert all(0 <= number < tokenizer.vocab_size for number in ids)
        row = [tokenizer.bos, *ids[:75], tokenizer.eos]
        assert batch[0].tolist() == row + [tokenizer.pad] * (77 - len(row))
        assert bool(tokenizer.cut(text)) == (len(ids) > 75)

    @property_test
    @given(texts)
    @example(f"{BOS}{EOS}")
    def test_tokens_are_one_readable_piece_a_number(self, text):
        pieces = GARDEN.tokens(text)
        assert len(pieces) == len(GARDEN.encode(text))
        assert all(pieces)

    @property_test
    @given(st.text(st.characters(exclude_categories=["Cs", "Cn"])))
    def test_normalise_keeps_nfc_of_many_accents(self, text):
        text = regex.sub(f"[{LATER_ACCENTS}]", "", text)  # those are left as they are
        text += "\u0316\u0301\u0344\u0323" * 20
        lower = unicodedata.normalize("NFC", text).replace("Σ", "σ").lower()
        assert without_space(normalise(text)) == without_space(lower)

    def test_words_are_split_as_in_clip(self):
        words = "It's 1990, they'll    paint!?"
        assert OFFICIAL.decode(OFFICIAL.encode(words)) == "it 's 1 9 9 0 , they 'll paint !?"

    def test_white_space_is_one_space_between_words(self):
        assert normalise("  Red\t\n\u00a0house ") == "red house"

    def test_decode_ends_at_eos_so_that_padding_is_never_text(self):
        assert STABLE_DIFFUSION_2.decode(STABLE_DIFFUSION_2("ev!")[0]) == "ev !"
        assert OFFICIAL.decode([*OFFICIAL("ev")[0], *OFFICIAL.encode("red")]) == "ev"

    def test_lower_case_knows_no_context(self):
        assert normalise("ΟΔΟΣ") == "οδοσ"

    def test_lone_surrogate_becomes_the_replacement_character(self):
        assert GARDEN.decode(GARDEN.encode("a \ud800 b")) == "a \ufffd b"

    def test_half_a_character_decodes_to_the_replacement_character(self):
        first_byte = Tokenizer.train([], 514).encode("ğ")[:1]
        assert GARDEN.decode(first_byte) == "\ufffd"

    def test_readable_pieces_show_single_bytes(self):
        assert Tokenizer.train([], 514).tokens("ağ") == ["a", "\\xc4", "\\x9f</w>"]

    def test_written_out_markers_become_their_numbers(self):
        ids = OFFICIAL.encode(f"ev!!{EOS}{BOS} ev")
        ev, marks = OFFICIAL.encode("ev"), OFFICIAL.encode("!!")
        assert ids == [*ev, *marks, OFFICIAL.eos, OFFICIAL.bos, *ev]
        assert OFFICIAL.tokens(f"ev{EOS}") == ["ev</w>", EOS]

    def test_a_marker_in_capitals_is_words(self):
        """And "|>" is a word of its own, also before "!!"."""
        ids = OFFICIAL.encode(EOS.upper() + "!!")
        whole = OFFICIAL.encode("<| endoftext |> !!")
        assert ids == whole != OFFICIAL.encode("<| endoftext |>!!")

    def test_a_marker_that_counts_in_any_case(self):
        ev, marks = OFFICIAL.encode("ev"), OFFICIAL.encode("!!")
        sd1 = Tokenizer(GARDEN.vocab, GARDEN.merges, any_case=[BOS])
        assert sd1.encode(f"EV{BOS.upper()}!!") == [*ev, sd1.bos, *marks]
        assert sd1.encode(f"{BOS}{EOS}") == [sd1.bos, sd1.eos]
        assert sd1.eos not in sd1.encode(EOS.upper())

    def test_markers_are_found_before_the_text_is_normalised(self):
        """Nothing composes or joins across one, and nothing becomes one by lower case."""
        assert OFFICIAL.encode(f"e{EOS}\u0301") == [
            *OFFICIAL.encode("e"),
            OFFICIAL.eos,
            *OFFICIAL.encode("\u0301"),
        ]
        padded = Tokenizer(GARDEN.vocab, GARDEN.merges, pad_token="k")
        assert padded.encode("kK") == [padded.pad, padded.vocab["k</w>"]]
        padded = Tokenizer(GARDEN.vocab, GARDEN.merges, pad_token="k", any_case="k")
        assert padded.encode("kK") == [padded.pad, padded.pad]

    def test_the_longest_marker_counts(self):
        vocab = {**GARDEN.vocab, f"{EOS}!": GARDEN.vocab_size}
        longer = Tokenizer(vocab, GARDEN.merges, pad_token=f"{EOS}!")
        assert longer.encode(f"{EOS}!{EOS}") == [longer.pad, longer.eos]

    def test_cut_names_words_and_markers_after_the_cut(self):
        tokenizer = Tokenizer(GARDEN.vocab, GARDEN.merges, length=4, any_case=[BOS])
        assert tokenizer.cut(f"red red RED{EOS} house {BOS.upper()}red") == (
            f"red {EOS} house {BOS} red"
        )

    @pytest.mark.parametrize("any_case", [["!"], ["<|pad|>"], [BOS, "ev</w>"]])
    def test_only_a_marker_counts_in_any_case(self, any_case):
        with pytest.raises(ValueError, match="is no marker"):
            Tokenizer(GARDEN.vocab, GARDEN.merges, any_case=any_case)

    @pytest.mark.parametrize("pad_token", ["", " "])
    def test_refuses_an_empty_padding_token(self, pad_token):
        vocab = {**GARDEN.vocab, pad_token: GARDEN.vocab_size}
        with pytest.raises(ValueError, match="padding token is empty"):
            Tokenizer(vocab, GARDEN.merges, pad_token=pad_token)

    @pytest.mark.parametrize(
        ("text", "seen"),
        [
            ("q\u07fd\u0334", "q\u07fd\u0334"),  # an accent of Unicode 11 stays where it is
            ("q\u0301\u0334", "q\u0334\u0301"),  # an old one gives way to its class
            ("\U00011935\U00011930", "\U00011935\U00011930"),  # composed since Unicode 13
            ("\u0915\u093c", "\u0915\u093c"),  # excluded from composition
            ("\u1c89\ua7cb\U00010d50\U00016ea0", "\u1c8a\u0264\U00010d70\U00016ebb"),
        ],
    )
    def test_characters_are_read_by_the_unicode_versions_of_the_reference(self, text, seen):
        assert normalise(text) == seen

    @pytest.mark.parametrize("letter", ["\u0558", "\U000323b0", "\U0003fc3f"])
    def test_later_letters_are_no_letters(self, letter):
        assert WORD.findall(f"a{letter}1{letter}!") == ["a", letter, "1", letter + "!"]

    def test_a_padding_token_in_a_prompt_is_the_padding_number(self):
        assert STABLE_DIFFUSION_2.encode("ev! !!") == [*OFFICIAL.encode("ev"), 0, 0, 0]
        assert OFFICIAL.encode("ev!") == [*OFFICIAL.encode("ev"), OFFICIAL.vocab["!</w>"]]

    @pytest.mark.parametrize("number", [-1, GARDEN.vocab_size])
    def test_decode_refuses_unknown_numbers(self, number):
        with pytest.raises(ValueError, match=f"token {number} "):
            GARDEN.decode([number])

    @pytest.mark.parametrize("prompt", [None, 3, b"house"])
    def test_refuses_what_is_no_text(self, prompt):
        with pytest.raises(ValueError, match="must be a string"):
            GARDEN([prompt])


class TestTurkish:
    @pytest.mark.parametrize(
        ("upper", "lower"),
        [
            ("İKİ EV", "iki ev"),
            ("I\u0307KI\u0307 EV", "iki ev"),  # the dot as a character of its own
            ("KIRMIZI EV", "kirmizi ev"),  # I is i: the spelling without Turkish letters
            ("Kırmızı", "kırmızı"),
            ("ÇİÇEK", "çiçek"),
        ],
    )
    def test_garden_reads_both_cases_alike(self, upper, lower):
        assert GARDEN.encode(upper) == GARDEN.encode(lower)
        assert GARDEN.decode(GARDEN.encode(upper)) == lower

    def test_dotless_i_stays_itself(self):
        assert GARDEN.encode("kırmızı") != GARDEN.encode("kirmizi")

    def test_official_rules_keep_the_dot(self):
        assert without_space(OFFICIAL.decode(OFFICIAL.encode("İKİ"))) == "i\u0307ki\u0307"


class TestBatch:
    def test_one_string_is_a_batch_of_one(self):
        np.testing.assert_array_equal(GARDEN(CAPTIONS[0]), GARDEN([CAPTIONS[0]]))

    def test_rows_do_not_depend_on_the_batch(self):
        batch = GARDEN(CAPTIONS)
        for row, caption in zip(batch, CAPTIONS, strict=True):
            np.testing.assert_array_equal(row, GARDEN(caption)[0])
            assert GARDEN.decode(row) == normalise(caption).replace(",", " ,")

    def test_empty_prompt_and_empty_batch(self):
        assert GARDEN("")[0, :3].tolist() == [GARDEN.bos, GARDEN.eos, GARDEN.pad]
        assert GARDEN([]).shape == (0, 77)

    def test_a_prompt_that_just_fits_is_not_cut(self):
        tokenizer = Tokenizer(GARDEN.vocab, GARDEN.merges, length=5)
        assert tokenizer.cut("red red red") == ""
        assert tokenizer.eos == tokenizer("red red red")[0, -1]  # no warning: it would be an error

    def test_warning_names_the_words_that_were_cut(self):
        tokenizer = Tokenizer(GARDEN.vocab, GARDEN.merges, length=5)
        with pytest.warns(PromptCutWarning, match="more than 3 tokens; cut: house, trees$"):
            batch = tokenizer("A red red House, trees")
        np.testing.assert_array_equal(batch[0], tokenizer("a red red")[0])

    def test_a_word_that_is_cut_in_the_middle_is_named_whole(self):
        tokenizer = Tokenizer(GARDEN.vocab, GARDEN.merges, length=5)
        assert len(tokenizer.encode("qqq")) == 3
        assert tokenizer.cut("red qqq red") == "qqq red"

    @pytest.mark.parametrize("length", [2, -1, 7.5, "77", True])
    def test_refuses_an_impossible_length(self, length):
        with pytest.raises(ValueError, match="3 or more"):
            Tokenizer(GARDEN.vocab, GARDEN.merges, length=length)

    @pytest.mark.parametrize("text", ["house " * 16_000, "🏡\0" * 50_000, "\u0301\u0316" * 50_000])
    @in_linear_time
    def test_a_hundred_thousand_characters(self, text):
        with pytest.warns(PromptCutWarning) as caught:
            batch = GARDEN(text)
        assert batch.shape == (1, 77)
        assert len(str(caught[0].message)) < 500

    @in_linear_time
    def test_a_word_of_a_hundred_thousand_letters(self):
        ids = GARDEN.encode("house" * 20_000)
        assert GARDEN.decode(ids) == "house" * 20_000


class TestFiles:
    @pytest.mark.parametrize(
        "tokenizer",
        [
            GARDEN,
            STABLE_DIFFUSION_2,
            Tokenizer(GARDEN.vocab, GARDEN.merges, any_case=[EOS]),
            Tokenizer(GARDEN.vocab, GARDEN.merges, pad_token="!", any_case=["!"]),
        ],
    )
    def test_save_and_load_bit_for_bit(self, tmp_path, tokenizer):
        tokenizer.save(tmp_path / "one")
        loaded = Tokenizer.load(tmp_path / "one")
        loaded.save(tmp_path / "two")
        names = sorted(path.name for path in (tmp_path / "one").iterdir())
        assert names == sorted(
            ["vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"]
        )
        for name in names:
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        np.testing.assert_array_equal(loaded(["İKİ EV!"]), tokenizer(["İKİ EV!"]))
        assert loaded.fold_dotted_i == tokenizer.fold_dotted_i
        assert loaded.any_case == tokenizer.any_case

    def test_length_is_kept(self, tmp_path):
        Tokenizer.train(CAPTIONS, 600, length=32).save(tmp_path)
        assert Tokenizer.load(tmp_path)(CAPTIONS).shape == (5, 32)

    def test_official_pair_alone_pads_with_eos(self, tmp_path):
        tokenizer = Tokenizer.load(write_folder(tmp_path, ["e v</w>", "k a"]))
        assert (tokenizer.vocab_size, tokenizer.bos, tokenizer.eos) == (516, 514, 515)
        assert (tokenizer.pad, tokenizer.length, tokenizer.fold_dotted_i) == (515, 77, False)
        assert tokenizer.encode("EV kar") == [512, 513, tokenizer.vocab["r</w>"]]

    @pytest.mark.parametrize(
        ("special", "config", "pad"),
        [
            ({"pad_token": "!"}, {"pad_token": EOS}, 0),  # Stable Diffusion 2.x
            ({"pad_token": {"content": "!", "normalized": True}}, None, 0),
            (None, {"pad_token": {"content": "!"}}, 0),
            ({"pad_token": EOS}, {"pad_token": "!", "added_tokens_decoder": {}}, 0),
            ({}, {"pad_token": None}, 514),
            ({"pad_token": EOS}, {"model_max_length": 10**30}, 514),
            ({"pad_token": "!"}, {"added_tokens_decoder": {}}, 514),  # the newer kind
        ],
    )
    def test_padding_token_where_the_files_name_it(self, tmp_path, special, config, pad):
        tokenizer = Tokenizer.load(write_folder(tmp_path, ["e v</w>"], special, config))
        assert tokenizer("ev")[0, 3:].tolist() == [pad] * 74

    @pytest.mark.parametrize(
        ("special", "config", "any_case"),
        [
            (None, None, set()),
            ({"bos_token": flagged(BOS), "eos_token": flagged(EOS), "pad_token": EOS}, None, {BOS}),
            ({"eos_token": flagged(EOS), "unk_token": flagged(EOS), "pad_token": "!"}, None, {EOS}),
            ({"eos_token": flagged(EOS, False), "unk_token": flagged(EOS)}, None, set()),
            (
                {
                    "eos_token": flagged(EOS, False),
                    "unk_token": flagged(EOS),
                    "pad_token": flagged(EOS, False),
                },
                None,
                {EOS},
            ),
            ({"pad_token": flagged("!")}, None, {"!"}),
            (None, {"bos_token": {"__type": "AddedToken", **flagged(BOS)}}, {BOS}),
            ({"bos_token": BOS}, {"bos_token": flagged(BOS)}, set()),
            (
                {"bos_token": flagged(BOS)},
                {"added_tokens_decoder": {"515": flagged(EOS), "514": flagged(BOS, False)}},
                {EOS},
            ),
        ],
    )
    def test_markers_in_any_case_as_transformers_takes_them(
        self, tmp_path, special, config, any_case
    ):
        tokenizer = Tokenizer.load(write_folder(tmp_path, ["e v</w>"], special, config))
        assert tokenizer.any_case == any_case

    @pytest.mark.parametrize(
        ("special", "message"),
        [
            ({"bos_token": "<s>"}, "the markers are .*<s>"),
            ({"additional_special_tokens": ["<cat>"]}, "the added token '<cat>' has no number"),
            ({"eos_token": {"content": EOS, "lstrip": True}}, "flags of a marker"),
        ],
    )
    def test_unsupported_markers_are_named(self, tmp_path, special, message):
        with pytest.raises(ValueError, match=f"{message}.*train tokenizer"):
            Tokenizer.load(write_folder(tmp_path, ["e v</w>"], special))

    @pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
    def test_missing_file_is_named(self, tmp_path, name):
        GARDEN.save(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"{name}; .*train tokenizer"):
            Tokenizer.load(tmp_path)

    @pytest.mark.parametrize(
        ("name", "damage"),
        [
            ("vocab.json", lambda data: data[:-20]),
            ("vocab.json", lambda data: b"[1, 2]"),
            ("vocab.json", lambda data: b""),
            ("vocab.json", lambda data: b"\xff\xfe" + data),
            ("vocab.json", lambda data: data.replace(b'"!": 0,', b"")),
            ("vocab.json", lambda data: data.replace(b'"!": 0,', b'"!": "0",')),
            ("vocab.json", lambda data: data.replace(EOS.encode(), b"<|end|>")),
            ("merges.txt", lambda data: b""),
            ("merges.txt", lambda data: data[:-40]),
            ("merges.txt", lambda data: data + b"three symbols here\n"),
            ("merges.txt", lambda data: data + b"q q\n"),
            ("tokenizer_config.json", lambda data: data[:10]),
            ("tokenizer_config.json", lambda data: data.replace(b"77", b'"many"')),
            ("tokenizer_config.json", lambda data: data.replace(b"true", b'"yes"')),
            ("special_tokens_map.json", lambda data: b"no json"),
        ],
    )
    def test_damaged_file_is_named(self, tmp_path, name, damage):
        GARDEN.save(tmp_path)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(damage(whole))
        assert (tmp_path / name).read_bytes() != whole
        with pytest.raises(ValueError, match=f"{name}.*train tokenizer"):
            Tokenizer.load(tmp_path)

    @pytest.mark.parametrize("merges", [[["e", "v</w>"]], ["e v</w>"]])
    def test_one_file(self, tmp_path, merges):
        tokenizer = Tokenizer.load(write_one_file(tmp_path, merges=merges))
        assert tokenizer.encode("EV") == [512]
        assert (tokenizer.pad, tokenizer.any_case) == (514, {EOS})

    def test_one_file_gives_way_to_the_pair(self, tmp_path):
        GARDEN.save(write_one_file(tmp_path))
        assert Tokenizer.load(tmp_path).vocab == GARDEN.vocab
        (tmp_path / "merges.txt").unlink()
        assert Tokenizer.load(tmp_path).vocab_size == 515

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"type": "WordPiece"}, "not supported: type = 'WordPiece' in place of 'BPE'"),
            ({"type": "Unigram", "vocab": [["a", -1.0]]}, "not supported: a model 'Unigram'"),
            ({"end_of_word_suffix": None}, "not supported: end_of_word_suffix = None"),
            ({"continuing_subword_prefix": "##"}, "not supported: continuing_subword_prefix"),
            ({"byte_fallback": True}, "not supported: byte_fallback"),
            ({"ignore_merges": True}, "not supported: ignore_merges"),
            ({"dropout": 0.1}, "not supported: dropout"),
            ({"vocab": None}, "damaged .no model"),
            ({"merges": {}}, "damaged .no model"),
            ({"merges": [["e", "v", "!"]]}, "damaged .merge 0 is no pair"),
            ({"merges": ["e v</w>", 3]}, "damaged .merge 1 is no pair"),
            ({"merges": [["e", ["v</w>"]]]}, "damaged .merge 0 is no pair"),
            ({"merges": [["q", "q"]]}, "do not fit together: the merge 'q' . 'q'"),
            ({"vocab": {"!": 0}}, "do not fit together"),
        ],
    )
    def test_one_file_that_is_none_of_ours_is_refused(self, tmp_path, changes, message):
        write_one_file(tmp_path, **changes)
        with pytest.raises(ValueError, match=f"tokenizer.json.*{message}.*train tokenizer"):
            Tokenizer.load(tmp_path)

    @pytest.mark.parametrize(
        ("added", "message"),
        [
            ([{"id": 515, **flagged("<cat>"), "rstrip": True}], "flags of a marker"),
            ([{"id": 516, **flagged("<cat>")}], "do not fit together"),
            ([{"id": 7, **flagged(BOS)}], "do not fit together"),
            ([{"id": "no", **flagged(BOS)}], "do not fit together"),
            ([{"id": 513}], "damaged .in added_tokens"),
            ([{"id": 513, "content": [BOS]}], "damaged .in added_tokens"),
            ([BOS], "damaged .in added_tokens"),
            (BOS, "damaged .in added_tokens"),
            (None, "damaged .in added_tokens"),
        ],
    )
    def test_added_tokens_of_one_file(self, tmp_path, added, message):
        path = write_one_file(tmp_path) / "tokenizer.json"
        data = json.loads(path.read_text("utf-8")) | {"added_tokens": added}
        path.write_text(json.dumps(data), encoding="utf-8")
        with pytest.raises(ValueError, match=f"{message}.*train tokenizer"):
            Tokenizer.load(tmp_path)

    @pytest.mark.parametrize("model", [None, [], "BPE", {}, {"type": 7}])
    def test_one_file_without_a_model(self, tmp_path, model):
        (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}), encoding="utf-8")
        with pytest.raises(ValueError, match=r"tokenizer\.json is damaged .no model"):
            Tokenizer.load(tmp_path)

    @pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
    def test_a_file_that_is_too_large_is_not_read(self, tmp_path, name):
        GARDEN.save(tmp_path)
        with open(tmp_path / name, "ab") as file:
            file.truncate(LARGEST_FILE + 1)  # a sparse file: no disk is filled
        with pytest.raises(ValueError, match=f"{name} is no part .*64 MiB"):
            Tokenizer.load(tmp_path)

    @pytest.mark.parametrize("absurd", ["[" * 200_000, '{"a":' * 200_000, '{"!": ' + "9" * 5000])
    @pytest.mark.parametrize("name", ["vocab.json", "tokenizer_config.json"])
    def test_absurd_json_is_damaged(self, tmp_path, name, absurd):
        GARDEN.save(tmp_path)
        (tmp_path / name).write_text(absurd)
        with pytest.raises(ValueError, match=f"{name} is damaged .no JSON"):
            Tokenizer.load(tmp_path)

    @pytest.mark.parametrize("decoder", [[BOS], {"0": BOS}, {"0": {}}, 7, None])
    def test_damaged_added_tokens_decoder(self, tmp_path, decoder):
        folder = write_folder(tmp_path, ["e v</w>"], None, {"added_tokens_decoder": decoder})
        with pytest.raises(ValueError, match=r"tokenizer_config.json.*do not fit together"):
            Tokenizer.load(folder)

    @pytest.mark.parametrize("pad_token", ["<pad>", 7, {"text": "!"}, [1]])
    def test_unknown_padding_token_is_refused(self, tmp_path, pad_token):
        folder = write_folder(tmp_path, ["e v</w>"], {"pad_token": pad_token})
        with pytest.raises(ValueError, match=r"special_tokens_map.json.*do not fit together"):
            Tokenizer.load(folder)

    def test_a_save_that_fails_leaves_the_old_file_and_no_draft(self, tmp_path, monkeypatch):
        GARDEN.save(tmp_path)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

        def broken_replace(source, target):
            raise OSError("disk full")

        monkeypatch.setattr("os.replace", broken_replace)
        with pytest.raises(OSError, match="disk full"):
            Tokenizer.train(["another text"], 600).save(tmp_path)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class TestAddedTokens:
    """What embeddings add to a vocabulary."""

    def test_a_token_of_several_vectors_stands_for_all_of_them(self):
        tokenizer = OFFICIAL.extended(["<cat>", "gold", "gold_1", "gold_2"])
        n = OFFICIAL.vocab_size
        assert tokenizer.vocab_size == n + 4
        assert tokenizer.encode("<CAT> gold") == [n, n + 1, n + 2, n + 3]
        assert tokenizer.encode("gold_2") == [n + 3]
        assert tokenizer.encode("<cat>s") == [n, *OFFICIAL.encode("s")]
        assert tokenizer.tokens("<cat>") == ["<cat></w>"]
        assert tokenizer.decode(tokenizer.encode("a <cat> ev")) == "a <cat> ev"
        assert tokenizer("gold " * 25)[0, 1:76].tolist() == [n + 1, n + 2, n + 3] * 25

    @pytest.mark.parametrize("token", ["", "  ", BOS, "a</w>", "x" * 101])
    def test_a_token_that_cannot_be_one(self, token):
        with pytest.raises(ValueError, match="is empty, too long or taken"):
            OFFICIAL.extended([token])

    def test_they_survive(self, tmp_path):
        tokenizer = STABLE_DIFFUSION_2.extended(["<cat>", "gold", "gold_1"])
        tokenizer.save(tmp_path)
        added = json.loads((tmp_path / "added_tokens.json").read_text("utf-8"))
        assert list(added) == ["<cat>", "gold", "gold_1"]
        again = Tokenizer.load(tmp_path)
        assert (again.vocab, again.added, again.any_case) == (
            tokenizer.vocab,
            tokenizer.added,
            tokenizer.any_case,
        )

    @pytest.mark.parametrize("normalized", [True, False])
    def test_those_of_one_file(self, tmp_path, normalized):
        path = write_one_file(tmp_path) / "tokenizer.json"
        data = json.loads(path.read_text("utf-8"))
        data["added_tokens"].append({"id": 515, **flagged("<cat>", normalized)})
        path.write_text(json.dumps(data), encoding="utf-8")
        tokenizer = Tokenizer.load(tmp_path)
        assert tokenizer.added == ("<cat>",)
        assert tokenizer.encode("<cat>") == [515]
        assert (tokenizer.encode("<CAT>") == [515]) == normalized

    def test_those_of_a_decoder_beside_a_vocabulary(self, tmp_path):
        decoder = {"514": flagged(EOS), "515": flagged("<cat>")}
        write_folder(tmp_path, ["e v</w>"], None, {"added_tokens_decoder": decoder})
        assert Tokenizer.load(tmp_path).encode("ev <cat>") == [512, 515]

    @pytest.mark.parametrize("added", [{"<cat>": 7}, {"<cat>": "x"}, {"<cat>": 600}])
    def test_a_number_that_is_taken_or_none(self, tmp_path, added):
        write_folder(tmp_path, ["e v</w>"])
        (tmp_path / "added_tokens.json").write_text(json.dumps(added))
        with pytest.raises(ValueError, match="do not fit together"):
            Tokenizer.load(tmp_path)
