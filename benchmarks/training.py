"""A training step of the garden's networks: ours, and the same losses in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from flax import nnx
from torch import nn

import diffusion
from benchmarks.apart import Call, apart
from benchmarks.peers import FORMS, as_theirs, formed, forms, prepare, wait
from benchmarks.roofline import flops
from benchmarks.timing import Options, Row, Work, leaves, measure, size
from diffusion.datasets.garden import render, sample_scenes
from diffusion.pipeline import Artist, Network
from diffusion.process.schedule import alpha_bars, target
from diffusion.runtime.parameters import Params
from diffusion.stages.noisy_latent import noisy_latent
from diffusion.training import autoencoder, denoiser
from diffusion.training.loop import Batch, Metrics, TrainConfig, init_state, make_step
from diffusion.weights.folder import find
from parity import reference

# In a row for one measurement, as a training takes them. After a rest the first is slow: memory
# that it frees and asks for again may have gone back to the machine below a virtual one.
STEPS = 20
LAYOUTS = {"": torch.contiguous_format, ", channels last": torch.channels_last}


@dataclass(frozen=True)
class Ready:
    """A task whose data and noise are drawn already, so that both sides do the same with them."""

    network: Network
    kind: type[nn.Module]  # of theirs
    config: TrainConfig
    data: Batch
    ours: Callable[..., jax.Array]  # the loss of our module on the data
    theirs: Callable[..., torch.Tensor]  # and of theirs
    name: str

    def init(self, seed: int) -> Params:
        return jax.tree.map(jnp.copy, self.network.params)  # the step gives up its memory

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        return self.data

    def loss(self, params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Metrics]:
        return self.ours(nnx.merge(self.network.structure, params), *batch), {}

    def picture(self, params: Params) -> np.ndarray:
        raise NotImplementedError("a benchmark paints no samples")


def training(options: Options) -> Iterator[Row]:
    """Forward, backward, clipping, AdamW and averaging, from the shipped weights.

    Each contender has a process of its own. The norms of the gradients must agree. Those of
    torch.compile do not (PyTorch 2.13 on a CPU): it leaves 84 of the U-Net's 326 gradients at zero,
    around the coarsest level, where the backend "aot_eager" and float64 agree with PyTorch as it
    is.
    """
    for part in TASKS:
        task = ready(part)
        name = f"training step of the garden's {part}, batch {task.config.batch_size}"
        if not options.wants(name):
            continue
        with ExitStack() as stack:
            enter = stack.enter_context
            contenders = [enter(apart("ours", our_step, part, compiles=True))]
            for layout in LAYOUTS:
                for form in forms(options):
                    build = apart(
                        form + layout,
                        their_step,
                        part,
                        layout,
                        form,
                        peer=True,
                        compiles=form != FORMS[0],
                    )
                    contenders.append(enter(build))
            products = flops(
                jax.grad(lambda params, task=task: task.loss(params, task.data, None)[0]),
                task.network.params,
            )
            work = Work(name, contenders, products, size(task.network.params))
            for row in measure(work, options.repeats):
                yield replace(row, seconds=tuple(seconds / STEPS for seconds in row.seconds))


def ready(part: str) -> Ready:
    return TASKS[part](diffusion.load("garden", dtype="float32"))


def our_step(part: str) -> Call:
    """Steps of the training loop; returns the first one's loss and norm of the gradient."""
    task = ready(part)
    step, state = make_step(task, task.config), init_state(task, task.config)

    def call() -> list[np.ndarray]:
        nonlocal state
        state, metrics = step(state, task.data)
        for _ in range(STEPS - 1):
            state, _ = step(state, task.data)
        jax.block_until_ready(state)
        return leaves((metrics["loss"], metrics["gradient_norm"]))

    return call


