import itertools

import torch
from torch import nn

from compress.graph.coupling import couplings
from compress.graph.trace import tensors_of
from compress.slimming.dead import all_zero, dead_nodes


def chain(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(widths)))


def found(model: nn.Module, width: int) -> dict[str, list[int]]:
    known = couplings(model, torch.zeros(2, width))
    return {coupling.name: nodes.tolist() for coupling, nodes in dead_nodes(known.found, tensors_of(model)).items()}


def test_a_node_that_nothing_reads_is_dead_whatever_it_computes():
    model = chain(4, 6, 5, 2)
    with torch.no_grad():
        model[1].weight[:, [0, 3]] = 0
    assert found(model, 4) == {"0": [0, 3]}


def test_what_only_dead_nodes_read_is_dead_to_a_fixed_point():
    model = chain(4, 6, 5, 3, 2)
    with torch.no_grad():
        model[3].weight[:, 1] = 0  # node 1 of layer 2 is dead,
        model[2].weight[[0, 2], 4] = 0  # so nothing reads node 4 of layer 1,
        model[1].weight[:4, 5] = 0  # nor node 5 of layer 0
    assert found(model, 4) == {"2": [1], "1": [4], "0": [5]}


def test_one_node_of_a_width_stays():
    model = chain(4, 6, 2)
    with torch.no_grad():
        model[1].weight.zero_()
    assert found(model, 4) == {"0": [1, 2, 3, 4, 5]}
    assert all(p.any() for p in model[0].parameters())


def test_zeros_in_all_members():
    model = chain(4, 6, 2)
    coupling = couplings(model, torch.zeros(2, 4)).of("0")
    with torch.no_grad():
        for name, mask in coupling.masks(model, torch.arange(6) != 2).items():
            model.get_parameter(name).mul_(mask)
        model[1].weight[:, 4] = 0
    assert all_zero(coupling, coupling.members, tensors_of(model)).nonzero().flatten().tolist() == [2]
