"""The whole school at once, on a model so small that every part is trained in the test."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file

import diffusion
from diffusion import cli
from diffusion.config import SamplingConfig
from diffusion.datasets import curriculum
from diffusion.datasets.curriculum import CANDIDATES
from diffusion.datasets.garden import sample_scenes
from diffusion.inspection.trace import trace
from diffusion.picture_reading import read_settings
from diffusion.presets import garden
from diffusion.runtime.parameters import Params
from diffusion.training import autoencoder, denoiser, loop, text_encoder, tokenizer
from diffusion.training.parts import TRAINERS
from diffusion.training.recipe import PARTS, train_part
from diffusion.weights import folder
from diffusion.weights.architectures import SLOTS
from tests.training.conftest import stripes

TINY = [
    "model.image_size=8",
    "model.text_encoder.vocab_size=600",
    "model.text_encoder.width=8",
    "model.text_encoder.layers=1",
    "model.text_encoder.heads=2",
    "model.text_encoder.mlp_width=16",
    "model.denoiser.context_width=8",
    "model.denoiser.block_out_channels=(8,)",
    "model.denoiser.attention=(True,)",
    "model.denoiser.heads=(2,)",
    "model.denoiser.norm_groups=4",
    "model.autoencoder.block_out_channels=(4,)",
    "model.autoencoder.norm_groups=2",
]
TINY_BUT_THE_DENOISER = [text for text in TINY if "denoiser" not in text]
COMMAND = ["--set", "steps=2", "batch_size=2", *TINY]

pytestmark = pytest.mark.filterwarnings("ignore::diffusion.text.tokenizer.PromptCutWarning")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """The tokenizer learns in no time; only the VAE, of all networks, sees gardens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "CAPTIONS", 300)
        patch.setattr(text_encoder, "IMAGE_WIDTHS", (8, 8, 8, 8))
        patch.setattr(text_encoder, "render", stripes)
        patch.setattr(denoiser, "render", stripes)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "garden"
    assert cli.main(["train", "all", "--output", str(output), *COMMAND]) == 0
    return output


def files(output: Path) -> dict[str, Path]:
    """The weights of each slot."""
    config = folder.load_config(output)
    return {slot: folder.part_file(output, config, slot) for slot in SLOTS}


def weights(output: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in output.glob("*/*.safetensors")}


def test_all_parts_make_a_folder_that_loads_and_paints(trained, tmp_path):
    artist = diffusion.load(trained)
    assert artist.config.denoiser.block_out_channels == (8,)
    assert artist.config.text_encoder.vocab_size == artist.tokenizer.vocab_size
    picture = tmp_path / "picture.png"
    arguments = ["a red house", "--model", str(trained), "--steps", "2", "--output", str(picture)]
    assert cli.main(["paint", *arguments]) == 0
    assert read_settings(picture).model == str(trained)


def test_weights_are_finite_float16(trained):
    assert weights(trained).keys() == {str(path) for path in files(trained).values()}
    for name in weights(trained):
        for value in load_file(name).values():
            assert value.dtype == np.float16
            assert np.isfinite(value).all()


def test_the_latent_scale_is_measured_on_the_weights_of_the_file(trained):
    config = folder.load_config(trained)
    params = folder.load_part(trained, config, "autoencoder")[1]
    scale = autoencoder.measure_scale(config, params)
    assert config.autoencoder.scaling_factor == round(scale, 5)
    assert config.autoencoder.scaling_factor != 1.0


def test_the_card_says_how_each_part_was_trained(trained):
    card = json.loads((trained / "training.json").read_text())
    assert tuple(card) == PARTS
    for part in ("text", "vae", "unet"):
        assert card[part]["steps"] == 2
        assert card[part]["batch_size"] == 2
        assert card[part]["final_loss"] > 0
        assert (trained / "training" / part / "loss.png").exists()
    assert card["unet"]["candidates"] == CANDIDATES
    assert card["tokenizer"]["vocab_size"] == 600


