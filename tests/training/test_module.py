"""A graph as a ``torch.nn.Module``: parameters by name, gradients, and the way back."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.graph_text import body_of, graph_of
from training.nets import SIZES, digits_graph, weights

import graphkiln
from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.verify import verify
from graphkiln.training import Module, TrainingError, module
from graphkiln.training.tensors import to_array, to_tensor


def _images(count: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 1, 8, 8)).astype(np.float32)


def test_the_public_name() -> None:
    assert graphkiln.torch.module is module
    assert "torch" in dir(graphkiln)


def test_parameters_have_the_names_of_constants() -> None:
    held = weights(**SIZES)
    made = module(digits_graph(held))
    assert set(made.weights) == set(held)
    assert {n for n, _ in made.named_parameters()} == set(held)
    assert made.get_parameter("c1.weight") is made.weights["c1.weight"]
    again = module(digits_graph(weights(**SIZES, seed=9)))
    again.load_state_dict(made.state_dict())
    for name, array in held.items():
        np.testing.assert_array_equal(to_array(again.weights[name]), array)


def test_results_are_those_of_the_interpreter() -> None:
    graph = digits_graph(weights(**SIZES))
    x = _images()
    (want,) = evaluate(graph, {"x": x})
    seen: dict[str, tuple[int, ...]] = {}
    got = module(graph)(x=to_tensor(x), on_value=lambda n, t: seen.update({n: tuple(t.shape)}))
    np.testing.assert_allclose(to_array(got), want, rtol=1e-4, atol=1e-5)
    assert seen["c"] == (5, 6, 4, 4) and list(seen)[-1] == "logits"


def test_gradients_of_weights_against_differences() -> None:
    made = module(digits_graph(weights(2, 3, 4))).double()
    x = to_tensor(_images(2)).double()
    names = list(made.weights)

    def run(*values: torch.Tensor) -> torch.Tensor:
        replaced = dict(zip(names, values, strict=True))
        return torch.func.functional_call(made, replaced, (x,))

    values = [w.detach().clone().requires_grad_() for w in made.weights.values()]
    assert torch.autograd.gradcheck(run, values, fast_mode=True)


def test_the_way_back_keeps_what_was_trained() -> None:
    graph = digits_graph(weights(**SIZES))
    made = module(graph)
    with torch.no_grad():
        for w in made.weights.values():
            w.mul_(0.5).add_(0.01)
    trained = made.to_graph()
    verify(trained)
    x = _images()
    (want,) = evaluate(trained, {"x": x})
    np.testing.assert_allclose(to_array(made(to_tensor(x))), want, rtol=1e-4, atol=1e-5)
    assert trained is not graph
    (before,) = evaluate(graph, {"x": x})
    assert np.abs(before - want).max() > 1e-3, "the graph that was given stays as it was"


def test_copies_and_other_types() -> None:
    made = module(digits_graph(weights(**SIZES)))
    x = to_tensor(_images())
    wide = copy.deepcopy(made).double()
    assert wide(x.double()).dtype == torch.float64
    torch.testing.assert_close(wide(x.double()).float(), made(x), rtol=1e-4, atol=1e-5)


def test_which_constants_train() -> None:
    graph = graph_of(
        "graph main(%x: float32[N,2,4]) -> (y) {\n"
        "%w = constant float32[4,4] [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]\n"
        "%bias = constant float32[4] [1, 2, 3, 4]\n"
        "%mask = constant float32[1,2,4] [0, 0, 0, -9, 0, 0, -9, -9]\n"
        "%one = constant float32[1] [0.5]\n%scalar = constant float32[] 2.0\n"
        "%two = constant int64[1] [2]\n"
        "%a = MatMul(%x, %w)\n%b = Add(%a, %bias)\n%c = Add(%b, %mask)\n%d = Mul(%c, %one)\n"
        "%e = Mul(%d, %scalar)\n%y = ReduceSum(%e, %two)\nreturn %y\n}"
    )
    assert set(module(graph).weights) == {"w", "bias"}
    chosen = Module(graph, trainable=lambda name, array: name in ("mask", "two"))
    assert set(chosen.weights) == {"mask"}


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=6), min_size=2,
                max_size=4, unique=True))  # fmt: skip
def test_any_names_make_parameters(names: list[str]) -> None:
    graph = Graph()
    x = graph.add_input("the input", graph_of("graph g(%x: float32[2,2]) -> (x) {\nreturn %x\n}")
                        .inputs[0].type)  # fmt: skip
    value = x
    for i, name in enumerate([*names, "forward", "weights", "a.b", "a", "a.b.c"]):
        array = np.full((2, 2), i + 1, np.float32)
        node = graph.add_node("MatMul", [value, graph.add_constant(array, name)], types=[x.type])
        value = node.out()
    graph.set_outputs([value])
    made = module(graph)
    assert len(made.weights) == len(names) + 5 == len(list(made.parameters()))
    for i, parameter in enumerate(made.weights.values()):
        assert float(parameter.flatten()[0].detach()) == i + 1


def test_control_flow() -> None:
    then = body_of("%a: float32[N]", "%o = Mul(%a, %a)", "%o")
    other = body_of("%a: float32[N]", "%o = Neg(%a)", "%o")
    graph = graph_of(
        f"""graph main(%x: float32[N], %c: bool[]) -> (y) {{
        %y = If(%c, %x) {{then_branch = {then}, else_branch = {other}}}
        return %y
        }}"""
    )
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    module(graph)(x, torch.tensor(True)).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2.0, -4.0]
    assert module(graph)(x.detach(), torch.tensor(False)).tolist() == [-1.0, 2.0]


def test_errors_are_one_line() -> None:
    text = (
        "graph main(%x: float32[2]) -> (y, z) {\n%y = STFT(%x, %x)\n%z = Det(%x)\n"
        "%a = Det(%x)\nreturn %y, %z\n}"
    )
    from graphkiln.ir.parser import parse_graph

    with pytest.raises(TrainingError) as told:
        module(parse_graph(text, None))
    assert str(told.value).splitlines() == [
        "node 'y' (STFT): does not run in PyTorch",
        "node 'z' (Det): does not run in PyTorch",
    ]
    made = module(digits_graph(weights(**SIZES)))
    with pytest.raises(TrainingError, match="takes the inputs x; missing: .'x'."):
        made()
    with pytest.raises(TrainingError, match="node 'a' .Conv.: "):
        made(torch.zeros(1, 2, 8, 8))
