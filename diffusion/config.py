"""Configuration is data: one frozen dataclass a part. `diffusion.presets` has whole models."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from diffusion.config_checks import check_sizes
from diffusion.config_codes import MaskingConfig, check_codes

LARGEST_GUIDANCE = 100.0  # far beyond what makes sense, and far below what overflows
LARGEST_SIDE = 8192  # of a picture, in pixels
PREDICTIONS = ("epsilon", "v")  # the noise, the velocity
BETA_RULES = ("scaled_linear", "linear")  # the square roots are evenly spaced; they themselves


@dataclass(frozen=True)
class TextEncoderConfig:
    """The text tower of CLIP."""

    vocab_size: int = 49408
    length: int = 77  # tokens of a prompt, beginning and end marks included
    width: int = 768  # channels of a token, the "D" of the context
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    activation: str = "quick_gelu"  # SD 1.x; SD 2.x uses the exact "gelu"
    eps: float = 1e-5
    summary: bool = False  # as aMUSEd's: what the last layer hears, and a row that sums it all up


@runtime_checkable
class DenoiserConfig(Hashable, Protocol):
    """What a model has to know of its denoiser, whatever the architecture."""

    @property
    def latent_channels(self) -> int:
        """Channels of what it predicts."""

    @property
    def in_channels(self) -> int:
        """Channels of what it sees: more than the latent's in inpainting models."""

    @property
    def context_width(self) -> int: ...

    @property
    def guidance_width(self) -> int | None:
        """Numbers that tell it the guidance scale, as a fourth argument; None: it is not told."""

    @property
    def multiple(self) -> int:
        """The sides of a latent must be multiples of this."""


@dataclass(frozen=True)
class UNetConfig:
    latent_channels: int = 4
    in_channels: int = 4  # 9 in inpainting models: beside the latent, a mask and what is to be kept
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)  # one entry a level, finest first
    layers_per_block: int = 2  # residual blocks a level on the way down; one more on the way up
    attention: tuple[bool, ...] = (True, True, True, False)  # does the level listen to the words?
    heads: tuple[int, ...] = (8, 8, 8, 8)  # attention heads of each level
    context_width: int = 768
    norm_groups: int = 32
    guidance_width: int | None = None  # in latent consistency models, which have guidance built in
    linear_projection: bool = False  # in files: the transformers' projections, as SD 2.x has them

    def __post_init__(self) -> None:
        check_sizes(self)
        first = self.block_out_channels[0]
        if first % 2:
            raise ValueError(
                f"block_out_channels begins with {first}; give an even number, as each frequency "
                "of the timestep has a cosine and a sine"
            )
        levels = len(self.block_out_channels)
        for name in ("attention", "heads"):
            if len(getattr(self, name)) != levels:
                raise ValueError(f"{name} needs one entry a level: {levels}")

    @property
    def time_width(self) -> int:
        return 4 * self.block_out_channels[0]

    @property
    def multiple(self) -> int:
        return 1  # odd maps are halved, and come back to their own size


@dataclass(frozen=True)
class DiTConfig:
    """A transformer over the patches of a latent; the defaults are PixArt-alpha XL/2 at 512x512.

    It hears words by cross-attention (PixArt), or a class label in place of them (DiT).
    """

    latent_channels: int = 4
    patch: int = 2  # side of a token, in positions of the latent
    layers: int = 28
    heads: int = 16
    head_width: int = 72
    context_width: int = 4096  # 1 where it hears a label
    classes: int | None = None  # that a label can name; None: it hears words
    sample_size: int = 64  # side of the latents that it learns with; larger ones are squeezed on it
    position_scale: int = 1  # by which all places are divided
    told_scale: int | None = None  # pixels a latent position; None: it is not told the size
    learned_variance: bool = True  # are as many channels again predicted, which nobody here uses?

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.width % 4:
            raise ValueError(
                f"heads times head_width is {self.width}; give a multiple of 4, as row and column "
                "have sines and cosines"
            )
        if self.sample_size % self.patch:
            raise ValueError(f"sample_size is {self.sample_size}; give a multiple of {self.patch}")
        if self.told_scale is not None and self.width % 3:
            raise ValueError(f"told_scale needs a width in three parts; {self.width} has none")
        if self.classes is not None and (self.context_width, self.told_scale) != (1, None):
            raise ValueError("with classes, context_width must be 1 and told_scale None")

    @property
    def width(self) -> int:
        return self.heads * self.head_width

    @property
    def in_channels(self) -> int:
        return self.latent_channels

    @property
    def guidance_width(self) -> None:
        return None

    @property
    def multiple(self) -> int:
        return self.patch


@runtime_checkable
class AutoencoderConfig(Hashable, Protocol):
    """What a model has to know of its autoencoder, whatever the architecture."""

    @property
    def latent_channels(self) -> int: ...

    @property
    def downscale(self) -> int:
        """Image pixels along the side of one latent position."""


class _Levels:
    """Autoencoders by levels: as a rule a picture is halved between two of them."""

    block_out_channels: tuple[int, ...]

    def __post_init__(self) -> None:
        check_sizes(self)

    @property
    def downscale(self) -> int:
        return int(2 ** (len(self.block_out_channels) - 1))


