"""The products and the attention of following objects, beside torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segment_duo.segmenters.sam2 import products


def near(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-5)


@torch.inference_mode()
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(0, 4, 3), (1, 1, 1), (37, 48, 5), (300, 64, 130)])
@pytest.mark.parametrize("turned", [False, True])
def test_products_of_all_layouts(rows: int, inputs: int, outputs: int, turned: bool) -> None:
    x, bias = torch.randn(2, rows, inputs), torch.randn(outputs)
    wide = torch.randn(inputs + 3, outputs) if turned else torch.randn(outputs, inputs + 3)
    weight = wide[3:].T if turned else wide[:, 3:]
    near(products.linear(x, weight, bias), F.linear(x, weight, bias))
    near(products.linear(x.transpose(0, 1), weight), F.linear(x.transpose(0, 1), weight))


@torch.inference_mode()
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (513, 1025), (100, 2500)])
def test_attention_over_blocks(queries: int, keys: int) -> None:
    q, k, v = torch.randn(queries, 24) * 8, torch.randn(keys, 24), torch.randn(16, keys).T
    near(products.attend(q, k, v), F.scaled_dot_product_attention(q[None], k[None], v[None])[0])


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.strided = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4)
        self.linear = nn.Linear(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.linear(self.strided(self.conv(x)).flatten(2).transpose(1, 2))
        heads = tokens.view(len(x), -1, 2, 6).transpose(1, 2)
        return F.scaled_dot_product_attention(heads, heads, heads)


@torch.inference_mode()
def test_a_model_computes_the_same_and_only_while_the_function_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = Block().eval(), torch.randn(1, 3, 70, 70)
    expected = block(x)
    calls = []
    linear = products.linear
    monkeypatch.setattr(products, "linear", lambda *given: calls.append(1) or linear(*given))
    near(products.quickly(block)(x), expected)
    assert bool(calls) is products._suits(x)
    calls.clear()
    assert torch.equal(block(x), expected)
    assert not calls


@torch.inference_mode()
def test_a_key_may_stand_for_several() -> None:
    q, k, v = torch.randn(20, 24), torch.randn(30, 24), torch.randn(30, 8)
    repeated = torch.cat([torch.arange(10), torch.arange(10, 25).repeat_interleave(4), torch.arange(25, 30)])
    expected = products.attend(q, k[repeated], v[repeated])
    near(products.attend(q, k, v, counts=((10, 1), (15, 4), (5, 1))), expected)


@torch.inference_mode()
@pytest.mark.parametrize("quick", [True, False])
def test_few_tokens_and_an_image_look_at_each_other(quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not quick:
        monkeypatch.setattr(products, "_suits", lambda _x: False)
    heads, each, width = 4, 7, 48
    rows = torch.randn(3, heads * each, width)
    image, keys = torch.randn(3, 600, width), torch.randn(3, 600, width)
    expected = (rows @ keys.mT).softmax(-1) @ image
    near(products.looked_up(rows, keys, image), expected)
    one = image[:1].expand(3, -1, -1)
    near(products.looked_up(rows, keys, one), (rows @ keys.mT).softmax(-1) @ one)

    bias, carried = torch.randn(3, heads * each, 1), torch.randn(3, heads * each, width)
    shares = torch.cat([part.softmax(1) for part in (rows @ keys.mT + bias).split(each, dim=1)], 1)
    for own in (image, one):
        before = own.clone()
        expected = before + shares.mT @ carried
        near(products.handed_out(own, keys, rows, bias, carried, heads, in_place=False), expected)
        assert torch.equal(own, before)
    expected = image + shares.mT @ carried
    products.handed_out(image, keys, rows, bias, carried, heads, in_place=True)
    near(image, expected)
