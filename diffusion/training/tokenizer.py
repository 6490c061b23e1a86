"""Training the tokenizer: which letters go together in the garden's captions?"""

import numpy as np
from tqdm import tqdm

from diffusion.config import TextEncoderConfig
from diffusion.datasets.captions import captions
from diffusion.datasets.curriculum import MOTION_SHARE
from diffusion.datasets.garden import sample_scenes
from diffusion.text.tokenizer import Tokenizer

CAPTIONS = 20_000


def train_tokenizer(config: TextEncoderConfig, seed: int = 0) -> Tokenizer:
    """Byte-pair encoding of `CAPTIONS` captions, half of them Turkish (see `Tokenizer.train`)."""
    rng = np.random.default_rng(seed)
    scenes = sample_scenes(rng, CAPTIONS)
    said = captions(scenes, rng, motion_share=MOTION_SHARE)
    texts = (caption.text for caption in tqdm(said, desc="tokenizer"))
    return Tokenizer.train(texts, config.vocab_size, length=config.length)
