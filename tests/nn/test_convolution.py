"""Convolutions of one cell equal torch's own, whichever way they take."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fsslib.nn.convolution import Conv2d, pointwise


@pytest.mark.parametrize("shape", [(2, 128, 7, 9), (1, 256, 1, 1), (2, 3, 5, 5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_of_one_cell_equals_torchs_with_gradients(shape, layout):
    features = torch.randn(shape).contiguous(memory_format=layout).requires_grad_()
    weight, bias = torch.randn(128, shape[1], 1, 1).requires_grad_(), torch.randn(128).requires_grad_()
    found, expected = pointwise(features, weight, bias), F.conv2d(features, weight, bias)
    leaves = features, weight, bias
    grads = (torch.autograd.grad((out**2).sum(), leaves) for out in (found, expected))
    for value, wanted in [(found, expected), *zip(*grads)]:
        torch.testing.assert_close(value, wanted, rtol=0, atol=1e-5 * float(wanted.detach().abs().max()))


@pytest.mark.parametrize("how", [
    {}, {"stride": 2}, {"padding": 1}, {"groups": 2}, {"kernel_size": 3, "padding": 1}, {"padding": "same"},
    {"padding": 1, "padding_mode": "reflect"},
], ids=str)  # fmt: skip
def test_the_layer_is_torchs_layer(how):
    how = {"kernel_size": 1} | how
    theirs, ours = nn.Conv2d(128, 128, **how), Conv2d(128, 128, **how)
    ours.load_state_dict(theirs.state_dict())
    features = torch.randn(2, 128, 5, 6)
    torch.testing.assert_close(ours(features), theirs(features), rtol=1e-5, atol=1e-5)
    assert repr(ours) == repr(theirs)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(features).dtype == torch.bfloat16
