"""What a LoRA file may hold of a layer, and which change of its weight that is.

A weight counts as a matrix here, (out, in * height * width). Its change is a product of factors:

    LoRA    up @ down                     Hu et al. 2021, https://arxiv.org/abs/2106.09685
    LoHa    (a1 @ b1) * (a2 @ b2)         Hyeon-Woo et al. 2022, https://arxiv.org/abs/2108.06098
    LoKr    kron(w1, w2)                  Yeh et al. 2024, https://arxiv.org/abs/2309.14859
    full    the change itself; that of a norm, too

Of a convolution, each thin product may have a core (Tucker's form): sum over a and b of
left[out, a] core[a, b, height, width] right[b, in]. In a LoKr, w1 and w2 are whole, or thin
products. The names and the scale are those of LyCORIS and of what reads its files: alpha / rank,
once; where no factor is thin, there is no rank, and the scale is 1.

DoRA (Liu et al. 2024, https://arxiv.org/abs/2402.09353) then gives each row of the sum the length
that the file says; in some files each column, which is an input.
"""

import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import reduce
from itertools import product

import numpy as np

from diffusion.weights.stored import Shape

WHOLE, THIN = "oi->oi", "oa,ai->oi"
CORE, CORE_FIRST = "oa,abk,bi->oik", "ao,abk,bi->oik"  # LoRA's up stands upright
COMBINE: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "*": np.multiply,
    "kron": np.kron,
}


@dataclass(frozen=True)
class Factor:
    """A matrix, as the product of tensors."""

    roles: tuple[str, ...]
    product: str  # what is summed over; the last axis of a tensor takes all that are left

    @property
    def axes(self) -> list[str]:
        return self.product.split("->")[0].split(",")

    def shape(self, shapes: Mapping[str, Shape]) -> Shape | None:
        """Rows and columns; None where the tensors do not fit each other."""
        sizes: dict[str, int] = {}
        for role, axes in zip(self.roles, self.axes, strict=True):
            sides = _sides(shapes[role], len(axes))
            if len(sides) != len(axes):
                return None
            for axis, side in zip(axes, sides, strict=True):
                if side == 0 or sizes.setdefault(axis, side) != side:
                    return None
        rows, *columns = (sizes[axis] for axis in self.product.split("->")[1])
        return rows, math.prod(columns)

    def matrix(self, tensors: Mapping[str, np.ndarray], scale: np.float32) -> np.ndarray:
        """float32 (rows, columns), scaled."""
        first, *others = (
            tensors[role].astype(np.float32).reshape(_sides(tensors[role].shape, len(axes)))
            for role, axes in zip(self.roles, self.axes, strict=True)
        )
        if self.product == THIN:
            return (scale * first) @ others[0]
        found: np.ndarray = np.einsum(self.product, scale * first, *others, optimize=True)
        return found.reshape(len(found), -1)


def _sides(shape: Shape, axes: int) -> Shape:
    """The shape with so many axes: the last takes all that are left."""
    return (*shape[: axes - 1], math.prod(shape[axes - 1 :]))


Form = tuple[Factor, ...]  # one of each choice


@dataclass(frozen=True)
class Kind:
    """How a file keeps the change of a layer: a choice of forms for each of its factors."""

    name: str
    choices: tuple[tuple[Factor, ...], ...]
    combine: str = "*"


def _thin(left: str, right: str, core: str, with_core: str = CORE_FIRST) -> tuple[Factor, Factor]:
    return Factor((left, right), THIN), Factor((left, core, right), with_core)


KINDS = (
    Kind("LoRA", (_thin("up", "down", "mid", CORE),)),
    Kind("LoHa", tuple(_thin(f"hada_w{i}_a", f"hada_w{i}_b", f"hada_t{i}") for i in (1, 2))),
    Kind(
        "LoKr",
        (
            (Factor(("lokr_w1",), WHOLE), Factor(("lokr_w1_a", "lokr_w1_b"), THIN)),
            (Factor(("lokr_w2",), WHOLE), *_thin("lokr_w2_a", "lokr_w2_b", "lokr_t2")),
        ),
        "kron",
    ),
    Kind("full", ((Factor(("diff",), WHOLE),),)),
    Kind("norm", ((Factor(("w_norm",), WHOLE),),)),
)
BIASES = frozenset(("diff_b", "b_norm"))
FORMS = [(kind, form) for kind in KINDS for form in product(*kind.choices)]


def roles(form: Form) -> Set[str]:
    return {role for factor in form for role in factor.roles}


def recognise(given: Set[str]) -> tuple[Kind, Form]:
    """The kind and the form that have these roles; if there is none, the nearest."""

    def distance(known: tuple[Kind, Form]) -> tuple[int, int]:
        its = roles(known[1])
        return -len(its & given), len(its - given)

    return min(FORMS, key=distance)


def rank_role(form: Form) -> str | None:
    """Which tensor's first axis is the rank; None where no factor is thin."""
    thin = [factor for factor in form if len(factor.roles) > 1]
    return thin[-1].roles[-1] if thin else None


def fits(kind: Kind, form: Form, shapes: Mapping[str, Shape], layer: Shape) -> bool:
    """Do tensors of these shapes make a change of a layer? A 1x1 convolution is a Linear layer."""
    windows = ((1, 1), layer[2:])
    for role in roles(form):
        if len(shapes[role]) > 2 and shapes[role][2:] not in windows:
            return False
    found = [factor.shape(shapes) for factor in form]
    first, last = found[0], found[-1]
    if first is None or last is None:
        return False
    if kind.combine == "kron":
        first = last = first[0] * last[0], first[1] * last[1]
    return first == last == _sides(layer, 2)


@dataclass(frozen=True, eq=False)
class Change:
    """What a file adds to one parameter, in the precision of the file."""

    kind: Kind
    form: Form
    tensors: Mapping[str, np.ndarray]  # by their roles
    scale: float = 1.0  # alpha / rank
    lengths: np.ndarray | None = None  # of the rows of the sum, (out, 1), or columns, (1, in)

    def added(self, value: np.ndarray, strength: float) -> np.ndarray:
        """What is to be added to a weight: float32, in its shape.

        A DoRA W' is mixed in, strength * (W' - W), so that strength 0 changes nothing.
        """
        scale = np.float32(self.scale if self.lengths is not None else strength * self.scale)
        scales = scale, np.float32(1.0)
        matrices = [
            factor.matrix(self.tensors, one) for factor, one in zip(self.form, scales, strict=False)
        ]
        total = reduce(COMBINE[self.kind.combine], matrices).reshape(value.shape)
        if self.lengths is None:
            return total
        total += value
        return np.float32(strength) * (with_lengths(total, self.lengths) - value)


def with_lengths(weight: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Rows or columns of a weight stretched to these lengths; what is zero stays so."""
    kept = int(lengths.shape[1] > 1)
    others = tuple(axis for axis in range(weight.ndim) if axis != kept)
    own = np.sqrt(np.square(weight).sum(axis=others, keepdims=True))
    wanted = lengths.astype(np.float32).reshape(own.shape)
    return weight * np.where(own == 0.0, np.float32(1.0), wanted / np.where(own == 0.0, 1, own))
