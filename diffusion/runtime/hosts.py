"""Several machines that train as one: each runs the same command, and one of them writes."""

import re

import jax
from jax.experimental import multihost_utils

FORM = re.compile(r"(?P<address>\S+:\d+),(?P<count>\d+),(?P<index>\d+)")


def join(told: str) -> None:
    """Meet the other machines; to be called before anything is computed.

    Args:
        told: "auto", where the cluster says what is needed (TPU pods, Slurm, MPI); else
            "HOST:PORT,COUNT,INDEX": where the first machine listens, how many there are, and which
            of them this is, from 0.

    Raises ValueError where that makes no sense.
    """
    if told == "auto":
        jax.distributed.initialize()
        return
    found = FORM.fullmatch(told)
    if found is None or int(found["index"]) >= int(found["count"]):
        raise ValueError(
            f"hosts is {told!r}; give auto, or HOST:PORT,COUNT,INDEX with INDEX below COUNT, such "
            "as 10.0.0.1:9000,2,0"
        )
    jax.distributed.initialize(found["address"], int(found["count"]), int(found["index"]))


def writes() -> bool:
    """Is this the machine that writes files?"""
    return jax.process_index() == 0


def wait(reason: str) -> None:
    """Until all machines are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(reason)