def test_the_same_command_again_changes_nothing(trained, monkeypatch):
    before = weights(trained)
    config = (trained / "vae" / "config.json").read_bytes()
    words = {path: path.read_bytes() for path in trained.glob("tokenizer/*")}
    logs = {path: path.read_bytes() for path in trained.rglob("log.jsonl")}

    def no_step(*_: object) -> None:
        raise AssertionError("a finished part was trained again")

    monkeypatch.setattr("diffusion.training.loop.make_step", lambda *_: no_step)
    assert cli.main(["train", "all", "--output", str(trained), *COMMAND]) == 0
    assert weights(trained) == before
    assert (trained / "vae" / "config.json").read_bytes() == config
    assert {path: path.read_bytes() for path in trained.glob("tokenizer/*")} == words
    assert {path: path.read_bytes() for path in trained.rglob("log.jsonl")} == logs


def test_a_tokenizer_stays_under_the_text_encoder_that_learnt_its_tokens(trained, tmp_path):
    before = (trained / "tokenizer" / "vocab.json").read_bytes()
    with pytest.raises(ValueError, match="has learnt another tokenizer's tokens; name another"):
        train_part("tokenizer", trained, ["seed=1"])
    assert (trained / "tokenizer" / "vocab.json").read_bytes() == before
    train_part("tokenizer", tmp_path, [*TINY, "seed=1"])
    assert (tmp_path / "tokenizer" / "vocab.json").read_bytes() != before
    train_part("tokenizer", tmp_path, ["seed=2"])  # nobody has learnt from it yet


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("model.denoiser.norm_groups=3", "norm_groups|divisible|groups"),
        (
            "model.denoiser.norm_groups=0",
            r"denoiser\.norm_groups is 0; give whole numbers from 1",
        ),
        ("model.denoiser.heads=(0,)", r"denoiser\.heads is \(0,\)"),
        ("model.denoiser.heads=(3,)", "heads"),
        ("model.autoencoder.norm_groups=3", "groups"),
        ("model.denoiser.in_channels=9", "in_channels is 9; a denoiser that inpaints is not"),
        ("model.process.prediction=v_prediction", "'v_prediction'; choose one of epsilon, v"),
        ("model.denoiser.block_out_channels=(9,)", "begins with 9; give an even number"),
        ("model.process.beta_end=1.5", r"beta_end is 1\.5"),
        ("model.guidance=200", "guidance is 200"),
        ("model.process={'beta_end': 0.02}", "write NAME=VALUE, with NAME one of"),
        ("batch_size=3", "batch_size is 3, .*pairs"),
        ("seed=-1", "seed is -1; give 0 or more"),
        ("weight_decay=-0.5", "weight_decay is -0.5"),
        ("clip=0", "clip is 0.0; give more than 0"),
        ("learning_rate=-1.0", "learning_rate is -1.0"),
        ("warmup=-1", "warmup is -1"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is(setting, says, tmp_path):
    settings = [s for s in TINY if s.partition("=")[0] != setting.partition("=")[0]]
    with pytest.raises(ValueError, match=says):
        train_part("all", tmp_path / "new", [*settings, setting])
    assert not (tmp_path / "new").exists()


def test_another_model_or_training_in_the_same_folder_is_refused(trained):
    with pytest.raises(ValueError, match="another configuration"):
        train_part("vae", trained, ["model.autoencoder.norm_groups=4"])
    with pytest.raises(ValueError, match="other settings"):
        train_part("vae", trained, ["steps=3", "batch_size=2"])


def test_parts_need_those_before_them(tmp_path):
    for part, settings in (("text", TINY), ("unet", [])):
        with pytest.raises(
            ValueError, match=f"{part} needs the tokenizer .*`diffusion train token"
        ):
            train_part(part, tmp_path, settings)
    train_part("tokenizer", tmp_path)
    with pytest.raises(ValueError, match=r"unet needs the text .*`diffusion train text --output"):
        train_part("unet", tmp_path)
    files(tmp_path)["text_encoder"].touch()
    with pytest.raises(ValueError, match=r"unet needs the vae .*`diffusion train vae --output"):
        train_part("unet", tmp_path)


@pytest.mark.parametrize(
    ("part", "settings", "named"),
    [
        ("face", [], "unknown part 'face'; choose one of tokenizer, text, vae, dvae, unet"),
        ("vae", ["speed=3"], "speed=3.*learning_rate"),
        ("vae", ["steps"], "'steps'"),
        ("vae", ["steps=many"], "steps"),
        ("vae", ["model.denoiser.colour=3"], r"denoiser\.colour=3"),
        ("vae", ["model.denoiser.heads=2"], r"denoiser\.heads"),
        ("vae", ["candidates=1"], "candidates=1.*learning_rate"),
        ("unet", ["candidates=0"], "candidates is 0; give 1 or more"),
    ],
)
def test_mistakes_are_named(tmp_path, part, settings, named):
    with pytest.raises(ValueError, match=named):
        train_part(part, tmp_path / "run", settings)


STILL = ["steps=2", "batch_size=2"]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """`steps(size)`: a step of training adds this to every parameter, and nothing is compiled."""

    def steps(size: float) -> None:
        def step(state: loop.State, frozen: Params, batch: object) -> tuple[loop.State, Any]:
            params = jax.tree.map(lambda leaf: leaf + size, state.params)
            metrics = {"loss": jnp.ones(()), "gradient_norm": jnp.ones(())}
            return state._replace(step=state.step + 1, params=params, average=params), metrics

        monkeypatch.setattr(loop, "make_step", lambda task, config: step)
        for task in (autoencoder.AutoencoderTask, denoiser.DenoiserTask):
            monkeypatch.setattr(task, "picture", lambda *_: np.zeros((4, 4, 3), np.uint8))

    return steps


@pytest.mark.parametrize("part", ["vae", "unet"])
def test_training_goes_on_from_the_weights_of_a_model(trained, tmp_path, part, steps):
    output = tmp_path / "new" / "longer"
    steps(0.0)
    train_part(part, output, STILL, start=trained)
    for slot in SLOTS:
        here, there = (load_file(files(root)[slot]) for root in (output, trained))
        assert here.keys() == there.keys()
        for key, value in here.items():
            np.testing.assert_array_equal(value, there[key])
    before, after = (json.loads((root / "training.json").read_text()) for root in (trained, output))
    assert after[part]["seed"] == before[part]["seed"] + 1  # other pictures than before
    assert after[part]["command"] == (
        f"diffusion train {part} --start garden --set " + " ".join(STILL)
    )
    assert before[part].items() <= after[part]["start"].items()
    assert [entry["seed"] for entry in folder.trainings(output, part)] == [0, 1]
    others = {"vae": "unet", "unet": "vae"}
    assert after[others[part]] == before[others[part]]
    diffusion.load(output)  # the rest came along
    with pytest.raises(ValueError, match=r"other settings \(start.* give the same --start"):
        train_part(part, output, [*STILL, "seed=1"])
    if part == "unet":
        with open(files(output)["autoencoder"], "r+b") as file:  # another VAE, in secret
            file.seek(-1, 2)
            last = file.read(1)
            file.seek(-1, 2)
            file.write(bytes([last[0] ^ 1]))
        with pytest.raises(ValueError, match=r"other settings \(learns_with autoencoder"):
            train_part("unet", output, STILL, start=trained)


def test_a_model_for_larger_pictures_grows_part_by_part(trained, tmp_path, steps):
    output = tmp_path / "larger"
    steps(0.0)
    sizes = ["model.image_size=16", "model.autoencoder.block_out_channels=(4, 4)"]
    counts = ("autoencoder.latent_channels", "denoiser.latent_channels", "denoiser.in_channels")
    channels = [f"model.{name}=6" for name in counts]
    train_part("vae", output, [*STILL, *sizes, *channels], start=trained)
    config, before = folder.load_config(output), folder.load_config(trained)
    assert (config.latent_size, config.autoencoder.latent_channels) == (8, 6)
    assert config.autoencoder.scaling_factor == before.autoencoder.scaling_factor
    assert tuple(json.loads((output / "training.json").read_text())) == ("tokenizer", "text", "vae")

    train_part("text", output, STILL, start=trained)
    train_part("unet", output, STILL, start=trained)
    here, there = (load_file(files(root)["denoiser"]) for root in (output, trained))
    for name in here.keys() - {"conv_in.weight", "conv_out.weight", "conv_out.bias"}:
        np.testing.assert_array_equal(here[name], there[name])
    np.testing.assert_array_equal(here["conv_in.weight"][:, :4], there["conv_in.weight"])
    assert here["conv_out.weight"].shape[0] == 6
    here, there = (load_file(files(root)["text_encoder"]) for root in (output, trained))
    for name in here:
        np.testing.assert_array_equal(here[name], there[name])
    card = json.loads((output / "training.json").read_text())
    assert [card[part]["start"]["model"] for part in ("vae", "text", "unet")] == ["garden"] * 3
    diffusion.load(output)

    train_part("tokenizer", tmp_path / "words", [*TINY, "seed=5"])
    with pytest.raises(ValueError, match="garden has learnt another tokenizer's tokens"):
        train_part("text", tmp_path / "words", STILL, start=trained)


HEARS = ["model.denoiser.context_width=8"]  # a copy's denoiser does by itself
SMALL_DIT = [
    "model.denoiser.layers=1", "model.denoiser.heads=1", "model.denoiser.head_width=8",
    "model.denoiser.sample_size=8",
]  # fmt: skip


def test_another_denoiser_begins_in_a_copy_of_the_rest(trained, tmp_path):
    output = tmp_path / "dit"
    command = ["train", "dit", "--output", str(output)]
    settings = ["--set", *STILL, "picture_every=10", *SMALL_DIT]
    assert cli.main([*command, "--start", str(trained), *settings]) == 0
    config, before = folder.load_config(output), folder.load_config(trained)
    assert (config.name, config.denoiser.layers) == ("garden-dit", 1)
    assert (config.text_encoder, config.autoencoder) == (before.text_encoder, before.autoencoder)
    for slot in ("text_encoder", "autoencoder"):
        assert files(output)[slot].read_bytes() == files(trained)[slot].read_bytes()
    assert not (output / "unet").exists()
    card = json.loads((output / "training.json").read_text())
    assert tuple(card) == (*PARTS[:3], "dit")
    assert card["dit"]["seed"] == 0
    assert card["dit"]["command"].startswith("diffusion train dit --start garden --set")
    assert (output / "training/dit/log.jsonl").exists()

    run = trace(diffusion.load(output), "a red house", steps=2)
    inside = run.activations(1)
    assert inside.tensors["blocks.0.modulation"].shape == (2, 6, 8)  # among them the gates
    weights = inside.attention["blocks.0.cross_attention"]
    assert weights.shape == (2, 1, 16, config.text_encoder.length)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=1e-5)

    with pytest.raises(ValueError, match=r"denoiser of .*dit is a dit: `diffusion train dit`; or"):
        train_part("unet", output, STILL)
    other = [*STILL, "model.denoiser.layers=2", *SMALL_DIT[1:]]
    with pytest.raises(ValueError, match=r"dit holds a model with another configuration"):
        train_part("dit", output, other, start=trained)
    other = [*STILL, *SMALL_DIT, "model.autoencoder.layers_per_block=2"]
    with pytest.raises(ValueError, match=r"autoencoder of a copy keeps .*leave out model\.auto"):
        train_part("dit", tmp_path / "other", other, start=trained)


