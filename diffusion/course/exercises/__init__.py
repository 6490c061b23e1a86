"""All exercises of the course, by lesson and name; one file a lesson, named as its stage."""

from collections.abc import Mapping

from diffusion.course.exercise import Exercise
from diffusion.course.exercises import (
    noisy_latent,
    text_encoder,
    unet_bottleneck,
    unet_down,
    unet_up,
    vae,
)

EXERCISES: Mapping[int, Mapping[str, Exercise]] = {
    2: text_encoder.EXERCISES,
    3: noisy_latent.EXERCISES,
    5: unet_down.EXERCISES,
    6: unet_bottleneck.EXERCISES,
    7: unet_up.EXERCISES,
    11: vae.EXERCISES,
}
