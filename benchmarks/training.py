"""A training step of the garden's networks: ours, and the same losses in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import diffusion
from benchmarks.peers import LAST, as_theirs, formed, network, pair
from benchmarks.roofline import flops
from benchmarks.timing import Call, Options, Work
from diffusion.datasets.garden import render, sample_scenes
from diffusion.pipeline import Artist
from diffusion.runtime.programs import Network
from diffusion.training import autoencoder, denoiser
from diffusion.training.loop import init_state, make_step
from diffusion.training.train_config import TrainConfig
from diffusion.weights.folder import find

# In a row for one measurement, as a training takes them. After a rest the first is slow: memory
# that it frees and asks for again may have gone back to the machine below a virtual one.
STEPS = 20


@dataclass(frozen=True)
class Task:
    """A training whose data and noise are drawn already, so that both sides do the same."""

    network: Network
    config: TrainConfig
    data: tuple[Any, ...]
    ours: Callable[..., Any]  # the loss of our module on the data
    theirs: Callable[..., Any]  # and of theirs

    def loss(self, params: Any, frozen: Any, data: Any, key: Any = None) -> tuple[Any, Any]:
        return self.ours(nnx.merge(self.network.structure, params), *data), {}


def training(options: Options) -> Iterator[Work]:
    """Forward, backward, clipping, AdamW and averaging, from the shipped weights.

    The norms of the gradients must agree. Those of torch.compile do not (PyTorch 2.13 on a CPU): it
    leaves 84 of the U-Net's 326 gradients at zero, around the coarsest level, where the backend
    "aot_eager" and float64 agree with PyTorch as it is.
    """
    for part in TASKS:
        task = drawn(part)
        name = f"training step of the garden's {part}, batch {task.config.batch_size}"
        if options.wants(name):
            gradient = jax.grad(lambda params, task=task: task.loss(params, {}, task.data)[0])
            sides = pair(ours, theirs, (part,), options, ("", LAST))
            yield Work(name, sides, flops(gradient, task.network.params), times=STEPS)


def ours(part: str) -> dict[str, Call]:
    """Steps of the training loop; returns the first one's loss and norm of the gradient."""
    task = drawn(part)
    step = make_step(task, task.config)
    state = init_state(task, task.config, task.network.params)

    def call() -> tuple[jax.Array, jax.Array]:
        nonlocal state
        state, metrics = step(state, {}, task.data)
        for _ in range(STEPS - 1):
            state, _ = step(state, {}, task.data)
        jax.block_until_ready(state)
        return metrics["loss"], metrics["gradient_norm"]

    return {"ours": call}


def theirs(part: str, form: str) -> Call:
    """The same of PyTorch, at a constant learning rate, and biases decay, too: as much work."""
    task = drawn(part)
    module = network(find("garden64"), part, form).train()
    loss_of = formed(task.theirs, form)
    config, parameters = task.config, list(module.parameters())
    settings = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.99), fused=True, **settings)
    average = [p.detach().clone() for p in parameters]
    data = [as_theirs(x) for x in task.data]

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        optimizer.zero_grad()
        loss = loss_of(module, *data)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1.0 - config.ema)
        return loss.detach(), norm

    def call() -> tuple[torch.Tensor, torch.Tensor]:
        first = step()
        for _ in range(STEPS - 1):
            step()
        return first

    return call


def drawn(part: str) -> Task:
    return TASKS[part](diffusion.load("garden64", dtype="float32"))


def unet(artist: Artist) -> Task:
    """The weighted error at timesteps all over the schedule (`DenoiserTask.loss`)."""
    preset = denoiser.preset()
    config = replace(preset, batch_size=denoiser.VIEWS * preset.batch_size)
    model, process, b = artist.config, artist.process, config.batch_size
    side, text = model.latent_size, model.text_encoder
    keys = jax.random.split(jax.random.key(0))
    latents, noise = jax.random.normal(keys[0], (2, b, side, side, model.denoiser.latent_channels))
    context = jax.random.normal(keys[1], (b, text.length, text.width))
    t = ((jnp.arange(b) + 0.5) * process.train_steps / b).astype(jnp.int32)
    wanted = process.target(latents, noise, t)
    data = (process.add_noise(latents, noise, t), t, context, wanted, process.weight(t))

    def ours(network: Any, x_t: Any, t: Any, context: Any, wanted: Any, weight: Any) -> Any:
        return (weight * ((network(x_t, t, context) - wanted) ** 2).mean((1, 2, 3))).mean()

    def theirs(network: Any, *data: Any) -> Any:
        return ours(lambda *inputs: network(*inputs).sample, *data)

    return Task(artist.denoiser, config, data, ours, theirs)


def vae(artist: Artist) -> Task:
    """The errors of pixels, squared too, and of edges, and the KL term (`AutoencoderTask.loss`)."""
    config, model = autoencoder.preset(), artist.config
    images = render(sample_scenes(np.random.default_rng(0), config.batch_size), model.image_size)
    key, side = jax.random.key(0), model.latent_size
    shape = (config.batch_size, side, side, model.autoencoder.latent_channels)

    def loss(decoded: Any, images: Any, kl: Any, diff: Any, rows: int) -> Any:
        """`diff` is NumPy's as either knows it, `rows` the axis of the rows of pixels."""
        error = decoded - images
        edges = sum(abs(diff(error, 1, axis)).mean() for axis in (rows, rows + 1))
        pixel = abs(error).mean() + autoencoder.SQUARED_WEIGHT * (error**2).mean()
        cost = autoencoder.COST_WEIGHTS["kl"] * kl
        return pixel + autoencoder.EDGE_WEIGHT * edges + cost

    def ours(network: Any, images: Any, noise: Any) -> Any:
        latents, costs = network.draw(images, key)  # with that noise
        return loss(network.decode(latents), images, costs["kl"], jnp.diff, 1)

    def theirs(network: Any, images: Any, noise: Any) -> Any:
        posterior = network.encode(images).latent_dist
        decoded = network.decode(posterior.mean + posterior.std * noise).sample
        kl = posterior.kl().mean() / images[0].numel()
        return loss(decoded, images, kl, torch.diff, 2)

    return Task(artist.autoencoder, config, (images, jax.random.normal(key, shape)), ours, theirs)


TASKS: dict[str, Callable[[Artist], Task]] = {"unet": unet, "vae": vae}
