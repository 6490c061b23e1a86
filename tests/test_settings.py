"""What a person asks for: each field is checked, each default is filled once."""

import dataclasses

import numpy as np
import psutil
import pytest

from diffusion.config import SamplingConfig
from diffusion.presets import garden, garden64, sd_v1
from diffusion.settings import PictureSettings, Resolved, Settings

IMAGE = np.zeros((16, 24, 3), np.uint8)
MASK = np.ones((16, 24), bool)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prompt", None, "prompt is None; give a text"),
        ("prompt", ["a house"], r"prompt is \['a house'\]; give a text"),
        ("negative", 7, "negative is 7; give a text"),
        ("seed", -1, "seed is -1; give a whole number from 0 to 4294967295"),
        ("seed", 2**32, "seed is 4294967296"),
        ("seed", 1.5, "seed is 1.5; give a whole number"),
        ("seed", None, "seed is None; give a whole number"),
        ("count", "3", "count is '3'; give a whole number"),
        ("first", 1.0, "first is 1.0; give a whole number"),
        ("steps", 2.5, "steps is 2.5; give a whole number"),
        ("height", "64", "height is '64'; give a whole number"),
        ("width", [64], r"width is \[64\]; give a whole number"),
        ("guidance", "3", "guidance is '3'; give a number"),
        ("eta", None, "eta is None; give a number"),
        ("strength", "half", "strength is 'half'; give a number"),
        ("sampler", 4, "sampler is 4; give a text"),
        ("spacing", 4, "spacing is 4; give a text"),
        ("count", 0, "count is 0; ask for 1 picture or more"),
        ("count", -3, "count is -3"),
        ("first", -1, "first is -1"),
        ("first", 2**32, "first is 4294967296"),
        ("guidance", float("nan"), "guidance is nan; give a number up to 100.0, such as 3"),
        ("guidance", float("-inf"), "guidance is -inf"),
        ("guidance", 100.5, "guidance is 100.5"),
    ],
)
@pytest.mark.parametrize("kind", [Settings, PictureSettings])
def test_what_makes_no_sense_is_named_at_once(kind, field, value, message):
    with pytest.raises(ValueError, match=message):
        kind(**{"prompt": "a red house", field: value})
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(kind("a red house"), **{field: value})


def test_the_edges_make_sense():
    edge = Settings("", seed=2**32 - 1, count=2, first=2**32 - 2, guidance=-100.0)
    assert dataclasses.replace(edge, seed=np.uint32(7), guidance=np.float32(2)).seed == 7
    assert Settings("", guidance=3, eta=1, strength=1).guidance == 3
    with pytest.raises(ValueError, match="first is 4294967294; give 0 to 4294967296 less the"):
        dataclasses.replace(edge, count=3)


def test_settings_stay_as_they_are():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings("").seed = 1


def test_defaults_are_filled_once_for_all(tiny):
    settings = Settings("a red house", negative="night", seed=5, steps=7, sampler="ddim", eta=0.5)
    found = settings.resolve(tiny)
    assert type(found) is Resolved
    expected = {"count": 1, "guidance": 3.0, "height": 16, "width": 16, "strength": 1.0}
    expected |= {"spacing": "leading"}
    assert dataclasses.asdict(found) == dataclasses.asdict(settings) | expected
    own = {"sampler": "dpm++2m", "steps": 25, "spacing": "leading", "guidance": 7.5}
    size = {"count": 1, "height": 512, "width": 512, "strength": 1.0}
    found = dataclasses.asdict(Settings("").resolve(sd_v1()))
    assert found == dataclasses.asdict(Settings("")) | own | size


def test_a_model_paints_in_its_own_way_where_nobody_says(tiny):
    few = dataclasses.replace(tiny, sampling=SamplingConfig("euler", 4, "trailing"))

    def found(model, **said):
        resolved = Settings("", **said).resolve(model)
        return resolved.sampler, resolved.steps, resolved.spacing, resolved.guidance

    assert found(few) == ("euler", 4, "trailing", 3.0)
    assert found(few, steps=9, sampler="ddim") == ("ddim", 9, "trailing", 3.0)
    assert found(few, spacing="leading") == ("euler", 4, "leading", 3.0)
    assert found(tiny, sampler="lcm") == ("lcm", 4, "leading", 1.0)
    assert found(tiny, sampler="lcm", steps=2, guidance=1.5) == ("lcm", 2, "leading", 1.5)
    consistent = dataclasses.replace(tiny, sampling=SamplingConfig("lcm", 2))
    assert found(consistent) == ("lcm", 2, "leading", 3.0)