@dataclass(frozen=True)
class VAEConfig(_Levels):
    image_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2  # residual blocks a level in the encoder; one more in the decoder
    norm_groups: int = 32
    scaling_factor: float = 0.18215  # latents times this have unit variance; measured


@dataclass(frozen=True)
class DVAEConfig(_Levels):
    """A discrete autoencoder: ours to train, and the official VQ autoencoders."""

    image_channels: int = 3
    latent_channels: int = 3  # of a code
    codes: int = 8192
    block_out_channels: tuple[int, ...] = (128, 256, 512)
    layers_per_block: int = 2  # residual blocks a level in the encoder; one more in the decoder
    norm_groups: int = 32
    middle_attention: bool = True  # does the coarsest level look around?
    inner_channels: int | None = None  # of encoder and decoder; None: those of a code
    from_zero: bool = False  # are pixel values in [0, 1] (aMUSEd), not in [-1, 1]?
    scaling_factor: float = 1.0  # latents times this have unit variance; measured after training


@dataclass(frozen=True)
class ConvAutoencoderConfig(_Levels):
    """The Keras sample, completed; see `diffusion.stages.conv_autoencoder`."""

    image_channels: int = 3
    block_out_channels: tuple[int, ...] = (32,)  # one entry a level, finest first
    scaling_factor: float = 1.0  # latents times this have unit variance; measured after training

    @property
    def latent_channels(self) -> int:
        return self.block_out_channels[-1]

    @property
    def downscale(self) -> int:
        return int(2 ** len(self.block_out_channels))


@runtime_checkable
class ProcessConfig(Hashable, Protocol):
    """How pictures become noise; `diffusion.process` makes a process of it."""

    @property
    def train_steps(self) -> int: ...

    @property
    def prediction(self) -> str: ...


@dataclass(frozen=True)
class VariancePreservingConfig:
    train_steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_rule: str = "scaled_linear"  # how the betas between are spaced: one of `BETA_RULES`
    clean_end: bool = False  # does DDIM arrive at x0, not at the first timestep, a trace short?
    prediction: str = "epsilon"  # what the denoiser says: one of `PREDICTIONS`

    def __post_init__(self) -> None:
        check_sizes(self)
        for name, known in (("prediction", PREDICTIONS), ("beta_rule", BETA_RULES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}"
                )


@dataclass(frozen=True)
class RectifiedFlowConfig:
    """Straight paths between picture and noise; see `diffusion.process.flow`."""

    train_steps: int = 1000  # what a denoiser is told of pure noise; between are all numbers
    shift: float = 1.0  # above 1, more of the steps are where the noise is (large pictures need it)

    def __post_init__(self) -> None:
        check_sizes(self)
        if not 0.0 < self.shift < math.inf:
            raise ValueError(f"shift is {self.shift}; give a number above 0, such as 1 or 3")

    @property
    def prediction(self) -> str:
        return "velocity"


@dataclass(frozen=True)
class SamplingConfig:
    """How a model paints where nobody says otherwise; see `diffusion.process.samplers.table`."""

    sampler: str = "dpm++2m"
    steps: int = 25
    spacing: str = "leading"


@dataclass(frozen=True)
class ModelConfig:
    """A model: four slots, and what belongs to all of them."""

    name: str = "sd-v1"
    image_size: int = 512  # pixels along the side of the pictures that the model was trained on
    guidance: float = 7.5  # the default guidance scale of `paint`
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    denoiser: DenoiserConfig = field(default_factory=UNetConfig)
    autoencoder: AutoencoderConfig = field(default_factory=VAEConfig)
    process: ProcessConfig = field(default_factory=VariancePreservingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        check_sizes(self)
        hears, says = self.denoiser.context_width, self.text_encoder.width
        if hears != says:
            raise ValueError(
                f"denoiser.context_width is {hears}, text_encoder.width is {says}; use the files "
                "of one model"
            )
        z = self.denoiser.latent_channels
        if isinstance(self.process, MaskingConfig) or hasattr(self.denoiser, "codes"):
            check_codes(self)
        elif z != (given := self.autoencoder.latent_channels):
            raise ValueError(
                f"denoiser.latent_channels is {z}, autoencoder.latent_channels is {given}; use the "
                "files of one model"
            )
        if self.text_encoder.summary and not hasattr(self.denoiser, "codes"):
            raise ValueError(
                "text_encoder.summary is for a denoiser that fills in codes; another takes the "
                "words alone"
            )
        if self.denoiser.in_channels not in (z, 2 * z + 1):
            raise ValueError(f"denoiser.in_channels must be {z}, or {2 * z + 1} for inpainting")
        if self.image_size % self.unit:
            raise ValueError(
                f"image_size is {self.image_size}; give a multiple of {self.unit}, as autoencoder "
                "and denoiser need it"
            )

    @property
    def latent_size(self) -> int:
        return self.image_size // self.autoencoder.downscale

    @property
    def unit(self) -> int:
        """The sides of a picture must be multiples of this, in pixels."""
        return self.autoencoder.downscale * self.denoiser.multiple

    @property
    def inpaints(self) -> bool:
        """Was the denoiser trained to see a mask and the picture around it?"""
        return self.denoiser.in_channels != self.denoiser.latent_channels
