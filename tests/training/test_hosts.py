"""Two machines train as one. As a script, this file is one of them."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from diffusion.runtime import hosts
from diffusion.training import loop
from diffusion.training.loop import train
from tests.training.test_loop import CONFIG, Line, log_of

REPOSITORY = Path(loop.__file__).parents[2]
SHARED = dataclasses.replace(CONFIG, shards=2)


@pytest.mark.parametrize("told", ["", "two", "here:1,2", "here:1,2,2", "here,2,0", "here:1,0,0"])
def test_what_makes_no_sense_is_named(told):
    with pytest.raises(ValueError, match="give auto, or HOST:PORT,COUNT,INDEX"):
        hosts.join(told)


def test_the_cluster_may_say(monkeypatch):
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *told: asked.append(told))
    hosts.join("auto")
    hosts.join("10.0.0.1:9000,4,3")
    assert asked == [(), ("10.0.0.1:9000", 4, 3)]


def test_alone_nobody_waits():
    assert hosts.writes()
    hosts.wait("nothing")


def test_each_machine_draws_a_shard(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    with pytest.raises(ValueError, match=r"3 machines draw .* there are 2: --set shards=3"):
        loop._shardings(SHARED)


def run(folder: Path, told: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, __file__, str(folder), told],
        env=os.environ
        | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_two_machines_learn_what_one_learns(tmp_path):
    expected = train(Line(), SHARED, tmp_path / "one")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = f"localhost:{free.getsockname()[1]}"
    both = [run(tmp_path / "two", f"{place},2,{i}") for i in range(2)]
    said = [one.communicate()[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    with np.load(tmp_path / "two/params.npz") as found:
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)
    reports = [json.loads((tmp_path / f"two/{i}.json").read_text()) for i in range(2)]
    assert reports[0]["drew"] != reports[1]["drew"]  # each its own half
    assert [report["size"] for report in reports] == [4, 4]
    assert [report["wrote"] for report in reports] == [True, False]
    for one, other in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def machine(folder: Path, told: str) -> None:
    hosts.join(told)
    sizes, drew = [], []

    class Watched(Line):
        def batch(self, rng, size):
            sizes.append(size)
            found = super().batch(rng, size)
            drew.append(float(found["x"].sum()))
            return found

    wrote = []
    flush = loop.Log.flush
    loop.Log.flush = lambda log: wrote.append(hosts.writes()) or flush(log)
    params = train(Watched(), SHARED, folder)
    if hosts.writes():
        np.savez(folder / "params.npz", **params)
    report = {"size": sizes[0], "drew": drew[0], "wrote": any(wrote)}
    (folder / f"{jax.process_index()}.json").write_text(json.dumps(report))
    hosts.wait("the end")


if __name__ == "__main__":
    machine(Path(sys.argv[1]), sys.argv[2])