def test_a_model_with_guidance_built_in_says_what_it_cannot_do(tiny):
    network = dataclasses.replace(tiny.denoiser, guidance_width=8)
    told = dataclasses.replace(tiny, denoiser=network)
    assert Settings("", sampler="lcm").resolve(told).sampler == "lcm"
    with pytest.raises(ValueError, match='is a latent consistency model; its sampler is "lcm"'):
        Settings("").resolve(told)
    with pytest.raises(ValueError, match="has its guidance built in; leave negative out"):
        Settings("", sampler="lcm", negative="night").resolve(told)


def test_what_was_said_stays(tiny):
    said = {"count": 3, "guidance": 0.0, "height": 8, "width": 24, "first": 9}
    found = dataclasses.asdict(Settings("", **said).resolve(tiny))
    assert {name: found[name] for name in said} == said
    assert Settings("", strength=0.3).resolve(tiny, IMAGE).strength == 0.3


@pytest.mark.parametrize(
    ("given", "strength"), [((), 1.0), ((IMAGE,), 0.8), ((IMAGE, MASK), 1.0)], ids=str
)
def test_strength_and_size_follow_from_what_is_given(tiny, given, strength):
    found = Settings("").resolve(tiny, *given)
    assert found.strength == strength
    assert (found.height, found.width) == ((16, 24) if given else (16, 16))


def test_the_settings_of_a_picture_file_resolve_to_those_of_the_picture(tiny):
    wrapped = PictureSettings("a house", seed=4, count=2, zoom=3, strip=True, model="tiny")
    assert wrapped.resolve(tiny) == Settings("a house", seed=4, count=2).resolve(tiny)


def test_a_size_that_is_the_images_own_may_be_said(tiny):
    assert Settings("").size(tiny) == (16, 16)
    assert Settings("", height=8).size(tiny) == (8, 16)
    assert Settings("").size(tiny, IMAGE) == Settings("", height=16, width=24).size(tiny, IMAGE)
    with pytest.raises(ValueError, match="height and width are those of the image"):
        Settings("", height=8).size(tiny, IMAGE)


def test_more_pictures_than_there_is_room_for(tiny, monkeypatch):
    with pytest.raises(ValueError, match=r"count 1000000000000 needs .* GiB .*free memory"):
        Settings("", count=10**12).resolve(tiny)
    needed = 2 * 16 * 16 * 3
    for free, fits in ((2 * needed, True), (2 * needed - 2, False)):
        memory = type("Memory", (), {"available": free})
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        if fits:
            assert Settings("", count=2).resolve(tiny).count == 2
        else:
            with pytest.raises(ValueError, match="count 2 needs"):
                Settings("", count=2).resolve(tiny)


@pytest.mark.parametrize(
    ("model", "some", "zoom", "guidance", "sampling"),
    [
        (garden(), 4, 2, 3.0, ("dpm++2m", 8, "trailing")),
        (garden64(), 4, 4, 3.0, ("dpm++2m", 25, "leading")),
        (sd_v1(), 1, 1, 7.5, ("dpm++2m", 25, "leading")),
    ],
    ids=["garden", "garden64", "sd-v1"],
)
def test_small_pictures_come_in_fours_and_enlarged(model, some, zoom, guidance, sampling):
    fitted = PictureSettings("a castle").fitted(model, "bfloat16")
    assert (fitted.count, fitted.zoom, fitted.guidance, fitted.dtype) == (
        some, zoom, guidance, "bfloat16",
    )  # fmt: skip
    assert (fitted.sampler, fitted.steps, fitted.spacing) == sampling
    said = PictureSettings(
        "a castle", count=2, zoom=3, guidance=0.0, dtype="float16", sampler="ddim", steps=4,
        spacing="trailing",
    )  # fmt: skip
    assert said.fitted(model, "float32") == said


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("zoom", 0, "zoom is 0; give 1 to 64"),
        ("zoom", 65, "zoom is 65"),
        ("index", -1, "index is -1"),
        ("index", 4, "index is 4, of a series of 4"),
    ],
)
def test_what_makes_no_sense_in_a_picture_file(field, value, message):
    with pytest.raises(ValueError, match=message):
        PictureSettings("", **{"count": 4, field: value})


@pytest.mark.parametrize(("width", "height"), [(104, 72), (1920, 1080), (8, 8), (8192, 8)])
def test_sides_are_multiples_of_the_autoencoder_s_factor_alone(width, height):
    assert Settings("", height=height, width=width).size(sd_v1()) == (height, width)
    assert Settings("", height=20, width=36).size(garden64()) == (20, 36)
    with pytest.raises(ValueError, match="width is 1084; give a multiple of 8"):
        Settings("", height=height, width=1084).size(sd_v1())
