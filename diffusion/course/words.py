"""What checks and figures say, in every language of the course: one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TABLE: Mapping[str, Mapping[str, str]] = {
    "en": {
        "begin": "Lesson {number}, {title}. JAX finds {device}.",
        "measured": "On two cores it takes about {seconds} s and {memory} GiB.",
        "unsolved": "{name}: not solved yet.",
        "solved": "{name}: right, in {cases} of {cases} cases; largest difference {difference}.",
        "wrong": "{name}: not right yet (case {case} of {cases}).",
        "raised": "{name}: your function raises an error in case {case}: {error}",
        "parts": "  There should be {wanted} arrays, yours are {found}.",
        "text": "  It should be {wanted}, yours is {found}.",
        "shape": "  The shape should be {wanted}, yours is {found}.",
        "finite": "  {count} of {size} values are infinite or no numbers.",
        "value": "  The shape {shape} is right. The largest difference is {difference}, at "
        "{place}: it should be {wanted}, yours is {found}.",
        "hint": "  Hint: {hint}",
        "hint.attend.unscaled": "divide the products by the square root of the width, or the "
        "softmax sees numbers that are too large.",
        "hint.attend.width": "by the square root of the width, not by the width.",
        "hint.attend.axis": "each query shares out its attention over the keys: the softmax goes "
        "along the last axis, so that rows sum to 1.",
        "hint.attend.raw": "the products are no shares yet: a softmax makes them so.",
        "hint.attend.keys": "keys say where to look, values what is found there: mix the values.",
        "hint.causal.ahead": "that looks ahead: token 0 may look at itself alone.",
        "hint.causal.zeros": "a logit of 0 is a share like any other (e to the 0 is 1); what must "
        "not be seen is minus infinity.",
        "hint.causal.afterwards": "rows must sum to 1 again: take away before the softmax, not "
        "after it.",
        "hint.causal.everything": "nothing is hidden yet.",
        "hint.cosine.product": "the product depends on how long the vectors are; divide by both "
        "lengths.",
        "hint.cosine.squares": "a length is the square root of the sum of squares.",
        "hint.residual.no_shortcut": "what came in has to be added at the end: the block only "
        "learns a change.",
        "hint.residual.no_time": "time is missing: the block does not know how noisy it is.",
        "hint.residual.late_time": "time belongs between the two convolutions, before the second "
        "normalisation.",
        "hint.residual.raw_time": "the time vector passes a silu before its linear layer.",
        "hint.sinusoids.sine_first": "Stable Diffusion puts the cosines first.",
        "hint.sinusoids.last_frequency": "the exponents are i / half, not i / (half - 1): the last "
        "frequency is not quite 1/10000.",
        "hint.sinusoids.upside_down": "frequencies fall from 1 to 1/10000; yours rise.",
        "hint.reach.strides": "after a stride of 2, a step of one position is two positions of the "
        "map before.",
        "hint.reach.sizes": "a convolution of 3 adds 2 to what was known, one on each side.",
        "hint.reach.product": "windows overlap: they add up and do not multiply.",
        "hint.to_tokens.columns": "that goes column by column; the first tokens are the first row.",
        "hint.to_tokens.channels": "each position is a token, and its channels are the token's "
        "numbers: they come last.",
        "hint.looked_at.backwards": "that is who looks at this position; a query is a row of the "
        "weights.",
        "hint.looked_at.one_head": "all heads look: take their mean.",
        "hint.looked_at.position": "row by row, a position is row * w + column.",
        "hint.explained.uncentred": "take the mean away first, or it is the strongest direction.",
        "hint.explained.unsquared": "a direction's share of the variance is its singular value "
        "squared.",
        "hint.twice.tiled": "that puts four copies side by side; each position has to become a "
        "square of four.",
        "hint.twice.one_axis": "both height and width are doubled.",
        "hint.twice.channels": "height and width are axes 1 and 2; channels stay.",
        "hint.skips.first_first": "the way up begins where the way down ended: the last skip "
        "comes first.",
        "hint.skips.levels_only": "inside of a level, too, the last skip comes first.",
        "hint.widths.first_first": "the skips are used from the last to the first.",
        "hint.widths.of_the_level": "the last skip of each level on the way up is the first that "
        "was made there on the way down: it still has the finer level's channels.",
        "hint.widths.no_skips": "each block gets its map and a skip side by side: they add up.",
        "hint.draw.variance": "noise is multiplied by the standard deviation, the square root of "
        "the variance: exp(0.5 * log_variance).",
        "hint.draw.logarithm": "it is a logarithm: exp turns it into a variance.",
        "hint.draw.mean_only": "that is the most plausible latent; one is to be drawn.",
        "hint.kl.sign": "the logarithm is taken away: a narrow Gaussian is far from the normal.",
        "hint.kl.half": "one half of the sum.",
        "hint.kl.mean": "the sum over all numbers of a latent, not their mean.",
        "hint.kl.one": "the standard normal itself must be at distance 0: a 1 is missing.",
        "hint.scale.upside_down": "latents are multiplied by the scale: it has to be small where "
        "they are large.",
        "hint.scale.variance": "to have variance 1, divide by the standard deviation.",
        "hint.scale.per_channel": "one number for all channels: Stable Diffusion keeps how they "
        "compare.",
        "hint.add_noise.swapped": "did you swap sqrt(alpha_bar) and sqrt(1 - alpha_bar)?",
        "hint.add_noise.variance": "alpha_bar is a share of the variance; what multiplies the "
        "values is its square root.",
        "hint.add_noise.amount": "the two weights need not sum to 1, their squares do.",
        "hint.add_noise.signal": "the picture has to become fainter, too: it has a weight of its "
        "own.",
        "hint.snr.upside_down": "that is noise to signal: it should fall with the timestep.",
        "hint.snr.standard_deviation": "the ratio is one of variances, not of standard deviations.",
        "hint.many_steps.sums": "the shares that are left multiply: what is left of what was left.",
        "hint.many_steps.betas": "beta is what one step takes away; 1 - beta is what it leaves.",
        "hint.many_steps.late": "after step t, its own beta has been taken away, too.",
    },
}


@dataclass(frozen=True)
class Words:
    """The sentences of one language: `Words("en")("unsolved", name="snr")`."""

    language: str

    def __post_init__(self) -> None:
        if self.language not in TABLE:
            known = ", ".join(TABLE)
            raise ValueError(f"the course does not speak {self.language!r}; it speaks {known}")

    def __call__(self, key: str, **values: Any) -> str:
        return TABLE[self.language][key].format(**values)
