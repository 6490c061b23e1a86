"""What is said to a usual mistake, in English: hint.EXERCISE.MISTAKE."""

from collections.abc import Mapping

HINTS: Mapping[str, str] = {
    "hint.ledger.pixels": "the canvas is a latent: 16x16 positions of 4 numbers, no pixels.",
    "hint.ledger.prediction": "the U-Net answers for every number of the canvas; pixels come "
    "once, at the end.",
    "hint.ledger.words": "the context has a row for each of 77 tokens, not one for the text.",
    "hint.ledger.channels_first": "everything here has its channels last: (B, height, width, "
    "channels).",
    "hint.count.arrays": "that counts arrays; each holds many numbers (`.size`).",
    "hint.count.kernels": "biases and scales are parameters, too.",
    "hint.count.first_axis": "len() is the first axis alone; `.size` is all of it.",
    "hint.work.unguided": "with guidance, each glance looks twice: with the words and without.",
    "hint.work.batch": "every picture has a canvas of its own.",
    "hint.merge_pair.first_only": "the pair is glued wherever it occurs, not only once.",
    "hint.merge_pair.twice_used": "what was glued to the piece before is used up.",
    "hint.merge_pair.anywhere": 'a piece counts as a whole: "lo" before "u" is not the pair '
    '("o", "u").',
    "hint.apply_merges.one_round": "go on until no known pair is left.",
    "hint.apply_merges.first_found": "not from the left: the pair that was learned first (the "
    "lowest rank) comes first.",
    "hint.apply_merges.last_learned": "the lowest rank was learned first, and comes first.",
    "hint.row.cut_end": "a long text is cut so that the end mark still has a place.",
    "hint.row.zeros": "here rows are filled up with the end mark itself.",
    "hint.row.no_begin": "a row begins with the mark of the beginning.",
    "hint.perfect_eye.nearest": "that names one picture; the mean over all, each with its "
    "share, is wanted.",
    "hint.perfect_eye.faint": "under noise a picture is fainter: compare z with "
    "sqrt(alpha_bar) times the picture.",
    "hint.perfect_eye.always": "the more noise there is, the less a distance means: divide by "
    "2 (1 - alpha_bar).",
    "hint.perfect_eye.signal": "the variance of the noise is 1 - alpha_bar.",
    "hint.perfect_eye.away": "a large distance makes a picture improbable: a minus is missing.",
    "hint.perfect_eye.two": "the exponent is the squared distance divided by 2 (1 - "
    "alpha_bar): the 2 is missing.",
    "hint.perfect_eye.mean_distance": "the squared distance is a sum over height, width and "
    "channels, not a mean.",
    "hint.perfect_eye.axis": "the shares of one canvas sum to 1 over the pictures: softmax "
    "along axis 1.",
    "hint.perfect_eye.unsquared": "the distance is squared in the exponent of a Gaussian.",
    "hint.noise_of_v.picture": "that is the picture, x0; the noise is wanted.",
    "hint.noise_of_v.minus": "both terms are added: put the equations of z and v into it and see.",
    "hint.noise_of_v.sign": "both terms come with a plus.",
    "hint.noise_of_v.only_v": "v holds only a part of the noise; the rest is in z.",
    "hint.listen.one_head": "cut queries, keys and values into heads: each has softmax and "
    "width of its own.",
    "hint.listen.no_out": "what the heads bring passes one more matrix, layers['out'].",
    "hint.listen.keys": "mix the values, not the keys.",
    "hint.listen.whole_width": "divide by the square root of a head's width, not of all heads "
    "together.",
    "hint.listen.unscaled": "divide the products by the square root of a head's width.",
    "hint.listen.positions": "each position shares out its attention over the tokens: the "
    "softmax goes along their axis.",
    "hint.listen.interleaved": "a head is a block of neighbouring columns: reshape to "
    "(n, heads, width), not to (n, width, heads).",
    "hint.heat.mean_of_tokens": "a word of three tokens is looked at through all three: add "
    "them up.",
    "hint.heat.one_head": "take the mean over heads.",
    "hint.heat.sum_of_heads": "over heads the mean is taken, not the sum: a map should not "
    "grow with their number.",
    "hint.heat.first_token": "a word may have several tokens; all of its places count.",
    "hint.changes.everything": "queries come from the picture, and nobody has painted yet.",
    "hint.changes.keys_only": "values are made from the words, too.",
    "hint.changes.values_only": "keys are made from the words, too.",
    "hint.guide.exchanged": "that pushes away from the words: exchange the two.",
    "hint.guide.on_top": "begin without the words, so that 1 means: just follow them.",
    "hint.guide.difference": "the difference is added to something.",
    "hint.guide.loud": "at 0 nothing of the words should be left, but a picture still should.",
    "hint.ddim.same_noise_level": "afterwards there is less noise: sqrt(1 - after).",
    "hint.ddim.unscaled": "z less its picture is noise times sqrt(1 - now): divide by that.",
    "hint.ddim.bright": "in z the picture is fainter: it has sqrt(now) in front.",
    "hint.ddim.finished": "that jumps to the end; only one step is taken.",
    "hint.ddim.exchanged": "the noise is taken out at `now`, and both are mixed at `after`.",
    "hint.timesteps.no_offset": "Stable Diffusion's grid begins at 1, not at 0.",
    "hint.timesteps.ascending": "painting goes from noisy to clean.",
    "hint.timesteps.to_the_end": "the spacing is the whole number 1000 // steps, counted from "
    "the clean end.",
    "hint.timesteps.one_more": "that is one timestep too many.",
    "hint.timesteps.up_to_1000": "there are `steps` of them, also where 1000 is no multiple: "
    "count them, and do not fill the range.",
    "hint.loss.epsilon": "this model is asked for the velocity, not for the noise.",
    "hint.loss.picture": "this model is asked for the velocity, not for the picture.",
    "hint.loss.canvas": "that is the canvas, z; the velocity has a minus and the weights "
    "exchanged.",
    "hint.loss.sign": "the noise comes with a plus, the picture with a minus.",
    "hint.loss.plus": "the picture comes with a minus in v.",
    "hint.loss.sum": "the mean of all squares, so that the loss does not depend on the size "
    "of the batch.",
    "hint.dropout.reversed": "a draw below the share drops the words; others keep them.",
    "hint.dropout.shorter": "the picture stays in the batch; only its words are dropped.",
    "hint.dropout.half": "the share says how many lose their words.",
    "hint.ema.exchanged": "the average moves slowly: decay is what is kept of it.",
    "hint.ema.sum": "the two parts sum to 1.",
    "hint.ema.newest": "that forgets everything before.",
    "hint.weight.epsilon": "that is for the noise; the squared error of v is SNR + 1 times "
    "that of the picture.",
    "hint.weight.unclipped": "the ratio is kept between 1 and 5 first.",
    "hint.weight.clipped_above": "at least 1, too: `jnp.clip` has two bounds.",
    "hint.weight.clipped_below": "at most 5, too: `jnp.clip` has two bounds.",
    "hint.weight.not_divided": "that is the weight of an error of the picture; the error of v "
    "is SNR + 1 times as large.",
    "hint.axes.reversed": "height and width would be exchanged: they stay in this order.",
    "hint.axes.unchanged": "PyTorch keeps (out, in, height, width).",
    "hint.axes.in_out": "out comes before in.",
    "hint.axes.reshaped": "reshape only counts anew; axes have to be transposed.",
    "hint.names.leaf": "PyTorch calls a kernel and a scale `weight`.",
    "hint.names.from_one": "their numbers begin at 0.",
    "hint.names.self_attention": "`attn1` is the self-attention; the cross-attention is the "
    "second.",
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
    "hint.causal.axis": "rows must sum to 1: the softmax goes along the last axis.",
    "hint.causal.strict": "a token may look at itself, or the first has nothing to look at.",
    "hint.cosine.product": "the product depends on how long the vectors are; divide by both "
    "lengths.",
    "hint.cosine.squares": "a length is the square root of the sum of squares.",
    "hint.residual.no_shortcut": "what came in has to be added at the end: the block only "
    "learns a change.",
    "hint.residual.no_time": "time is missing: the block does not know how noisy it is.",
    "hint.residual.late_time": "time belongs between the two convolutions, before the second "
    "normalisation.",
    "hint.residual.raw_time": "the time vector passes a silu before its linear layer.",
    "hint.residual.one_norm": "there are two normalisations, `norm1` and `norm2`, each with "
    "numbers of its own.",
    "hint.residual.norms": "norm1 stands before conv1, and norm2 before conv2.",
    "hint.residual.activation_first": "normalise first, then the silu.",
    "hint.residual.convolution_first": "normalisation and silu come before each convolution, "
    "not after it.",
    "hint.residual.no_activation": "a silu stands between each normalisation and its convolution.",
    "hint.sinusoids.sine_first": "Stable Diffusion puts the cosines first.",
    "hint.sinusoids.last_frequency": "the exponents are i / half, not i / (half - 1): the last "
    "frequency is not quite 1/10000.",
    "hint.sinusoids.upside_down": "frequencies fall, from 1 to nearly 1/10000; yours rise.",
    "hint.sinusoids.interleaved": "first all cosines, then all sines; yours take turns.",
    "hint.sinusoids.whole_width": "the exponents are i / half: with i / width, the "
    "frequencies end at 1/100.",
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
    "hint.skips.flat": "one list for each level of the way up.",
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
    "hint.kl.batch": "one number for each picture: the first axis stays.",
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
    "hint.add_noise.signal": "the picture has to become fainter, too: it has a weight of its own.",
    "hint.add_noise.minus": "noise is added: its weight is positive.",
    "hint.snr.upside_down": "that is noise to signal: it should fall with the timestep.",
    "hint.snr.standard_deviation": "the ratio is one of variances, not of standard deviations.",
    "hint.many_steps.sums": "the shares that are left multiply: what is left of what was left.",
    "hint.many_steps.betas": "beta is what one step takes away; 1 - beta is what it leaves.",
    "hint.many_steps.late": "after step t, its own beta has been taken away, too.",
    "hint.many_steps.roots": "the share of the variance is asked for; roots of it belong to "
    "the values.",
    "hint.many_steps.single": "that is what step t alone leaves; all the steps before it took "
    "something, too.",
    "hint.learn.once": "a word that was seen ten times counts ten times.",
    "hint.learn.counted_once": "after each merge the words are made of other pieces: count "
    "their pairs anew.",
    "hint.learn.ties": "of equally frequent pairs the first in alphabetical order wins.",
    "hint.convolve.flipped": "the window is not turned around: kernel[0, 0] meets the position "
    "above and to the left.",
    "hint.convolve.turned": "the kernel's first axis goes down, its second to the right.",
    "hint.convolve.no_edge": "there is a frame of zeros, so that the window can stand at the edge.",
    "hint.convolve.no_stride": "with a stride of 2 the window stops at every second position.",
    "hint.convolve.late": "the first stop is position 0.",
    "hint.second_order.forgets": "that believes x0 for the whole step; the belief before is "
    "not used.",
    "hint.second_order.backwards": "the line goes on: away from the belief before, not back to it.",
    "hint.second_order.upside_down": "a long step goes further along the line: h is above, the "
    "step before below.",
    "hint.second_order.whole": "only to the middle of the step: a 2 is missing.",
    "hint.second_order.variances": "lambda is the logarithm of a ratio of roots: half of that "
    "of the shares.",
    "hint.two_in_one.arrived": "right where no noise is left at the end; elsewhere the "
    "student's own step keeps some.",
    "hint.two_in_one.undivided": "that is x0 times its weight in the step: divide by the weight.",
    "hint.two_in_one.all_noise": "the step keeps a part of the noise, not all: r is below 1.",
    "hint.two_in_one.kept_once": "r stands in the weight of x0, too: z holds a part of it.",
    "hint.two_in_one.end_alone": "z holds a part of x0, too: take r times the root of `now` off.",
    "hint.two_in_one.exchanged": "`now` and `after` are exchanged: the student begins at z.",
    "hint.two_in_one.no_brackets": "brackets are missing: all of the difference is divided.",
    "hint.two_in_one.upside_down": "r is upside down: there is less noise after the step.",
    "hint.two_in_one.half_a_root": "the root in r is that of the whole quotient.",
    "hint.two_in_one.no_roots": "alpha_bar and 1 - alpha_bar are shares of variance: take roots.",
    "hint.two_in_one.variance": "1 - alpha_bar is a variance; noise has its root as a factor.",
    "hint.two_in_one.shares": "the weight of x0, too, has the roots of both alpha_bar.",
    "hint.two_in_one.begins_at_noise": "right from pure noise, where `now` is 0; here z still "
    "holds a part of the picture.",
    "hint.sides.one_edge": "without padding the window cannot stand at either edge: two rows "
    "are lost, one above and one below.",
    "hint.sides.window": "a window of 3 reaches one row beyond its middle, so two are lost, "
    "not three.",
    "hint.sides.always": 'with "same" a frame of zeros is put around the map: a convolution '
    "loses nothing.",
    "hint.sides.up": "what is left over at the edge is dropped by the pooling: an odd side is "
    "rounded down.",
    "hint.sides.fraction": "a side is a whole number: `//`.",
    "hint.sides.last": "the side after each layer is asked for, not the last alone.",
    "hint.change.textbook": "that is the textbook's order, and optax's: Keras adds eps before "
    "the square is corrected.",
    "hint.change.uncorrected": "both averages begin at zero, and nothing corrects them yet.",
    "hint.change.mean_only": "the mean is corrected, but not the square.",
    "hint.change.no_root": "of the square's correction the root is taken, as of the square.",
    "hint.change.inside": "eps is added to the root, not under it.",
    "hint.change.unsquared": "divide by the root of the square.",
    "hint.draws.around_zero": "noise moves a draw away from the mean: take the mean off the "
    "codes before they are mixed.",
    "hint.draws.no_mean": "the mean itself is missing at the end.",
    "hint.draws.sum": "a sum over n codes has n times their variance: divide by the root of n.",
    "hint.draws.unrooted": "the covariance is divided by n, so what is drawn by its root.",
    "hint.draws.of_draws": "n is the number of codes, not of draws.",
    "hint.draws.one_mean": "each number of a code has a mean of its own: over the codes alone.",
    "hint.cut.rows": "that cuts rows into pieces, not the canvas into squares: bring the two "
    "axes of one square beside each other before you reshape.",
    "hint.cut.columns": "that goes down the canvas first; the first tokens are the first row "
    "of squares.",
    "hint.cut.channels": "inside of a square, the channels of one position stay together: "
    "they come last.",
    "hint.cut.turned": "each square is turned: inside of it, too, the row comes before the column.",
    "hint.cut.scattered": "a token is a square of neighbours; yours has positions from all "
    "over the canvas.",
    "hint.block.no_one": "multiply by 1 + scale: where the scale is 0, the token stays.",
    "hint.block.exchanged": "of each three vectors the first is added, the second multiplies.",
    "hint.block.gate_first": "the order is shift, scale, gate; yours begins with the gate.",
    "hint.block.same_three": "the last three of the six vectors are those of `think`.",
    "hint.block.no_gate": "what `look` and `think` bring passes a gate before it is added.",
    "hint.block.gated_words": "what the words bring is added as it is: here it has no gate.",
    "hint.block.normed_words": "`listen` is given h as it is, without a norm.",
    "hint.block.no_norm": "`norm` comes first, then scale and shift, then `look` or `think`.",
    "hint.block.no_stream": "each of the three is added to h; yours puts it in h's place.",
    "hint.block.parallel": "one after the other: `listen` hears what `look` has changed, and "
    "`think` gets what both have.",
    "hint.looked_far.numbers": "token 8 stands below token 0 where a row has 8: from the "
    "number find row and column.",
    "hint.looked_far.squares": "that is the squared distance; take the root.",
    "hint.looked_far.city": "that walks along rows and columns; the straight line is wanted "
    "(`jnp.hypot`).",
    "hint.looked_far.sum": "over the tokens that look, take the mean.",
    "hint.looked_far.mean": "the weights of one token already sum to 1: over those looked at, "
    "add up.",
    "hint.looked_far.one": "one number for each head.",
    "hint.ends.sign": "v points from the picture to the noise: to the picture it goes back.",
    "hint.ends.whole": "from picture to noise it is one whole v, but z is on the way: s of it "
    "is behind z, 1 - s is ahead.",
    "hint.ends.shares": "at s = 1 the canvas is the noise, and the picture is a whole v away.",
    "hint.ends.exchanged": "these are the two, but exchanged: v points to the noise.",
    "hint.flow_loss.direction": "here v points to the noise: noise less picture.",
    "hint.flow_loss.noise": "the velocity is asked for, not the noise.",
    "hint.flow_loss.turned": "at t = 1000 there is only noise; at yours, only the picture.",
    "hint.flow_loss.curve": "the weights are 1 - s and s themselves, no roots: the path is a "
    "straight line.",
    "hint.flow_loss.told_share": "the network is told t, up to 1000; the weights are made of "
    "t / 1000.",
    "hint.flow_loss.sum": "the mean of all squares, so that the loss does not depend on the "
    "size of the batch.",
    "hint.any_step.along_v": "that is right for a flow only: elsewhere signal and spread do "
    "not change by the same amount. Find the noise, and mix anew.",
    "hint.any_step.unscaled": "z less its picture is spread times the noise: divide by it.",
    "hint.any_step.bright": "in z the picture has the weight signal.",
    "hint.any_step.canvas": "take the noise out of the canvas first.",
    "hint.any_step.exchanged": "the noise is taken out at the old levels, and both are mixed "
    "at the new ones.",
    "hint.any_step.finished": "that jumps to the end; only one step is taken.",
    "hint.glasses.naked": "the squares of the two new weights have to sum to 1, not the weights.",
    "hint.glasses.squares": "a canvas of variance 4 is divided by 2: take the root.",
    "hint.glasses.noise": "alpha_bar is the share of the picture.",
    "hint.glasses.root": "alpha_bar is the square of the picture's weight.",
    "hint.glasses.upside_down": "the canvas is multiplied by the factor: where its variance is "
    "below 1, it has to grow.",
    "hint.mixture.noise_apart": "the noise is added to the logits, and the temperature divides "
    "both.",
    "hint.mixture.multiplied": "divide by the temperature: the colder, the clearer the choice.",
    "hint.mixture.away": "the nearest code is the likeliest: the logits are minus the squared "
    "distances.",
    "hint.mixture.unsquared": "the distance is squared.",
    "hint.mixture.certain": "without noise nothing is drawn: add it to the logits.",
    "hint.mixture.axis": "each latent shares itself out over the codes: softmax along the last "
    "axis.",
    "hint.mixture.one": "that is one code each, and lets no gradient through: mix them by a "
    "softmax.",
    "hint.mixture.shares": "these are the shares; mix the codes by them.",
    "hint.mixture.mean": "the squared distance is a sum over the d numbers, not a mean.",
    "hint.revive.living": "it is the used codes that stay, and the others that are exchanged.",
    "hint.revive.all": "a code that is nearest to any latent stays.",
    "hint.revive.in_turn": "a dead code takes the fresh one of its own number.",
    "hint.revive.farthest": "a code is used if it is the nearest: argmin.",
    "hint.revive.removed": "there are as many codes afterwards: dead ones are exchanged, not "
    "taken out.",
    "hint.fill.surest": "it is the least sure that are hidden again.",
    "hint.fill.known": "what was laid before stays: only places that were masked may be hidden "
    "again.",
    "hint.fill.overwritten": "what was laid before stays: a code is laid only where there was "
    "a mask.",
    "hint.fill.raw": "logits of two places cannot be compared: make them log probabilities first.",
    "hint.fill.certain": "add the doubts, or the order is the same in every painting.",
    "hint.fill.peak": "how sure it is of what was drawn, not of the likeliest code.",
    "hint.fill.probability": "the doubts are added to the logarithm of the probability.",
    "hint.fill.too_many": "`left` is how many masks are left, not how many codes are laid.",
    "hint.across_frames.reshaped": "a reshape only counts anew: these are neighbouring "
    "positions of one frame. The axis of the frames has to be moved beside the channels first.",
    "hint.across_frames.reshaped_back": "the way there is right. Back, the axis of the frames "
    "has to be moved, too, before the reshape.",
    "hint.across_frames.one_film": "that joins all films of the batch to one: a film has "
    "`frames` frames, and the next film follows.",
    "hint.across_frames.films_fastest": "in the batch all frames of the first film come "
    "first: (films, frames), not (frames, films).",
    "hint.across_frames.positions": "these are sequences of positions, one for each frame; "
    "wanted are sequences of frames, one for each position.",
    "hint.across_frames.exchanged": "height comes before width, on the way back, too.",
    "hint.look.no_place": "without its place a frame does not know whether another comes "
    "before it or after it.",
    "hint.look.place_first": "the place is added after the norm, which would change it.",
    "hint.look.place_stays": "the place goes into queries, keys and values, not into what goes on.",
    "hint.look.placeless_values": "the values are made from the norm with the place, too.",
    "hint.look.no_norm": "normalise x first.",
    "hint.look.no_shortcut": "what is heard is added to x.",
    "hint.look.unscaled": "divide the products by the square root of the width.",
    "hint.look.width": "by the square root of the width, not by the width.",
    "hint.look.axis": "each frame shares out its attention over the frames that it looks at: "
    "the softmax goes along the last axis.",
    "hint.look.positions": "that looks at other positions; the frames of a position are the "
    "middle axis.",
    "hint.slerp.straight": "that is the straight mix, which is weaker than noise.",
    "hint.slerp.exchanged": "at share 0 it is all `one`, at share 1 all `other`.",
    "hint.slerp.rescaled": "a straight mix brought back to its length goes along the arc "
    "unevenly; the weights are sines.",
    "hint.slerp.right_angle": "the angle is that between these two; only on average is it a "
    "right one.",
    "hint.slerp.undivided": "divide by the sine of the whole angle.",
    "hint.slerp.product": "the cosine is the product divided by both lengths.",
    "hint.slerp.each_alone": "one angle for the whole canvas: sum over all of its axes.",
}
