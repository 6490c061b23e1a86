"""What tests of films share."""

import dataclasses

import pytest

from diffusion.film import MotionModules
from diffusion.loading import load
from diffusion.motion_config import motion_for
from diffusion.runtime.programs import Network
from diffusion.weights.architectures import structure
from tests.conftest import random_params

FRAMES = 8


@pytest.fixture(scope="session")
def filmer(shallow_folder):
    """The tiny model with motion modules that have learnt something."""
    artist = load(shallow_folder)
    config = dataclasses.replace(
        motion_for(artist.config.denoiser), length=FRAMES, common_noise=0.0
    )
    form, like = structure(config)
    modules = Network(form, lambda: random_params(like, 0))
    artist.motion = MotionModules(config, modules, artist.denoiser)
    return artist
