"""How long, how fast and on what a network is trained."""

from dataclasses import dataclass

KNOWN = {  # what an entry may be
    "dtype": ("float32", "bfloat16"),
    "products": ("default", "bfloat16", "float32"),
    "optimizer": ("adamw", "muon"),
}
ANY_NUMBER = ("workers",)  # settings that change no weight
LARGEST = 1e6
BOUNDS = {  # least and most
    "steps": (1, 10**9), "batch_size": (1, 2**20), "accumulate": (1, 2**20), "shards": (1, 2**20),
    "log_every": (1, 10**9), "picture_every": (1, 10**9), "checkpoint_every": (1, 10**9),
    "warmup": (0, 10**9), "seed": (0, 2**32 - 1), "weight_decay": (0, 1000),
}  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    steps: int
    batch_size: int
    learning_rate: float  # the highest, reached after warm-up; falls to a hundredth on a cosine
    warmup: int = 100  # steps, but no more than half of all
    weight_decay: float = 0.01
    clip: float = 1.0  # largest norm of the gradient
    optimizer: str = "adamw"  # or "muon"
    ema: float = 0.0  # how much of the average of the weights is kept each step; 0: no averaging
    seed: int = 0
    dtype: str = "float32"  # of networks and gradients: "bfloat16" is faster on accelerators
    products: str = "default"  # factors of matrices: "bfloat16" is faster on a CPU with AMX
    accumulate: int = 1  # parts of a batch that are looked at one after the other, in less memory
    shards: int = 1  # parts of a batch that are drawn apart; a multiple of the machines
    workers: int | None = None  # processes that draw; 0: a thread; None: as many as pay
    log_every: int = 20  # steps
    picture_every: int = 500  # steps between sample sheets
    checkpoint_every: int = 200  # steps

    def __post_init__(self) -> None:
        for name, (least, most) in BOUNDS.items():
            value = getattr(self, name)
            if isinstance(value, bool):
                raise ValueError(f"{name} is {value}; give a number")
            if not value >= least:
                raise ValueError(f"{name} is {value}; give {least} or more")
            if not value <= most:
                raise ValueError(f"{name} is {value}; give {most} at most")
        for name in ("learning_rate", "clip"):
            if not 0.0 < (value := getattr(self, name)) <= LARGEST:
                raise ValueError(f"{name} is {value}; give more than 0, and {LARGEST:g} at most")
        if not 0.0 <= self.ema < 1.0:
            raise ValueError(f"ema is {self.ema}; give a share from 0 to below 1")
        for name, known in KNOWN.items():
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} is {value!r}; choose one of {', '.join(known)}")
        for name in ("accumulate", "shards"):
            if self.batch_size % getattr(self, name):
                raise ValueError(
                    f"batch_size {self.batch_size} does not divide by {name} {getattr(self, name)}"
                )
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers is {self.workers}; give 0 or more")
