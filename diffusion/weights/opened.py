"""A model that was found and checked, wherever it came from; its numbers are not read yet."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusion.config import ModelConfig
from diffusion.text.tokenizer import Tokenizer
from diffusion.weights.files import Weights

LONG = 4  # names that a note tells


@dataclass(frozen=True)
class OpenModel:
    """Its configuration, its tokenizer, and the files of the network in each slot."""

    place: Path
    config: ModelConfig
    tokenizer: Tokenizer
    weights: Mapping[str, Weights]
    beside: str = ""  # what else lies there, in words

    @property
    def note(self) -> str:
        """What is there and not used; "" if there is nothing."""
        unused = [name for weights in self.weights.values() for name in weights.unused]
        told = [self.beside] if self.beside else []
        if unused:
            more = ", ..." if len(unused) > LONG else ""
            told.append(f"{len(unused)} tensors ({', '.join(unused[:LONG])}{more})")
        return f"{self.place}: not used: {'; '.join(told)}" if told else ""