def test_a_discrete_autoencoder_begins_with_the_vae_and_keeps_the_unet(trained, tmp_path, steps):
    output = tmp_path / "codes"
    steps(0.0)
    small = {"codes": 16, "latent_channels": 4, "block_out_channels": (4,), "norm_groups": 2}
    sizes = [f"model.autoencoder.{name}={value}" for name, value in small.items()]
    train_part("dvae", output, [*STILL, *sizes], start=trained)
    config = folder.load_config(output)
    assert (config.name, config.autoencoder.codes) == ("garden-dvae", 16)
    assert files(output)["denoiser"].read_bytes() == files(trained)["denoiser"].read_bytes()
    assert json.loads((output / "training.json").read_text())["dvae"]["start"]["model"] == "garden"
    images = stripes(sample_scenes(np.random.default_rng(0), 4), 8)
    (mine, theirs) = (diffusion.load(root).autoencoder.module for root in (output, trained))
    seen, known = mine.encode(images), theirs.encode(images)
    assert np.corrcoef(np.ravel(seen), np.ravel(known))[0, 1] > 0.99  # but for the unit
    assert len(np.unique(mine.codes(images))) > 1
    assert [step.t for step in diffusion.load(output).sample("a red house", steps=2)]
    with pytest.raises(ValueError, match=r"autoencoder of .*codes is a dvae: `diffusion train dv"):
        train_part("vae", output, STILL)


