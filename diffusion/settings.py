"""What a person asks for, once for all: Python, command line, picture files and trace.

A field says by itself what the command line calls it; `diffusion.cli` makes its arguments of them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import psutil
from jaxtyping import Bool, UInt8

from diffusion.config import LARGEST_GUIDANCE, LARGEST_SIDE, ModelConfig
from diffusion.process.samplers import SAMPLERS
from diffusion.process.schedule import SPACINGS

CONSISTENT = {"steps": 4, "guidance": 1.0}  # with the sampler "lcm", if nobody says
STRENGTH = 0.8  # how much of a picture given is painted anew, if nobody says
SMALL = 128  # pixels along the side of pictures that come in fours
ENLARGED = 256  # pixels along the side that small pictures are enlarged to
LARGEST_ZOOM = 64
WHOLE, REAL, NOTHING = (int, np.integer), (int, float, np.integer, np.floating), (type(None),)
KINDS: dict[str, tuple[Any, str]] = {  # of a field: what it may hold, in types and in words
    "str": (str, "a text"),
    "bool": ((bool, np.bool_), "True or False"),
    "int": (WHOLE, "a whole number"),
    "int | None": (WHOLE + NOTHING, "a whole number"),
    "float": (REAL, "a number"),
    "float | None": (REAL + NOTHING, "a number"),
    "str | None": ((str, type(None)), "a text"),
}
Image: TypeAlias = UInt8[np.ndarray, "H W 3"]
Mask: TypeAlias = Bool[np.ndarray, "H W"]


def option(default: Any, text: str, metavar: str | None = None, flag: str | None = None) -> Any:
    """A field with what the command line says of it.

    Args:
        flag: what the command line calls it, if not by its name.
    """
    metadata = {"help": text, "metavar": metavar, "flag": flag}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """What decides the pictures that a model paints. None: what suits the model.

    Raises ValueError that names a field that makes no sense, whatever the model.
    """

    prompt: str  # what to paint; "" lets the model choose
    # Takes the place of the empty prompt in guidance.
    negative: str = option("", "what to stay away from", "TEXT")
    # 0 <= seed < 2**32. Picture i of a seed depends on seed and i alone.
    seed: int = option(0, "another seed, other pictures (0)", "N")
    count: int | None = option(None, "how many pictures (4; 1 where they are large)", "N")
    first: int = 0  # the number of the first picture
    # 1 to the model's training steps.
    steps: int | None = option(
        None, "glances at the canvas (the model's own; garden: 8; lcm: 4)", "N"
    )
    # Ho & Salimans 2022: 0 ignores the prompt, 1 follows the model, more exaggerates.
    guidance: float | None = option(
        None,
        "how strictly to follow the words: 1 loosely, 3 to 5 well, more exaggerates "
        "(the model's own; lcm: 1)",
        "S",
    )
    sampler: str | None = option(
        None, f"one of {', '.join(SAMPLERS)} (the model's own; garden: dpm++2m)", "NAME"
    )
    # With few steps, or with more than half of all, "leading" begins far from the last timestep:
    # the denoiser is told that a picture is in what is pure noise.
    spacing: str | None = option(
        None, f"of the timesteps: {', '.join(SPACINGS)} (the model's own; garden: trailing)", "NAME"
    )
    eta: float = option(0.0, "fresh noise in ddim: 0 none, 1 as in ddpm")
    # Pixels, multiples of the model's `unit`.
    height: int | None = option(None, "(the model's own, or that of --from)", "PIXELS")
    width: int | None = option(None, "(the model's own, or that of --from)", "PIXELS")
    # How much of the way back to pure noise a given image is sent (Meng et al. 2022, "SDEdit").
    strength: float | None = option(
        None, "how much of --from is painted anew: 0.3 a little, 1 all (0.8; with --mask 1)", "S"
    )
    # The signs of `diffusion.text.emphasis`, in all prompts.
    emphasis: bool = option(
        False,
        "signs of web interfaces: (words:1.3) weigh more, [words] less; BREAK, and more words than "
        "fit, begin another row",
    )

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            kind, wanted = KINDS.get(str(entry.type), (object, ""))
            if not isinstance(getattr(self, entry.name), kind):
                raise ValueError(f"{entry.name} is {getattr(self, entry.name)!r}; give {wanted}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; give a whole number from 0 to {2**32 - 1}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count is {self.count}; ask for 1 picture or more")
        if not 0 <= self.first <= max(0, 2**32 - (self.count or 1)):
            raise ValueError(f"first is {self.first}; give 0 to {2**32} less the count")
        if self.guidance is not None and not abs(self.guidance) <= LARGEST_GUIDANCE:
            raise ValueError(
                f"guidance is {self.guidance}; give a number up to {LARGEST_GUIDANCE}, such as 3"
            )

    def resolve(
        self, model: ModelConfig, image: Image | None = None, mask: Mask | None = None
    ) -> Resolved:
        """The same with every default filled.

        Args:
            image: a picture to begin with, in place of pure noise.
            mask: True where the image is to be painted anew; elsewhere it stays.

        Raises ValueError that names what does not fit the model or the image.
        """
        check_given(image, mask, self.strength)
        if self.emphasis and model.text_encoder.summary:
            raise ValueError(f"{model.name} hears prompts as a whole, too; leave emphasis out")
        self._check_distilled(model)
        height, width = self.size(model, image)
        filled: dict[str, Any] = self.sampling(model) | {
            "count": 1 if self.count is None else self.count,
            "height": height,
            "width": width,
            "strength": self.strength,
        }
        if self.strength is None:
            filled["strength"] = 1.0 if image is None or mask is not None else STRENGTH
        needed = filled["count"] * height * width * 3
        if needed > psutil.virtual_memory().available // 2:
            raise ValueError(
                f"count {filled['count']} needs {needed / 2**30:,.1f} GiB for the finished "
                "pictures alone, more than half of the free memory; paint fewer at a time, with "
                "other seeds"
            )
        own = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(Settings)}
        return Resolved(**(own | filled))

    def sampling(self, model: ModelConfig) -> dict[str, Any]:
        """Sampler, steps, spacing and guidance: what was asked for, or what suits the model."""
        own = dataclasses.asdict(model.sampling) | {"guidance": model.guidance}
        if self.sampler == "lcm" != own["sampler"]:
            own |= CONSISTENT
        return own | {name: getattr(self, name) for name in own if getattr(self, name) is not None}

    def _check_distilled(self, model: ModelConfig) -> None:
        """Raises ValueError where a model with guidance built in is asked for something else."""
        if model.denoiser.guidance_width is None:
            return
        if self.sampling(model)["sampler"] != "lcm":
            raise ValueError(f'{model.name} is a latent consistency model; its sampler is "lcm"')
        if self.negative:
            raise ValueError(f"{model.name} has its guidance built in; leave negative out")

    def size(self, model: ModelConfig, image: Image | None = None) -> tuple[int, int]:
        """Height and width in pixels: what was asked for, the image's own, or the model's own.

        Raises ValueError for a size that the networks cannot halve as often as they have to.
        """
        own = (model.image_size, model.image_size) if image is None else image.shape[:2]
        if image is not None and (self.height, self.width) not in ((None, None), own):
            raise ValueError("height and width are those of the image; leave them out")
        rows = own[0] if self.height is None else self.height
        columns = own[1] if self.width is None else self.width
        unit = model.unit
        for name, side in (("height", rows), ("width", columns)):
            if side % unit or not unit <= side <= LARGEST_SIDE:
                low = min(max(side // unit, 1) * unit, LARGEST_SIDE)
                raise ValueError(
                    f"{name} is {side}; give a multiple of {unit} up to {LARGEST_SIDE}, such as "
                    f"{low} or {min(low + unit, LARGEST_SIDE)}"
                )
        return rows, columns


def check_given(image: Any, mask: Any, strength: float | None) -> None:
    """Raises ValueError where an image and a mask cannot be what a painting begins with."""
    if image is None:
        if mask is not None or strength is not None:
            raise ValueError("mask and strength belong to an image; give one, or leave them out")
        return
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
    ):
        raise ValueError("image must be a uint8 array of shape (height, width, 3)")
    if mask is not None and (
        not isinstance(mask, np.ndarray)
        or mask.dtype != bool
        or mask.shape != image.shape[:2]
        or not mask.any()
    ):
        raise ValueError(
            "mask must be a boolean array of the image's height and width, true somewhere: "
            "there it is painted"
        )


@dataclass(frozen=True)
class Resolved(Settings):
    """Settings with every default filled, for one model and one image; `Settings.resolve`."""

    count: int = 1
    steps: int = 1
    guidance: float = 1.0
    sampler: str = ""
    spacing: str = ""
    height: int = 0
    width: int = 0
    strength: float = 1.0


@dataclass(frozen=True)
class PictureSettings(Settings):
    """All that decides a picture file: the settings, which files, and how it is laid out.

    Raises ValueError where the zoom or the index is out of range.
    """

    model: str = option(
        "garden",
        "a model that ships, a folder, a single file, or a repository in the local cache of "
        "Hugging Face (garden)",
        "MODEL",
    )
    # A picture file to begin with.
    source: str | None = option(
        None,
        "begin with a picture instead of noise; it is scaled and cut to the size",
        "PICTURE",
        "from",
    )
    mask: str | None = option(
        None, "white where --from is painted anew; the rest stays as it is", "PICTURE"
    )
    # Files, each with its strength.
    loras: dict[str, float] = option(  # noqa: RUF009 (a fresh dictionary each time)
        {}, "merge a LoRA file (safetensors) into the weights, with strength S (1)",
        "FILE[=S]", "lora",
    )  # fmt: skip
    vae: str | None = option(None, "a file or a folder with another VAE", "PATH")
    tokenizer: str | None = option(
        None, "the folder of the tokenizer, which a single file comes without", "FOLDER"
    )
    # Files, each with its token in prompts; "": the one that the file says.
    embeddings: dict[str, str] = option(  # noqa: RUF009
        {}, "a word that the model does not know, of textual inversion (safetensors); TOKEN is "
        "what it is called in prompts (as the file says)",
        "FILE[=TOKEN]", "embedding",
    )  # fmt: skip
    clip_skip: int | None = option(
        None, "leave out the last N - 1 layers of the text encoder, as web interfaces count", "N"
    )
    dtype: str | None = option(
        None,
        "precision of the weights: float32, bfloat16 or float16 (what suits the device)",
        "NAME",
    )
    digest: str | None = None  # SHA-256 of source, mask and other files, to know them again
    # Pixels of the file along the side of a painted pixel.
    zoom: int | None = option(None, "enlarge each pixel N times (to 256 pixels; 1 if larger)", "N")
    strip: bool = option(
        False,
        "show 8 moments of each painting: above, the canvas as it is; below, the picture that the "
        "network sees in it",
    )
    index: int | None = None  # which picture of the series this file holds; None: a sheet of all

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.zoom is not None and not 1 <= self.zoom <= LARGEST_ZOOM:
            raise ValueError(f"zoom is {self.zoom}; give 1 to {LARGEST_ZOOM}")
        if self.index is not None and not 0 <= self.index < (self.count or 1):
            raise ValueError(f"index is {self.index}, of a series of {self.count}")

    def fitted(self, model: ModelConfig, dtype: str) -> PictureSettings:
        """With what fits the model where nothing was said: small pictures come in fours, enlarged.

        Args:
            dtype: in which the model was loaded.
        """
        some = 4 if model.image_size <= SMALL else 1
        zoom = max(1, ENLARGED // model.image_size)
        fitting = {"count": some, "zoom": zoom, "dtype": dtype} | self.sampling(model)
        unsaid: dict[str, Any] = {k: v for k, v in fitting.items() if getattr(self, k) is None}
        return dataclasses.replace(self, **unsaid)
