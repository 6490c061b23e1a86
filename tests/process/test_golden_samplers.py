"""Every sampler takes the way that `diffusers` took, recorded by `parity.samplers.write_golden`."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from diffusion.weights.folder import shipped
from parity import samplers

GOLDEN = load_file(shipped("golden") / samplers.GOLDEN)
CASES = list(samplers.cases(*samplers.RECORDED))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_trajectory_is_that_of_diffusers(case):
    ours = samplers.ours(case, GOLDEN["z"], GOLDEN["noise"])
    recorded = samplers.Trajectory(GOLDEN[f"{case}: timesteps"], GOLDEN[f"{case}: latents"])
    np.testing.assert_array_equal(ours.timesteps, recorded.timesteps)
    row = samplers.compare_latents(str(case), ours, recorded)
    assert row.ok, row


def test_the_record_holds_every_case_and_no_other():
    recorded = {name.rpartition(":")[0] for name in GOLDEN} - {""}
    assert recorded == set(map(str, CASES))