def test_a_transformer_goes_on_from_its_own_weights(trained, tmp_path, steps):
    steps(0.0)
    first, output = tmp_path / "first", tmp_path / "longer"
    train_part("dit", first, [*STILL, *SMALL_DIT], start=trained)
    train_part("dit", output, STILL, start=first)
    assert files(output)["denoiser"].read_bytes() == files(first)["denoiser"].read_bytes()
    assert [entry["seed"] for entry in folder.trainings(output, "dit")] == [0, 1]


def test_all_parts_of_a_new_folder_follow_its_denoiser(tmp_path):
    with pytest.raises(ValueError, match=r"dit needs the tokenizer .*`diffusion train all`"):
        train_part("dit", tmp_path, [*TINY_BUT_THE_DENOISER, *SMALL_DIT, *HEARS])
    with pytest.raises(ValueError, match="another configuration"):
        train_part("all", tmp_path, [*STILL, "model.denoiser.layers=3"])
    assert folder.load_config(tmp_path).denoiser.layers == 1


def test_a_distilled_model_paints_in_half_of_the_steps(trained, tmp_path):
    output = tmp_path / "fast"
    command = ["train", "distill", "--start", str(trained), "--output", str(output)]
    settings = ["--set", "steps=1", "batch_size=2", "picture_every=10"]
    assert cli.main([*command, *settings]) == 0
    config, before = folder.load_config(output), folder.load_config(trained)
    assert config.guidance == 1.0
    assert before.sampling.steps == 25
    assert config.sampling == SamplingConfig("euler", 16, "trailing")
    assert (config.denoiser, config.autoencoder) == (before.denoiser, before.autoencoder)
    assert files(output)["denoiser"].read_bytes() != files(trained)["denoiser"].read_bytes()
    assert files(output)["autoencoder"].read_bytes() == files(trained)["autoencoder"].read_bytes()
    card = json.loads((output / "training.json").read_text())
    assert card["distill"]["command"].startswith("diffusion train distill --start garden")
    assert card["unet"] == json.loads((trained / "training.json").read_text())["unet"]
    assert len(list(diffusion.load(output).sample("a red house"))) == 16
    assert cli.main([*command, *settings]) == 0  # the same command again: nothing is left to do

    faster = tmp_path / "faster"
    train_part("distill", faster, settings[1:], start=output)
    assert folder.load_config(faster).sampling.steps == 8
    before = [entry["seed"] for entry in folder.trainings(trained, "unet")]
    chain = [entry["seed"] for entry in folder.trainings(faster, "distill")]
    assert chain == [*before, before[-1] + 1, before[-1] + 2]  # nothing is seen twice
    once = dataclasses.replace(config, sampling=SamplingConfig("euler", 1, "trailing"))
    folder.save_config(faster, once)
    with pytest.raises(ValueError, match="paints in one step already"):
        train_part("distill", tmp_path / "other", start=faster)
    for part in ("distill", "decoder"):
        with pytest.raises(
            ValueError, match=f"{part} needs a trained model; name one with --start"
        ):
            train_part(part, tmp_path / "other")
        with pytest.raises(ValueError, match=r"keeps the .* leave out model\.guidance"):
            train_part(part, tmp_path / "other", ["model.guidance=2"], start=trained)
        with pytest.raises(
            ValueError, match=f"holds a model already; name a new --output for {part}"
        ):
            train_part(part, trained, start=output)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("part", ["decoder", "distill"])
