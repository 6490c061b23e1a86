"""What a training begins with when it starts from a model: its folder, and its weights."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from diffusion.atomic_write import atomic_write
from diffusion.config import ModelConfig
from diffusion.config_text import override
from diffusion.runtime.parameters import Params
from diffusion.training.card import Order
from diffusion.training.growth import check_growth, grown, grows
from diffusion.weights import folder
from diffusion.weights import prompt_travel as travel
from diffusion.weights.architectures import SLOTS, architecture
from diffusion.weights.configs import INDEX, shared
from diffusion.weights.places import read_json

LATER = {"autoencoder": "decoder", "denoiser": "distill"}  # trainings that may follow


@dataclass(frozen=True)
class Beginning:
    """A trained network to begin with, and the one that begins."""

    root: Path
    config: Any
    params: Params
    after: Any
    inside: str = ""  # its name in what a task trains; "": it is all that is trained
    part: str = ""  # the training that the network is from, where that is not the new one's
    ready: Callable[[Params, int], Params] | None = None  # what else it needs, once it has grown

    @property
    def grows(self) -> bool:
        return _differ(self.config, self.after)

    def given(self, init: Callable[[int], Params], seed: int) -> Params:
        """The parameters to begin with; from fresh ones, which `init` makes, what else there is."""
        if self.grows:
            params = grown(self.config, self.params, self.after, init(seed))
            return self.ready(params, seed) if self.ready else params
        return init(seed) | {self.inside: self.params} if self.inside else self.params


def beginning(order: Order, slot: str, config: ModelConfig) -> Beginning | None:
    """What `--start` lends the network of a slot; None: nothing, it begins at random."""
    if order.start is None:
        return None
    before = folder.load_config(order.start)
    old, new = getattr(before, slot), getattr(config, slot)
    if type(old) is not type(new) and not grows(old, new):
        return None
    card = folder.load_card(order.start)
    part = LATER[slot] if LATER.get(slot) in card else architecture(old).part
    params = folder.load_part(order.start, before, slot)[1]
    return Beginning(order.start, old, params, new, part=part)


def heir(
    slot: str, start: Path, output: Path, new: ModelConfig | None, settings: Sequence[str]
) -> ModelConfig:
    """The configuration of what begins with a model's weights.

    That of `output` if it holds a model. Else a copy of the model, which may be larger; or, where
    `new` has another kind of network in the slot, `new` with the rest of the model.

    Raises ValueError where it cannot begin with them.
    """
    copied = folder.load_config(start)  # says what is the matter with it
    if start.resolve() == output.resolve():
        raise ValueError(f"--start and --output are both {output}; name a new --output")
    if (output / INDEX).exists():
        config = folder.load_config(output)
    elif new is None or type(getattr(copied, slot)) is type(getattr(new, slot)):
        config = override(copied, settings)
        _check_rest(copied, config, {slot, "denoiser"} if slot == "autoencoder" else {slot})
    elif slot == "autoencoder":
        own = _own(new.autoencoder, "autoencoder.", settings)
        rest = [text for text in settings if not text.startswith("autoencoder.")]
        config = override(replace(copied, name=new.name, autoencoder=own), rest)
        _check_rest(copied, config, {slot})
    else:
        kept = replace(
            new,
            image_size=copied.image_size,
            text_encoder=copied.text_encoder,
            denoiser=_own(_fitted(new.denoiser, copied), "denoiser.", settings),
            autoencoder=copied.autoencoder,
            process=_own(new.process, "process.", settings),
        )
        apart = ("denoiser.", "process.")  # they have to fit the copy before anything else changes
        config = override(kept, [text for text in settings if not text.startswith(apart)])
        _check_rest(copied, config, {slot})
    old, after = getattr(copied, slot), getattr(config, slot)
    if (grows(old, after) or type(old) is type(after)) and _differ(old, after):
        check_growth(old, after)
    return config


def _fitted(denoiser: Any, copied: ModelConfig) -> Any:
    """A denoiser that hears the model's words and works on its latents."""
    z = copied.autoencoder.latent_channels
    sizes = {
        "latent_channels": z, "in_channels": z, "context_width": copied.text_encoder.width
    }  # fmt: skip
    own = {entry.name for entry in fields(denoiser)}
    return replace(denoiser, **{name: size for name, size in sizes.items() if name in own})


def _own(config: Any, prefix: str, settings: Sequence[str]) -> Any:
    """A part of a model with those settings that are its own."""
    return override(
        config, [text.removeprefix(prefix) for text in settings if text.startswith(prefix)]
    )


def _check_rest(copied: ModelConfig, config: ModelConfig, free: set[str]) -> None:
    """Raises ValueError where another slot than those that are free has changed."""
    changed = [s for s in SLOTS if s not in free and getattr(config, s) != getattr(copied, s)]
    if changed:
        raise ValueError(
            f"the {changed[0]} of a copy keeps its configuration; leave out model.{changed[0]}"
        )


def _differ(one: Any, other: Any) -> bool:
    """Two configurations of networks, but for what training finds out."""
    one, other = (
        replace(network, scaling_factor=1.0) if hasattr(network, "scaling_factor") else network
        for network in (one, other)
    )
    return bool(one != other)


def copy_of(start: Path, output: Path, config: ModelConfig, part: str) -> None:
    """A new folder begins with the networks that have the same configuration in both.

    It has a place for the training of `part`, which may be stopped before it writes anything.

    Raises ValueError where the folder is not empty and no model.
    """
    if (output / INDEX).exists():
        return
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} is no model and not empty; name a new --output")
    before = folder.load_config(start)
    kept = [slot for slot in SLOTS if getattr(config, slot) == getattr(before, slot)]
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as draft:
        (draft / "training" / part).mkdir(parents=True)
        for slot in kept:
            name = architecture(getattr(config, slot)).folder
            shutil.copytree(folder.home(start, name) / name, draft / name)
        shutil.copytree(folder.home(start, "tokenizer") / "tokenizer", draft / "tokenizer")
        parts = ["tokenizer", *(architecture(getattr(config, slot)).part for slot in kept)]
        parts += [LATER[slot] for slot in kept if slot in LATER]
        if "text_encoder" in kept and travel.exists(start):
            shutil.copytree(start / travel.FOLDER, draft / travel.FOLDER)
            parts.append("travel")
        if config == before and not shared(read_json(start / INDEX)):
            shutil.copy(start / INDEX, draft)
            shutil.copytree(start / "scheduler", draft / "scheduler")
        else:
            folder.save_config(draft, config)
        known = folder.load_card(start).items()
        if card := {part: entry for part, entry in known if part in parts}:
            folder.write_json(draft / folder.CARD, card)
