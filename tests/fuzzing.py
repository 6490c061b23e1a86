"""Damaged files for every reader: `python -m tests.fuzzing --cases 10000 --seed 1`.

Each case takes a good file, damages it in one to three ways, and hands it to its reader. That may
read it or say what is wrong with it; anything else is a mistake of ours. Case i of a seed is always
the same, so a failure is repeated by its number: `--only 1234`.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.numpy import save_file

from diffusion import film_files, picture_files, picture_reading, web_parameters
from diffusion.config import TextEncoderConfig
from diffusion.film_settings import FilmFileSettings
from diffusion.motion_config import PromptTravelConfig
from diffusion.settings import PictureSettings
from diffusion.text.tokenizer import Tokenizer
from diffusion.weights import adapter, folder, prompt_travel, single_file
from diffusion.weights.architectures import structure
from diffusion.weights.embeddings import Embedding
from diffusion.weights.lora import LoRA
from diffusion.weights.other_vae import open_vae
from diffusion.weights.places import read_json

SAID = (ValueError, FileNotFoundError)  # what readers raise for a file that is no good
SECONDS = 5.0  # of CPU, at most, for a file
GOLDEN = folder.shipped("golden")
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3.5, 1e308, -0.0, 10**30, 2**63, "", "x", "0", "none",
    "\x1b[31m", "../../etc/passwd", "é" * 50, "9" * 5000,
    [], {}, [1, 2], [[[[1]]]], {"a": {"b": 1}}, ["x", None],
)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """Something that reads files of strangers."""

    make: Callable[[Path], None]  # a good file, or a folder with files
    read: Callable[[Path], Any]
    damaged: str = "*"  # which of the files in the folder


def readers() -> Mapping[str, Reader]:
    """Every reader of the package, with a good file for it."""
    tiny = GOLDEN / "sd1/model"
    vae = GOLDEN / "sd1/model/vae"
    known = {"denoiser": {"mid_block.resnets.0.conv1.weight": (8, 8, 3, 3)}, "text_encoder": {}}
    model = folder.load_config(tiny)

    def copied(place: Path) -> Callable[[Path], None]:
        return lambda target: shutil.copytree(place, target, dirs_exist_ok=True)

    def of(name: str, read: Callable[[Path], Any]) -> Callable[[Path], Any]:
        return lambda place: read(place / name)

    one = "a.safetensors"
    return {
        "model": Reader(copied(tiny), _whole, "**/*.json"),
        "weights": Reader(copied(tiny), _whole, "**/*.safetensors"),
        "tokenizer": Reader(copied(tiny / "tokenizer"), Tokenizer.load),
        "tokenizer.json": Reader(_one_tokenizer, Tokenizer.load),
        "card": Reader(_card, lambda place: folder.trainings(place, "unet")),
        "json": Reader(_card, of("training.json", read_json)),
        "single file": Reader(_single, of(one, single_file.open_model)),
        "vae": Reader(copied(vae), lambda place: open_vae(place, model)[1].read()),
        "lora": Reader(_lora, of(one, lambda path: LoRA.open(path, 1.0, known))),
        "lora kinds": Reader(_lora_kinds, of(one, _merged)),
        "embedding": Reader(_embedding, of(one, lambda path: Embedding.open(path, "", 16))),
        "motion": Reader(copied(GOLDEN / "motion"), _motion, "[cd]*"),
        "travel": Reader(_small_travel, _travel, "prompt_travel/*"),
        "picture": Reader(
            _picture, of("a.png", lambda path: picture_reading.read_source(path, 32, 32, 32, 4))
        ),
        "mask": Reader(
            _picture, of("a.png", lambda path: picture_reading.read_mask(path, 32, 32, path))
        ),
        "again": Reader(_picture, of("a.png", picture_reading.read_settings)),
        "parameters": Reader(_parameters, of("a.png", picture_reading.read_parameters)),
        "film": Reader(_film, of("a.gif", film_files.read_settings)),
    }


def _whole(place: Path) -> None:
    opened = folder.open_model(place)
    for weights in opened.weights.values():
        weights.read()


def _motion(place: Path) -> None:
    config = adapter.load_config(place)
    adapter.read_adapter(adapter.open_adapter(place, config), config)


def _small_travel(place: Path) -> None:
    config = PromptTravelConfig(vocab_size=7, width=4, length=5, layers=1, heads=2)
    params = jax.tree.map(lambda x: np.ones(x.shape, np.float32), structure(config)[1])
    prompt_travel.save_travel(place, config, params)


def _travel(place: Path) -> None:
    config = prompt_travel.load_config(place)
    text = TextEncoderConfig(config.vocab_size, config.length, config.width)
    prompt_travel.open_travel(place, config, text).read()


def _one_tokenizer(place: Path) -> None:
    record = json.loads((GOLDEN / "tokenizer.json").read_text("utf-8"))
    place.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (place / name).write_text(json.dumps(record[name]), "utf-8")


def _card(place: Path) -> None:
    place.mkdir(exist_ok=True)
    shutil.copy(folder.find("garden") / "training.json", place)


def _tensors(place: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None) -> None:
    place.mkdir(exist_ok=True)
    save_file(tensors, place / "a.safetensors", metadata=metadata)


def _single(place: Path) -> None:
    """The head of one: all of its tensors are too large, and its reader stops at the names."""
    names = (
        "model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.quant_conv.bias",
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    )  # fmt: skip
    _tensors(place, {name: np.zeros((4, 4), np.float16) for name in names}, {"format": "pt"})


def _lora(place: Path) -> None:
    stem = "unet.mid_block.resnets.0.conv1"
    tensors = {
        f"{stem}.lora_A.weight": np.ones((2, 8, 3, 3), np.float32),
        f"{stem}.lora_B.weight": np.ones((8, 2, 1, 1), np.float32),
    }
    settings = json.dumps({"unet.lora_alpha": 2, "unet.alpha_pattern": {"conv1": 4}})
    _tensors(place, tensors, {"format": "pt", "lora_adapter_metadata": settings})


KINDS = {"conv.weight": (6, 4, 3, 3), "conv.bias": (6,), "to_q.weight": (6, 4), "norm.weight": (6,)}


def _lora_kinds(place: Path) -> None:
    """A LoHa with a core that is a DoRA, a LoKr, and a norm."""
    shapes = {f"unet.conv.hada_w{i}_{x}": (2, n) for i in (1, 2) for x, n in (("a", 6), ("b", 4))}
    shapes |= {f"unet.conv.hada_t{i}": (2, 2, 3, 3) for i in (1, 2)}
    shapes |= {"unet.conv.dora_scale": (6, 1, 1, 1), "unet.conv.diff_b": (6,)}
    shapes |= {"unet.to_q.lokr_w1": (2, 2), "unet.to_q.lokr_w2": (3, 2), "unet.norm.w_norm": (6,)}
    _tensors(place, {name: np.ones(shape, np.float32) for name, shape in shapes.items()}, None)


def _merged(path: Path) -> None:
    add = LoRA.open(path, 1.0, {"denoiser": KINDS, "text_encoder": {}}).adjust("denoiser")
    for name, shape in KINDS.items():
        add(name, np.ones(shape, np.float32))


def _embedding(place: Path) -> None:
    place.mkdir(exist_ok=True)
    shutil.copy(GOLDEN / "embeddings/cat.safetensors", place / "a.safetensors")


def _picture(place: Path) -> None:
    place.mkdir(exist_ok=True)
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    settings = PictureSettings("a red house", seed=3, count=1, zoom=1)
    picture_files.save(place / "a.png", picture, settings)


def _parameters(place: Path) -> None:
    """As a web interface saves it."""
    place.mkdir(exist_ok=True)
    info = PngInfo()
    settings = PictureSettings("a red house", negative="fog", sampler="euler_a", steps=9)
    info.add_text(web_parameters.KEY, web_parameters.write(settings, 32, 32))
    Image.new("RGB", (2, 2)).save(place / "a.png", pnginfo=info)


def _film(place: Path) -> None:
    place.mkdir(exist_ok=True)
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    film_files.save(place / "a.gif", frames, FilmFileSettings("a red house"))


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content of a file with one to three mistakes in it."""
    for _ in range(draw.randint(1, 3)):
        ways = [_bits, _cut, _twice, _without, _inserted, _numbers]
        if content[:1] in (b"{", b"["):
            ways += [_json] * 6
        elif content[8:9] == b"{":
            ways += [_header] * 6
        content = draw.choice(ways)(content, draw)
    return content