def test_a_first_run_stopped_before_its_training_goes_on(
    trained, tmp_path, part, steps, monkeypatch
):
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    steps(0.0)
    monkeypatch.setitem(TRAINERS, part, stopped)
    with pytest.raises(KeyboardInterrupt):
        train_part(part, tmp_path / "run", STILL, start=trained)
    assert (tmp_path / "run/model_index.json").exists()
    monkeypatch.undo()
    steps(0.0)
    train_part(part, tmp_path / "run", STILL, start=trained)
    assert folder.trainings(tmp_path / "run", part)


@pytest.mark.parametrize(("follows", "part"), [("decoder", "vae"), ("distill", "unet")])
def test_a_network_trained_anew_remembers_the_rest_as_its_beginning(
    trained, tmp_path, follows, part, steps
):
    steps(0.0)
    train_part(follows, tmp_path / "first", STILL, start=trained)
    train_part(part, tmp_path / "second", STILL, start=tmp_path / "first")
    assert folder.trainings(tmp_path / "second", follows) == []
    chain = folder.trainings(tmp_path / "second", part)
    assert [entry["seed"] for entry in chain] == [0, 1, 2]
    assert chain[1]["command"].startswith(f"diffusion train {follows}")


def test_a_decoder_learns_by_itself_and_the_latents_stay(trained, tmp_path):
    output = tmp_path / "sharper"
    command = ["train", "decoder", "--start", str(trained), "--output", str(output)]
    settings = ["--set", "steps=2", "batch_size=2", "picture_every=10"]
    assert cli.main([*command, *settings]) == 0
    config = folder.load_config(output)
    assert config == folder.load_config(trained)
    mine, theirs = (
        flatten_dict(folder.load_part(root, config, "autoencoder")[1]) for root in (output, trained)
    )
    changed = {path[0] for path, value in mine.items() if np.any(value != theirs[path])}
    assert changed == {"post_quant_conv", "decoder"}
    for part in ("denoiser", "text_encoder"):
        assert files(output)[part].read_bytes() == files(trained)[part].read_bytes()
    card = json.loads((output / "training.json").read_text())
    assert card["decoder"]["start"]["model"] == "garden"
    assert card["vae"] == json.loads((trained / "training.json").read_text())["vae"]
    assert cli.main([*command, *settings]) == 0  # the same command again: nothing is left to do


