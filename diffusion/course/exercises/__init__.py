"""All exercises of the course, by lesson and name; one file a lesson."""

from collections.abc import Mapping

from diffusion.course.exercise import Exercise
from diffusion.course.exercises import (
    codes,
    conv_autoencoder,
    cross_attention,
    dit,
    film,
    flow,
    museum,
    noisy_latent,
    oracle,
    samplers,
    studio_tour,
    text_encoder,
    tokenizer,
    training,
    unet_bottleneck,
    unet_down,
    unet_up,
    vae,
)

EXERCISES: Mapping[int, Mapping[str, Exercise]] = {
    0: studio_tour.EXERCISES,
    1: tokenizer.EXERCISES,
    2: text_encoder.EXERCISES,
    3: noisy_latent.EXERCISES,
    4: oracle.EXERCISES,
    5: unet_down.EXERCISES,
    6: unet_bottleneck.EXERCISES,
    7: unet_up.EXERCISES,
    8: cross_attention.EXERCISES,
    9: training.EXERCISES,
    10: samplers.EXERCISES,
    11: vae.EXERCISES,
    12: museum.EXERCISES,
    13: conv_autoencoder.EXERCISES,
    14: codes.EXERCISES,
    15: dit.EXERCISES,
    16: flow.EXERCISES,
    17: film.EXERCISES,
}
