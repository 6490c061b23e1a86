"""A flow's samplers take the way that `diffusers` took, recorded by `parity.flow.write_golden`."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from diffusion.weights.folder import shipped
from parity import flow, samplers

GOLDEN = load_file(shipped("golden") / flow.GOLDEN)
CASES = list(flow.cases(*flow.RECORDED))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_trajectory_is_that_of_diffusers(case):
    calls = len(case.table().step)
    ours = samplers.ours(case, GOLDEN["z"], np.zeros((calls, *GOLDEN["z"].shape), np.float32))
    recorded = samplers.Trajectory(GOLDEN[f"{case}: timesteps"], GOLDEN[f"{case}: latents"])
    np.testing.assert_allclose(ours.timesteps, recorded.timesteps, rtol=flow.ROUNDED)
    row = samplers.compare_latents(str(case), ours, recorded)
    assert row.ok, row


def test_the_record_holds_every_case_and_no_other():
    recorded = {name.rpartition(":")[0] for name in GOLDEN} - {""}
    assert recorded == set(map(str, CASES))