def their_step(part: str, layout: str, form: str) -> Call:
    """The same of PyTorch, at a constant learning rate."""
    reference.quiet()
    device = prepare()
    task = ready(part)
    network = task.kind.from_pretrained(find("garden"), subfolder=part).float()
    network = network.to(device, memory_format=LAYOUTS[layout])
    loss_of = formed(task.theirs, form)
    network.train()
    config, parameters = task.config, list(network.parameters())
    decayed = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(0.9, 0.99),
        fused=True,
    )
    average = [p.detach().clone() for p in parameters]
    data = [as_theirs(x).to(device) for x in task.data]

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        optimizer.zero_grad()
        loss = loss_of(network, *data)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1.0 - config.ema)
        return loss.detach(), norm

    def call() -> list[np.ndarray]:
        first = step()
        for _ in range(STEPS - 1):
            step()
        wait()
        return [x.cpu().numpy() for x in first]

    return call


def unet_task(artist: Artist) -> Ready:
    """The weighted error of v at timesteps all over the schedule (`DenoiserTask.loss`)."""
    preset = denoiser.preset()
    config = replace(preset, batch_size=denoiser.VIEWS * preset.batch_size)
    model, b = artist.config, config.batch_size
    keys = jax.random.split(jax.random.key(0), 3)
    side, text = model.latent_size, model.text_encoder
    latents, noise = jax.random.normal(keys[0], (2, b, side, side, model.denoiser.latent_channels))
    context = jax.random.normal(keys[1], (b, text.length, text.width))
    timesteps = (jnp.arange(b) + 0.5) * model.process.train_steps / b
    timesteps = timesteps.astype(jnp.int32)
    table = jnp.asarray(alpha_bars(model.process), jnp.float32)
    alpha_bar, kind = table[timesteps], model.process.prediction
    data = (
        noisy_latent(latents, noise, timesteps, table),
        timesteps,
        context,
        target(latents, noise, alpha_bar, kind),
        denoiser.weight(alpha_bar, kind),
    )

    def ours(network: Any, z: Any, timesteps: Any, context: Any, wanted: Any, weight: Any) -> Any:
        error = jnp.square(network(z, timesteps, context) - wanted).mean((1, 2, 3))
        return jnp.mean(weight * error)

    def theirs(network: Any, z: Any, timesteps: Any, context: Any, wanted: Any, weight: Any) -> Any:
        error = (network(z, timesteps, context).sample - wanted).square().mean((1, 2, 3))
        return (weight * error).mean()

    return Ready(artist.denoiser, UNet2DConditionModel, config, data, ours, theirs, "unet")


def vae_task(artist: Artist) -> Ready:
    """The errors of pixels, squared too, and of edges, and the KL term (`AutoencoderTask.loss`)."""
    config = autoencoder.preset()
    model, b = artist.config, config.batch_size
    images = render(sample_scenes(np.random.default_rng(0), b), model.image_size)
    side = model.latent_size
    noise = jax.random.normal(jax.random.key(0), (b, side, side, model.autoencoder.latent_channels))

    def ours(network: Any, images: Any, noise: Any) -> Any:
        posterior = network.encode(images)
        spread = jnp.exp(0.5 * posterior.log_variance)
        decoded = network.decode(posterior.mean + spread * noise)
        error = decoded - images
        pixel = jnp.abs(error).mean() + autoencoder.SQUARED_WEIGHT * jnp.square(error).mean()
        down, right = (
            jnp.mean(jnp.abs(one - other))
            for one, other in zip(
                autoencoder.edges(decoded), autoencoder.edges(images), strict=True
            )
        )
        kl = jnp.mean(posterior.kl()) / posterior.mean[0].size
        return pixel + autoencoder.EDGE_WEIGHT * (down + right) + autoencoder.COST_WEIGHTS * kl

    def theirs(network: Any, images: Any, noise: Any) -> Any:
        posterior = network.encode(images).latent_dist
        decoded = network.decode(posterior.mean + posterior.std * noise).sample
        error = decoded - images
        down = (error[:, :, 1:] - error[:, :, :-1]).abs().mean()
        right = (error[:, :, :, 1:] - error[:, :, :, :-1]).abs().mean()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        pixel = error.abs().mean() + autoencoder.SQUARED_WEIGHT * error.square().mean()
        return pixel + autoencoder.EDGE_WEIGHT * (down + right) + autoencoder.COST_WEIGHTS * kl

    return Ready(artist.autoencoder, AutoencoderKL, config, (images, noise), ours, theirs, "vae")


TASKS: dict[str, Callable[[Artist], Ready]] = {"unet": unet_task, "vae": vae_task}