def test_a_unet_may_learn_the_garden_as_it_is(trained, tmp_path, steps, monkeypatch):
    """Without hard captions more often; and the card says so."""
    steps(0.0)
    drawn = []

    def practice(rng, size, candidates, **more):
        drawn.append(candidates)
        return curriculum.practice(rng, size, candidates, **more)

    monkeypatch.setattr(denoiser, "practice", practice)
    train_part("unet", tmp_path / "run", [*STILL, "candidates=1"], start=trained)
    assert set(drawn) == {1}
    assert [entry["candidates"] for entry in folder.trainings(tmp_path / "run", "unet")] == [
        CANDIDATES, 1,
    ]  # fmt: skip


def test_a_new_vae_says_that_the_unet_has_to_follow(trained, tmp_path, steps):
    output = tmp_path / "run"
    steps(0.01)
    with pytest.warns(UserWarning, match="diffusion train unet --start .*run --output NEW"):
        train_part("vae", output, ["steps=2", "batch_size=2"], start=trained)


def test_what_training_cannot_go_on_from(trained, tmp_path):
    with pytest.raises(ValueError, match="tokenizer starts from nothing only; from a model: text"):
        train_part("tokenizer", tmp_path / "run", start=trained)
    with pytest.raises(FileNotFoundError, match=r"model_index\.json is missing"):
        train_part("vae", tmp_path / "run", start=tmp_path)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="unknown part 'face'"):
        train_part("face", tmp_path / "run", start=trained)
    with pytest.raises(ValueError, match="norm_groups is 4, and 2 in the network to begin with"):
        train_part("vae", tmp_path / "run", ["model.autoencoder.norm_groups=4"], start=trained)
    with pytest.raises(ValueError, match=r"leave out model\.text_encoder"):
        train_part("vae", tmp_path / "run", ["model.text_encoder.heads=4"], start=trained)
    with pytest.raises(ValueError, match="stepps"):
        train_part("vae", tmp_path / "run", ["stepps=4"], start=trained)
    with pytest.raises(ValueError, match="--start and --output are both"):
        train_part("vae", trained, start=trained)
    assert not (tmp_path / "run").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").touch()
    with pytest.raises(ValueError, match=r"other is no model and not empty"):
        train_part("vae", tmp_path / "other", start=trained)
    folder.save_config(tmp_path / "run", garden())
    with pytest.raises(ValueError, match=r"layers_per_block is|norm_groups is 8, and 2 in the net"):
        train_part("vae", tmp_path / "run", start=trained)