def _bits(content: bytes, draw: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(draw.choice((1, 1, 8, 64)) if found else 0):
        found[draw.randrange(min(len(found), draw.choice((64, 4096, 10**9))))] ^= (
            1 << draw.randrange(8)
        )
    return bytes(found)


def _slice(content: bytes, draw: random.Random) -> tuple[int, int]:
    start = draw.randint(0, len(content))
    return start, min(len(content), start + draw.choice((1, 4, 100, 10**5)))


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randint(0, len(content))]


def _twice(content: bytes, draw: random.Random) -> bytes:
    start, end = _slice(content, draw)
    return content[:end] + content[start:]


def _without(content: bytes, draw: random.Random) -> bytes:
    start, end = _slice(content, draw)
    return content[:start] + content[end:]


def _inserted(content: bytes, draw: random.Random) -> bytes:
    start, _ = _slice(content, draw)
    return content[:start] + draw.randbytes(draw.choice((1, 4, 64))) + content[start:]


def _numbers(content: bytes, draw: random.Random) -> bytes:
    places = [i for i, byte in enumerate(content[: 10**5]) if 48 <= byte <= 57]
    if not places:
        return content
    start = draw.choice(places)
    extreme = draw.choice((b"0", b"-1", b"1e999", b"9" * 20, b"18446744073709551615", b"NaN"))
    return content[:start] + extreme + content[start + 1 :]


