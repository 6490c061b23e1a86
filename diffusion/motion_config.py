"""The configuration of what is added to a model so that it paints films."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from diffusion.config import (
    BETA_RULES,
    ModelConfig,
    SamplingConfig,
    UNetConfig,
    VariancePreservingConfig,
)
from diffusion.config_checks import check_sizes

FRAMES = 16  # of the films that our adapters learn with
COMMON_NOISE = 0.9  # alpha = 3 in the mixed model of Ge et al. 2023


@dataclass(frozen=True)
class MotionConfig:
    """A motion adapter of AnimateDiff (Guo et al. 2023); the defaults are those of v1-5-2."""

    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)  # of its U-Net, finest first
    layers_per_block: int = 2  # modules a level on the way down; one more on the way up
    heads: tuple[int, ...] = (8, 8, 8, 8)  # of each level
    norm_groups: int = 32
    length: int = 32  # frames that can look at each other
    middle: bool = True  # is there a module at the bottleneck?
    beta_rule: str | None = "linear"  # of the noise it learnt with; None: that of its model
    common_noise: float = 0.0  # share of the noise's variance that all frames have in common

    def __post_init__(self) -> None:
        check_sizes(self)
        if len(self.heads) != len(self.block_out_channels):
            raise ValueError(f"heads needs one entry a level: {len(self.block_out_channels)}")
        if self.beta_rule not in (None, *BETA_RULES):
            raise ValueError(
                f"beta_rule is {self.beta_rule!r}; choose one of {', '.join(BETA_RULES)}, or None"
            )
        if not 0 <= self.common_noise < 1:
            raise ValueError(f"common_noise is {self.common_noise}; give 0 to less than 1")

    def sampled(self, model: ModelConfig) -> ModelConfig:
        """The model as it paints films: with the noise that the adapter learnt with.

        That of the official adapters has linear betas, and DDIM goes evenly from the last timestep
        to the first.
        """
        if self.beta_rule is None or not isinstance(model.process, VariancePreservingConfig):
            return model
        process = dataclasses.replace(model.process, beta_rule=self.beta_rule)
        sampling = SamplingConfig("ddim", model.sampling.steps, "linspace")
        return dataclasses.replace(model, process=process, sampling=sampling)


@dataclass(frozen=True)
class PromptTravelConfig:
    """What finds the two ends of a film in its sentence; the defaults are the garden's."""

    vocab_size: int = 1024  # tokens, as the text encoder's; so the next two
    width: int = 128  # of a context
    length: int = 77
    layers: int = 3
    heads: int = 4
    reach: int = 12  # tokens before and after a place that can be copied to it

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.width % self.heads:
            raise ValueError(f"heads: {self.heads} heads do not divide a width of {self.width}")


def motion_for(unet: UNetConfig) -> MotionConfig:
    """A new adapter for a U-Net: as many heads as its levels have, and its noise."""
    return MotionConfig(
        block_out_channels=unet.block_out_channels,
        layers_per_block=unet.layers_per_block,
        heads=unet.heads,
        norm_groups=unet.norm_groups,
        length=FRAMES,
        beta_rule=None,
        common_noise=COMMON_NOISE,
    )
