"""What goes through the network in the passes of a batch, and which keyframes it reads."""

from __future__ import annotations

import pytest
import torch
from comfyui_stem.nodes.methods.tokenflow.passes import batch_passes
from comfyui_stem.stem_kernels.correspondence import batch_slices, choose_keyframes, propagation_plan
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(("weights", "most"), [("reference", 2), ("surrounding", 3)])
@given(frames=st.integers(1, 30), size=st.integers(1, 9), reuse=st.booleans(), seed=st.integers(0, 99))
def test_the_plan_of_a_batch_names_the_few_keyframes_that_it_reads(weights, most, frames, size, reuse, seed):
    batches = batch_slices(frames, size)
    keyframes = choose_keyframes(batches, "random", torch.Generator().manual_seed(seed))
    plan = propagation_plan(batches, keyframes, weights)
    found = batch_passes(batches, keyframes, plan, reuse)
    edited = []
    for number, batch in enumerate(found):
        read = torch.tensor(batch.keyframes, dtype=torch.int64)
        assert torch.equal(read[batch.plan.first], plan.first[batch.edit])
        assert torch.equal(read[batch.plan.second], plan.second[batch.edit])
        assert torch.equal(batch.plan.weight, plan.weight[batch.edit])
        assert batch.plan.alone == plan.of(batch.edit).alone
        assert len(read) <= most
        assert set(batch.keyframes) == {*plan.first[batch.edit].tolist(), *plan.second[batch.edit].tolist()}
        if batch.key is not None:
            assert batch.keyframes[batch.key.number] == number
            assert int(batch.edit[batch.key.position]) == int(keyframes[number])
            assert sorted([*batch.source.tolist(), int(keyframes[number])]) == batch.edit.tolist()
        edited += batch.edit.tolist() + ([] if batch.reused is None else [batch.reused[0]])
    assert sorted(edited) == list(range(frames))
