"""What a person might say of a garden scene, in one of several languages.

A caption names some attributes of its scene and leaves the rest open. All that it says is true, and
`Caption.named` lists what it says, so that an evaluation asks for nothing else.

Another language is a file like `english.py` and a line in `grammar.LANGUAGES`; CONTRIBUTING.md says
what a model and its evaluation need besides.
"""

from diffusion.datasets.captions.grammar import (
    LANGUAGES,
    Caption,
    Travel,
    any_motion,
    caption,
    captions,
    clip_captions,
    said_by,
    travels,
)

__all__ = [
    "LANGUAGES", "Caption", "Travel", "any_motion", "caption", "captions", "clip_captions",
    "said_by", "travels",
]  # fmt: skip