def test_a_unet_that_inpaints_is_not_trained(trained, tmp_path):
    config = folder.load_config(trained)
    nine = dataclasses.replace(config.denoiser, in_channels=9)
    folder.save_config(tmp_path / "nine", dataclasses.replace(config, denoiser=nine))
    with pytest.raises(ValueError, match="in_channels is 9; a denoiser that inpaints is not"):
        train_part("unet", tmp_path / "run", start=tmp_path / "nine")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="in_channels is 9; a denoiser that inpaints is not"):
        train_part("unet", tmp_path / "nine")


def test_the_text_encoder_learns_from_pairs(trained):
    with pytest.raises(ValueError, match=r"batch_size is 3, .*pairs"):
        train_part("text", trained, ["batch_size=3"])


@pytest.mark.slow
def test_the_speedrun_judges_the_unet_on_its_way(trained, tmp_path, capsys):
    from benchmarks import speedrun

    output = tmp_path / "run"
    shutil.copytree(trained, output)
    shutil.rmtree(output / "training" / "unet")
    (output / "speedrun.jsonl").write_text('{"step": 1, "mean": 0.1}\n{"step": 9, "mean": 1.0}\n')
    short = ["steps=2", "batch_size=2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speedrun, "PARTS", ("unet",))
        speedrun.main(["--output", str(output), "--captions", "2", "--set", *short])
    lines = [json.loads(text) for text in (output / "speedrun.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]  # what an interrupted run had seen is gone
    assert all(0.0 <= lines[1][name] <= 1.0 for name in ("all at once", "mean"))
    card = folder.load_card(output)
    assert lines[1]["minutes"] >= round(card["text"]["minutes"] + card["vae"]["minutes"], 1)
    assert (card["unet"]["optimizer"], card["unet"]["steps"]) == ("muon", 2)  # its own, and --set's
    assert "90% of what captions name: " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        speedrun.main(["--output", str(output), "--captions", "1"])


def test_the_speedrun_names_the_first_look_that_was_right_enough():
    from benchmarks.speedrun import minutes_to

    seen = [{"minutes": float(m), "mean": mean} for m, mean in ((1, 0.5), (2, 0.9), (3, 0.8))]
    assert minutes_to(0.9, seen) == 2.0
    assert minutes_to(0.95, seen) is None


@pytest.mark.slow
def test_the_speedruns_ideas_are_judged_when_their_minutes_are_over(
    trained, tmp_path, capsys, monkeypatch
):
    from benchmarks import ideas

    monkeypatch.setattr(ideas, "shipped", lambda name: trained)
    monkeypatch.setattr(ideas, "LOOKS_EVERY", 2)
    monkeypatch.setattr(ideas, "CASES", {"as it is": (), "one scene": ("batch_size=1",)})
    command = ["--output", str(tmp_path), "--captions", "2", "--set", "batch_size=2"]
    ideas.main([*command, "--minutes", "0"])
    _, rows = capsys.readouterr().out.split("| after 0 minutes")
    assert rows.count("| 2 and 2 |") == 2  # the first look of both seeds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ideas, "train_part", None)  # nothing is trained again
        ideas.main([*command, "--minutes", "0"])
    assert capsys.readouterr().out.endswith(rows)
    command[1] = str(tmp_path / "short")
    with pytest.raises(SystemExit):
        ideas.main([*command, "steps=2", "--minutes", "60"])
    assert "all steps are done before the 60 minutes are" in capsys.readouterr().err


@pytest.mark.slow
def test_the_denoisers_are_judged_side_by_side(trained, tmp_path, capsys, monkeypatch):
    from benchmarks import denoisers

    config = folder.load_config(trained)
    monkeypatch.setattr(denoisers, "shipped", lambda name: trained)
    monkeypatch.setattr(denoisers, "CASES", {"U-Net, noise": (config, config)})
    short = ["--set", "steps=2", "batch_size=2"]
    denoisers.main(["--output", str(tmp_path), "--captions", "2", *short])
    row = capsys.readouterr().out.splitlines()[-1].split(" | ")
    assert (row[0], row[1], row[3]) == ("| U-Net, noise", "-", "2")  # after some minutes
