"""The configuration of a painter of codes: its transformer, its process, and what must fit."""

from dataclasses import dataclass
from typing import Any

from diffusion.config_checks import check_sizes

SIZES = 5  # that a masked transformer is told
MASK_RULES = ("cosine", "linear")  # how the share that is masked falls
HOTTEST = 1000.0  # the order of the codes is chance


@dataclass(frozen=True)
class MaskedTransformerConfig:
    """A transformer that fills in masked codes; the defaults are aMUSEd-256."""

    codes: int = 8192  # that it chooses from
    vocabulary: int = 8256  # numbers that it reads: the codes, the mask, and some that are unused
    channels: int = 768  # of the map of codes
    blocks: int = 3  # for that map, on the way in, and as many on the way out
    block_heads: int = 12
    halves: bool = False  # are there a quarter as many tokens as codes (aMUSEd-512)?
    width: int = 1024  # of a token
    layers: int = 22
    heads: int = 16
    mlp_width: int = 2816
    context_width: int = 768
    size_code: int = 256  # sines and cosines of each of the `SIZES`

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.vocabulary <= self.codes:
            raise ValueError(
                f"vocabulary is {self.vocabulary}; give more than the {self.codes} codes, as the "
                "mask has a number of its own"
            )

    @property
    def latent_channels(self) -> int:
        return 1  # the number of a code

    @property
    def in_channels(self) -> int:
        return 1

    @property
    def guidance_width(self) -> None:
        return None

    @property
    def multiple(self) -> int:
        return 2 if self.halves else 1


@dataclass(frozen=True)
class MaskingConfig:
    """Codes that hide behind a mask, more and more of them; see `diffusion.process.masked`."""

    mask: int = 8255  # the number that stands for "masked"
    rule: str = "cosine"  # how the share that is masked falls: one of `MASK_RULES`
    temperature: float = 2.0  # of the noise on the confidence in the first step; 0 in the last

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.rule not in MASK_RULES:
            raise ValueError(f"rule is {self.rule!r}; choose one of {', '.join(MASK_RULES)}")
        if not 0.0 < self.temperature < HOTTEST:
            raise ValueError(
                f"temperature is {self.temperature}; give a number between 0 and {HOTTEST:g}"
            )

    @property
    def train_steps(self) -> int:
        return 1000  # a number for "all is masked"; nobody is told

    @property
    def prediction(self) -> str:
        return "logits"


def check_codes(model: Any) -> None:
    """Raises ValueError where the parts of a model do not speak of the same codes."""
    ours = getattr(model.denoiser, "codes", None)
    theirs = getattr(model.autoencoder, "codes", None)
    if ours is None or not isinstance(model.process, MaskingConfig):
        raise ValueError(
            "masked codes need a denoiser that fills them in, and one that does needs the process "
            f"of masks; got {type(model.denoiser).__name__}, {type(model.process).__name__}"
        )
    if theirs is None:
        raise ValueError(
            f"the denoiser fills in codes, and {type(model.autoencoder).__name__} has none; use a "
            "discrete autoencoder"
        )
    if ours != theirs:
        raise ValueError(
            f"denoiser.codes is {ours}, autoencoder.codes is {theirs}; use the files of one model"
        )
    vocabulary = getattr(model.denoiser, "vocabulary", ours + 1)
    if not ours <= model.process.mask < vocabulary:
        raise ValueError(
            f"process.mask is {model.process.mask}; give a number from {ours}, as there are that "
            f"many codes, to {vocabulary - 1}, the last that the denoiser reads"
        )
