"""What a method costs is counted as one would by hand, and does not depend on how often it is counted."""

import pytest
import torch
from torch import nn

from fsslib import EpisodeSampler, Protocol, build_model, load_dataset
from fsslib.analysis import costs
from fsslib.errors import ModelError


@pytest.fixture(scope="module")
def episode():
    data = load_dataset("shapes", split="test", size=33, pool=40)
    return EpisodeSampler(data, Protocol(input_size=33), shot=2).batch(0, 1)


class Layer(nn.Module):
    """Called like a method, with anything that has `query_images`."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, episode):
        return self.layer(episode.query_images)


def test_convolutions_are_counted_as_by_hand(episode):
    conv = Layer(nn.Conv2d(3, 4, 5, stride=2, padding=2))
    assert costs.macs(conv, episode).total == 5 * 5 * 3 * 4 * 17 * 17
    grouped = Layer(nn.Conv2d(3, 6, 3, groups=3))
    assert costs.macs(grouped, episode).total == 3 * 3 * 6 * 31 * 31


def test_matrix_products_are_counted_and_the_rest_is_named(episode):
    class Product(nn.Module):
        def forward(self, episode):
            rows = episode.query_images[:, 0]
            return (rows @ rows.mT).softmax(-1).view(-1)

    found = costs.macs(Product(), episode)
    assert found.by_operator == {"bmm": 33**3}
    assert found.uncounted == {"_softmax": 33 * 33}, "views and selections compute nothing"


@pytest.mark.parametrize("name", ["panet", "sdaanet", "asgnet", "hdmnet"])
def test_all_methods_can_be_counted_with_any_number_of_shots(name, episode):
    options = {} if name == "panet" else {"width": 32}
    net = build_model(name, backbone="tiny", shots=2, **options).train()
    net.backbone.eval()
    modes = [module.training for module in net.modules()]
    one, two = (costs.macs(net, episode.shots(k)) for k in (1, 2))
    assert 0 < one.total < two.total and one == costs.macs(net, episode.shots(1))
    assert two.by_operator["convolution"] > 0.9 * two.total
    memory = [costs.peak_memory(net, episode.shots(k)) for k in (1, 2)]
    assert 0 < memory[0] < memory[1] == costs.peak_memory(net, episode)
    assert costs.seconds(net, episode.shots(1), repeats=2) > 0
    assert [module.training for module in net.modules()] == modes


def test_parameters_tell_what_is_learned():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2).requires_grad_(False))
    assert costs.parameters(net) == (26, 16)


def test_published_parameters_of_an_unknown_method():
    with pytest.raises(ModelError, match="did you mean 'panet'"):
        costs.published_parameters("pannet", "vgg16")


def test_memory_is_what_exists_at_the_same_time(episode):
    """Two results one after the other need the room of one; kept, they need that of both."""
    size = episode.query_images.numel() * 4

    class After(nn.Module):
        def forward(self, episode):
            first = (episode.query_images + 1).amax()
            return first + (episode.query_images + 2).amax()

    class Kept(nn.Module):
        def forward(self, episode):
            both = episode.query_images + 1, episode.query_images + 2
            return both[0].amax() + both[1].amax()

    assert size <= costs.peak_memory(After(), episode) < size + 64
    assert 2 * size <= costs.peak_memory(Kept(), episode) < 2 * size + 64


def test_views_of_weights_and_inputs_cost_no_memory(episode):
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(100, 100))

        def forward(self, episode):
            return self.weight.t()[:3], episode.query_images.flatten(1)

    assert costs.peak_memory(Views(), episode) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_memory_of_a_gpu_is_what_its_allocator_says(episode):
    net = build_model("panet", backbone="tiny").to("cuda")
    assert costs.peak_memory(net, episode.to("cuda")) >= costs.peak_memory(net.to("cpu"), episode)
