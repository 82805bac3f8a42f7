"""Snippets of PyTorch tutorials about the layers that are here, run with ``import funcnn as torch``."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import funcnn as torch
import funcnn.nn.functional as F
from funcnn import nn


def test_sequential_by_position_prints_its_numbers() -> None:
    model = nn.Sequential(nn.Conv2d(1, 20, 5), nn.ReLU(), nn.Conv2d(20, 64, 5), nn.ReLU())
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Conv2d(1, 20, kernel_size=(5, 5), stride=(1, 1))\n"
        "  (1): ReLU()\n"
        "  (2): Conv2d(20, 64, kernel_size=(5, 5), stride=(1, 1))\n"
        "  (3): ReLU()\n"
        ")"
    )


def test_sequential_of_an_ordered_dict_prints_its_names() -> None:
    named = [
        ("conv1", nn.Conv2d(1, 20, 5)),
        ("relu1", nn.ReLU()),
        ("conv2", nn.Conv2d(20, 64, 5)),
        ("relu2", nn.ReLU()),
    ]
    model = nn.Sequential(OrderedDict(named))
    assert [line.split(":")[0].strip() for line in repr(model).splitlines()[1:-1]] == [f"({name})" for name, _ in named]
    assert model.conv1 is named[0][1] and model(torch.rand(1, 1, 12, 12)).shape == (1, 64, 4, 4)


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linears = nn.ModuleList([nn.Linear(10, 10) for i in range(10)])

    def forward(self, x: Any) -> Any:
        # a ModuleList can be iterated or indexed
        for i, linear in enumerate(self.linears):
            x = self.linears[i // 2](x) + linear(x)
        return x


def test_module_list() -> None:
    model = Listed()
    assert repr(model) == (
        "Listed(\n  (linears): ModuleList(\n    (0-9): 10 x Linear(in_features=10, out_features=10, bias=True)\n  )\n)"
    )
    assert model(torch.randn(4, 10)).shape == (4, 10) and len(list(model.parameters())) == 20


class Chosen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.choices = nn.ModuleDict({"conv": nn.Conv2d(10, 10, 3), "pool": nn.MaxPool2d(3)})
        self.activations = nn.ModuleDict([["lrelu", nn.LeakyReLU()], ["prelu", nn.PReLU()]])

    def forward(self, x: Any, choice: str, act: str) -> Any:
        return self.activations[act](self.choices[choice](x))


def test_module_dict() -> None:
    model = Chosen()
    assert repr(model) == (
        "Chosen(\n"
        "  (choices): ModuleDict(\n"
        "    (conv): Conv2d(10, 10, kernel_size=(3, 3), stride=(1, 1))\n"
        "    (pool): MaxPool2d(kernel_size=3, stride=3, padding=0, dilation=1, ceil_mode=False)\n"
        "  )\n"
        "  (activations): ModuleDict(\n"
        "    (lrelu): LeakyReLU(negative_slope=0.01)\n"
        "    (prelu): PReLU(num_parameters=1)\n"
        "  )\n"
        ")"
    )
    x = torch.rand(10, 20, 20)  # CHW
    assert repr(model(x, "conv", "lrelu").shape) == "funcnn.Size([10, 18, 18])"
    assert model(x, "pool", "prelu").shape == (10, 6, 6)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (lambda: nn.Conv2d(16, 33, 3, stride=2), (20, 16, 50, 100), (20, 33, 24, 49)),
        (
            lambda: nn.Conv2d(in_channels=5, out_channels=32, kernel_size=5, stride=1, padding=2),
            (16, 5, 3, 10),
            (16, 32, 3, 10),
        ),
        (lambda: nn.MaxPool2d(3, stride=2), (20, 16, 50, 32), (20, 16, 24, 15)),
        (lambda: nn.MaxPool2d(3, 1, 0, 1), (16, 15, 15, 14), (16, 15, 13, 12)),
        (lambda: nn.AvgPool2d(kernel_size=2), (4, 3, 8, 9), (4, 3, 4, 4)),
        (lambda: nn.BatchNorm2d(100, affine=False), (20, 100, 35, 45), (20, 100, 35, 45)),
        (lambda: nn.BatchNorm2d(5), (20, 5, 35, 45), (20, 5, 35, 45)),
        (lambda: nn.Linear(20, 30), (128, 20), (128, 30)),
        (lambda: nn.Dropout(p=0.2), (4, 6), (4, 6)),
        (lambda: nn.Sequential(nn.Conv2d(1, 32, 5, 1, 1), nn.Flatten()), (32, 1, 5, 5), (32, 288)),
        (lambda: nn.GELU(), (2,), (2,)),
        (lambda: nn.Sigmoid(), (2,), (2,)),
        (lambda: nn.Tanh(), (2,), (2,)),
    ],
)
def test_output_sizes(layer: Any, shape: tuple, expected: tuple) -> None:
    assert layer()(torch.randn(*shape)).size() == expected


def test_uninitialised_tensors_are_taken() -> None:
    conv2 = nn.Conv2d(5, 32, kernel_size=5, stride=1, padding=2)
    assert conv2(torch.Tensor(16, 5, 3, 10)).shape == (16, 32, 3, 10)


def test_relu_of_a_range_of_integers() -> None:
    m = nn.ReLU()
    input = torch.tensor(range(-5, 5))
    assert repr(m(input)) == "tensor([0, 0, 0, 0, 0, 0, 1, 2, 3, 4])"


def test_crelu() -> None:
    m = nn.ReLU()
    input = torch.randn(2).unsqueeze(0)
    output = torch.cat((m(input), m(-input)))
    assert output.shape == (2, 2) and torch.equal(output[0] - output[1], input[0])


def test_softmax_rows_sum_to_one() -> None:
    output = nn.Softmax(dim=1)(torch.randn(3, 2))
    assert output.shape == (3, 2) and torch.allclose(output.sum(1), torch.ones(3))


def test_dropout_zeroes_and_scales() -> None:
    torch.manual_seed(0)
    m = nn.Dropout(p=0.9)
    output = m(torch.ones(300, 50))
    assert set(np.unique(output.numpy().round(4))) == {0.0, 10.0}
    assert abs(float((output == 0).float().mean()) - 0.9) < 0.01
    m.eval()
    assert torch.equal(m(torch.ones(3, 5)), torch.ones(3, 5))


def test_layer_norm_of_a_numpy_array() -> None:
    x_test = np.array([[[1, 2, -1, 1], [3, 4, -2, 2]], [[1, 2, -1, 1], [3, 4, -2, 2]]])
    x_test = torch.from_numpy(x_test).float()
    output = nn.LayerNorm(normalized_shape=[2, 4])(x_test)
    flat = x_test.numpy().reshape(2, 8)
    expected = (flat - flat.mean(1, keepdims=True)) / np.sqrt(flat.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(output.detach().numpy().reshape(2, 8), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", [nn.L1Loss(), nn.MSELoss()], ids=repr)
def test_regression_losses(loss: Any) -> None:
    input = torch.randn(3, 5, requires_grad=True)
    target = torch.randn(3, 5)
    output = loss(input, target)
    output.backward()
    difference = input.detach().numpy() - target.numpy()
    expected = np.abs(difference).mean() if isinstance(loss, nn.L1Loss) else (difference**2).mean()
    assert output.item() == pytest.approx(float(expected), rel=1e-5) and input.grad.shape == (3, 5)


def test_cross_entropy_of_classes_and_of_probabilities() -> None:
    loss = nn.CrossEntropyLoss()
    input = torch.randn(3, 5, requires_grad=True)
    target = torch.empty(3, dtype=torch.long).random_(5)
    loss(input, target).backward()
    expected = (F.softmax(input.detach(), 1) - F.one_hot(target, 5)) / 3
    assert torch.allclose(input.grad, expected, atol=1e-6)

    input = torch.randn(3, 5, requires_grad=True)
    target = torch.randn(3, 5).softmax(dim=1)
    loss(input, target).backward()
    assert torch.allclose(input.grad, (F.softmax(input.detach(), 1) - target) / 3, atol=1e-6)


class NeuralNetwork(nn.Module):
    def __init__(self) -> None:
        super(NeuralNetwork, self).__init__()  # noqa: UP008  (as the tutorial writes it)
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(28 * 28, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
        )

    def forward(self, x: Any) -> Any:
        return self.linear_relu_stack(self.flatten(x))


def test_the_network_of_the_first_tutorial() -> None:
    logits = NeuralNetwork()(torch.rand(3, 28, 28))
    assert logits.shape == (3, 10) and logits.requires_grad


def test_weights_initialised_through_apply() -> None:
    def weights_init(m: Any) -> None:
        classname = m.__class__.__name__
        if classname.find("Conv") != -1:
            nn.init.normal_(m.weight.data, 0.0, 0.02)
        elif classname.find("BatchNorm") != -1:
            nn.init.normal_(m.weight.data, 1.0, 0.02)
            nn.init.constant_(m.bias.data, 0)

    net = nn.Sequential(nn.Conv2d(3, 64, 7), nn.BatchNorm2d(64))
    net.apply(weights_init)
    assert abs(float(net[0].weight.std()) - 0.02) < 0.002 and abs(float(net[1].weight.mean()) - 1) < 0.02
    assert float(net[1].bias.abs().sum()) == 0


class Initialised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                n = m.kernel_size[0] * m.kernel_size[1] * m.out_channels
                m.weight.data.normal_(0, math.sqrt(2.0 / n))
            elif isinstance(m, nn.BatchNorm2d):
                m.weight.data.fill_(1)
                m.bias.data.zero_()

    def forward(self, x: Any) -> Any:
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))


def test_weights_initialised_through_data() -> None:
    net = Initialised()
    assert abs(float(net.conv1.weight.std()) - math.sqrt(2 / (49 * 64))) < 0.002 and net.conv1.weight.requires_grad
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 64, 8, 8)


class MyLinear(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(in_features, out_features))
        self.bias = nn.Parameter(torch.randn(out_features))

    def forward(self, input: Any) -> Any:
        return (input @ self.weight) + self.bias


def test_a_layer_of_ones_own() -> None:
    net = nn.Sequential(OrderedDict([("fc1", MyLinear(4, 3)), ("act", nn.ReLU()), ("fc2", MyLinear(3, 1))]))
    net(torch.randn(5, 4)).sum().backward()
    assert [name for name, _ in net.named_parameters()] == ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    assert all(p.grad is not None for p in net.parameters())


class LeNet(torch.nn.Module):
    def __init__(self) -> None:
        super(LeNet, self).__init__()  # noqa: UP008  (as the tutorial writes it)
        self.conv1 = torch.nn.Conv2d(1, 6, 5)
        self.conv2 = torch.nn.Conv2d(6, 16, 3)
        self.fc1 = torch.nn.Linear(16 * 6 * 6, 120)
        self.fc2 = torch.nn.Linear(120, 84)
        self.fc3 = torch.nn.Linear(84, 10)

    def forward(self, x: Any) -> Any:
        x = F.max_pool2d(F.relu(self.conv1(x)), (2, 2))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(-1, self.num_flat_features(x))
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)

    def num_flat_features(self, x: Any) -> int:
        size = x.size()[1:]
        num_features = 1
        for s in size:
            num_features *= s
        return num_features


def test_lenet() -> None:
    net = LeNet()
    assert sum(p.numel() for p in net.parameters()) == 81_290  # 156 + 880 + 69,240 + 10,164 + 850
    assert net(torch.randn(2, 1, 32, 32)).shape == (2, 10)


def test_both_poolings_combined() -> None:
    def add_avgmax_pool2d(x: Any, output_size: int = 1) -> Any:
        return 0.5 * (F.adaptive_avg_pool2d(x, output_size) + F.adaptive_max_pool2d(x, output_size))

    x = torch.randn(2, 3, 5, 6)
    expected = 0.5 * (x.mean(dim=(2, 3), keepdim=True) + x.amax(dim=(2, 3), keepdim=True))
    assert torch.allclose(add_avgmax_pool2d(x), expected, atol=1e-6)


class TinyModel(torch.nn.Module):
    def __init__(self) -> None:
        super(TinyModel, self).__init__()  # noqa: UP008  (as the tutorial writes it)
        self.linear1 = torch.nn.Linear(100, 200)
        self.activation = torch.nn.ReLU()
        self.linear2 = torch.nn.Linear(200, 10)
        self.softmax = torch.nn.Softmax()

    def forward(self, x: Any) -> Any:
        return self.softmax(self.linear2(self.activation(self.linear1(x))))


def test_the_tiny_model_prints_and_lists_its_parameters() -> None:
    tinymodel = TinyModel()
    assert repr(tinymodel) == (
        "TinyModel(\n"
        "  (linear1): Linear(in_features=100, out_features=200, bias=True)\n"
        "  (activation): ReLU()\n"
        "  (linear2): Linear(in_features=200, out_features=10, bias=True)\n"
        "  (softmax): Softmax(dim=None)\n"
        ")"
    )
    assert [tuple(p.shape) for p in tinymodel.linear2.parameters()] == [(10, 200), (10,)]
    shown = repr(next(iter(tinymodel.parameters())))
    assert shown.startswith("Parameter containing:\ntensor([[") and shown.endswith("requires_grad=True)")
    assert torch.allclose(tinymodel(torch.rand(3, 100)).sum(1), torch.ones(3))


def test_a_linear_layer_is_a_product_and_a_sum() -> None:
    lin = torch.nn.Linear(3, 2)
    x = torch.rand(1, 3)
    y = lin(x)
    assert torch.allclose(y, x @ lin.weight.T + lin.bias) and "grad_fn=<" in repr(y)
    assert isinstance(lin.weight, torch.Tensor) and isinstance(lin.weight, nn.Parameter) and lin.weight.requires_grad


def test_max_pooling_of_an_image_without_a_batch() -> None:
    rows = [
        [0.5036, 0.6285, 0.3460, 0.7817, 0.9876, 0.0074],
        [0.3969, 0.7950, 0.1449, 0.4110, 0.8216, 0.6235],
        [0.2347, 0.3741, 0.4997, 0.9737, 0.1741, 0.4616],
        [0.3962, 0.9970, 0.8778, 0.4292, 0.2772, 0.9926],
        [0.4406, 0.3624, 0.8960, 0.6484, 0.5544, 0.9501],
        [0.2489, 0.8971, 0.7499, 0.1803, 0.9571, 0.6733],
    ]
    maxpool_layer = torch.nn.MaxPool2d(3)
    assert repr(maxpool_layer(torch.tensor([rows]))) == "tensor([[[0.7950, 0.9876],\n         [0.9970, 0.9926]]])"


def test_batch_norm_of_the_tutorial_numbers() -> None:
    my_tensor = torch.tensor(
        [[[7.7375, 23.5649, 6.8452, 16.3517], [19.5792, 20.3254, 6.1930, 23.7576],
          [23.7554, 20.8565, 18.4241, 8.5742], [22.5100, 15.6154, 13.5698, 11.8411]]]
    )  # fmt: skip
    normed_tensor = torch.nn.BatchNorm1d(4)(my_tensor)
    expected = [[[-0.8614, 1.4543, -0.9919, 0.3990], [0.3160, 0.4274, -1.6834, 0.9400],
                 [1.0256, 0.5176, 0.0914, -1.6346], [1.6352, -0.0663, -0.5711, -0.9978]]]  # fmt: skip
    np.testing.assert_allclose(normed_tensor.detach().numpy(), expected, atol=1e-4)
    assert abs(normed_tensor.mean().item()) < 1e-6


def test_reflected_padding_as_in_the_generator() -> None:
    block = nn.Sequential(
        nn.Conv2d(3, 8, kernel_size=7, stride=1, padding=3, padding_mode="reflect"), nn.ReLU(inplace=True)
    )
    assert block(torch.randn((2, 3, 16, 16))).shape == (2, 8, 16, 16)