def _json(content: bytes, draw: random.Random) -> bytes:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return content
    return json.dumps(_changed(data, draw)).encode()


def _header(content: bytes, draw: random.Random) -> bytes:
    """Another head of a safetensors file, whose length is right."""
    length = int.from_bytes(content[:8], "little")
    head = _json(content[8 : 8 + length], draw)
    return len(head).to_bytes(8, "little") + head + content[8 + length :]


def _changed(data: Any, draw: random.Random) -> Any:
    """One entry, at a random depth, becomes something else, another's twin, or is gone."""
    if isinstance(data, dict | list) and data and draw.random() < 0.85:
        keys = list(data) if isinstance(data, dict) else list(range(len(data)))
        key = draw.choice(keys)
        way = draw.random()
        if way < 0.1:
            del data[key]
        elif way < 0.2 and isinstance(data, dict):
            data[draw.choice(("x", "", "_class_name", str(draw.choice(keys))))] = data.pop(key)
        elif way < 0.25:
            data[key] = data[draw.choice(keys)]
        else:
            data[key] = _changed(data[key], draw)
        return data
    if isinstance(data, int | float) and not isinstance(data, bool) and draw.random() < 0.5:
        return draw.choice((data + 1, data * 2, -data, data * 10**9, data / 3))
    return draw.choice(ODD)


def failure(reader: Reader, case: int, seed: int, good: Path, place: Path) -> str:
    """What went wrong in one case, or nothing."""
    draw = random.Random(f"{seed} {case}")
    shutil.copytree(good, place)
    file = draw.choice(sorted(path for path in place.glob(reader.damaged) if path.is_file()))
    file.write_bytes(damaged(file.read_bytes(), draw))
    begin = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(place)
    except SAID:
        pass
    except Exception as error:
        return f"{file.name}: {type(error).__name__}: {error}"
    finally:
        shutil.rmtree(place)
    took = time.process_time() - begin
    return f"{file.name}: {took:.1f} s" if took > SECONDS else ""


def run(cases: range, seed: int) -> list[str]:
    """The failures of some cases: case i goes to reader i, in turns."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        every = readers()
        for kind, reader in every.items():
            reader.make(root / kind)
        for case in cases:
            kind = list(every)[case % len(every)]
            if told := failure(every[kind], case, seed, root / kind, root / "damaged"):
                found.append(f"case {case}, {kind}: {told}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="this case alone")
    given = parser.parse_args()
    only = given.only
    found = run(range(given.cases) if only is None else range(only, only + 1), given.seed)
    print("\n".join(found) or "no case failed")
    return min(1, len(found))


if __name__ == "__main__":
    sys.exit(main())
