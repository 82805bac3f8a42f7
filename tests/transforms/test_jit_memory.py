"""jit and memory: arguments that overlap, results that alias, layouts; everything as in eager code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import funcnn as fn


def start() -> Any:
    """Numbers that no two cases of overlap could mix up."""
    return fn.tensor(np.arange(1.0, 13.0, dtype=np.float32))


def foreign(x: Any) -> Any:
    """Another tensor on the memory of ``x``, of which funcnn does not know that it is one."""
    return fn.from_numpy(np.frombuffer(memoryview(x.numpy()), x.numpy().dtype))


OVERLAPS: dict[str, Callable] = {
    "twice": lambda x: (x, x),
    "view": lambda x: (x, x[:6]),
    "base": lambda x: (x[2:9], x),
    "detached": lambda x: (x, x.detach()),
    "detached view": lambda x: (x[1:5].detach(), x),
    "siblings": lambda x: (x[:5], x[3:]),
    "contained": lambda x: (x[1:9], x[2:5]),
    "same slice twice": lambda x: (x[1:9], x[1:9]),
    "strided": lambda x: (x[::2], x[::3]),
    "interleaved": lambda x: (x[::2], x[1::2]),
    "apart": lambda x: (x[:4], x[8:]),
    "transposed": lambda x: (x.view(3, 4), x.view(3, 4).t()),
    "columns": lambda x: (x.view(3, 4)[:, :3], x.view(3, 4)[:, 2:]),
    "reversed": lambda x: (fn.from_numpy(x.numpy()[::-1]), x),
    "foreign": lambda x: (x, foreign(x)),
    "two foreign": lambda x: (foreign(x)[1:], foreign(x)[:7]),
    "nothing": lambda x: (x, x[:0]),
}

PROGRAMS: dict[str, Callable] = {
    "add, read": lambda a, b: (a.add_(1), b * 1)[1],
    "read, add, read": lambda a, b: (b * 2, a.mul_(3), b + 0)[::2],
    "both write": lambda a, b: (a.mul_(2), b.add_(10), a.sum(), b.sum())[2:],
    "a view of one": lambda a, b: (b[:1], a.zero_(), b[:1] + 1),
    "an earlier view": lambda a, b: (lambda v: (a.fill_(7), v * 2, v.add_(1), b + 0))(b[:1])[1::2],
    "a whole copy": lambda a, b: (a.copy_(a * 2 + 1), b.reshape(-1)[:2].mul_(5), a + 0)[2],
    "nothing written": lambda a, b: (a.sum(), b.sum()),
}


def outcome(f: Callable, overlap: str, runs: int = 2) -> list:
    """What ``f`` returns for overlapping arguments, and the memory afterwards, at several calls."""
    found = []
    for _ in range(runs):
        x = start()
        results = f(*OVERLAPS[overlap](x))
        found += [t.tolist() for t in (results if isinstance(results, tuple) else (results,))] + [x.tolist()]
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_arguments_that_share_memory(program: str) -> None:
    for grad in (True, False):
        compiled = fn.jit(PROGRAMS[program])  # one function for all overlaps: each must be told from the others
        with fn.set_grad_enabled(grad):
            for overlap in [*OVERLAPS, *reversed(OVERLAPS)]:
                assert outcome(compiled, overlap) == outcome(PROGRAMS[program], overlap), overlap
        assert compiled.traces <= len(OVERLAPS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_argument_that_shares_memory_with_what_is_closed_over(program: str) -> None:
    for overlap in OVERLAPS:
        eager, compiled = [closed_over(PROGRAMS[program], overlap, t) for t in (lambda f: f, fn.jit)]
        assert eager == compiled, overlap


def closed_over(program: Callable, overlap: str, transform: Callable) -> list:
    """Results and memory of calls in which one of two overlapping tensors, or an unrelated one, is the argument."""
    x = start()
    one, two = OVERLAPS[overlap](x)
    f, g = transform(lambda a: program(a, two)), transform(lambda a: program(one, a))
    unrelated = fn.tensor(one.numpy().copy())
    found = []
    for call, argument in ((f, one), (g, two), (f, one), (f, unrelated), (f, two), (f, one)):
        try:
            results = call(argument)
        except (fn.ShapeError, IndexError):
            found.append("refused")
            continue
        found.append([t.tolist() for t in (results if isinstance(results, tuple) else (results,))] + [x.tolist()])
    return found


def test_histories_go_between_arguments_as_in_eager_code() -> None:
    def step(a: Any, b: Any, w: Any) -> Any:
        a.mul_(w)
        (b * b).sum().backward()

    found = []
    for f in (step, fn.jit(step)):
        x, w = start(), fn.tensor(np.float32(3.0)).requires_grad_()
        f(x, x[2:5], w)
        found.append((x.tolist(), w.grad.tolist()))
    assert found[0] == found[1]
    y = fn.ones(3).requires_grad_() * 2.0  # an argument that is no leaf
    fn.jit(lambda a: a.mul_(3.0))(y)
    assert y.tolist() == [6.0] * 3 and y.requires_grad and not y.is_leaf
    squared = fn.jit(lambda a: (a * a).sum().backward())
    leaf = fn.ones(3).requires_grad_()
    for given in (leaf, leaf * 2.0, leaf):  # through what is no leaf the gradient goes on to the leaf
        squared(given)
    assert leaf.grad.tolist() == [2 + 8 + 2] * 3


def test_one_leaf_as_argument_and_from_outside_gathers_both_gradients() -> None:
    w, other = fn.ones(2).requires_grad_(), fn.ones(2).requires_grad_()
    f = fn.jit(lambda a: (a * 2.0 + w * 3.0).sum().backward())
    for given in (other, w, other, w):
        f(given)
    assert w.grad.tolist() == [3 * 2 + 5 * 2] * 2 and other.grad.tolist() == [4] * 2


def test_memory_that_two_dtypes_share_is_refused_with_both_named() -> None:
    array = np.arange(4, dtype=np.float32)
    one, two = fn.from_numpy(array), fn.from_numpy(array.view(np.int32))
    with pytest.raises(fn.TracerError, match=r"argument 0 and argument 1 share memory.* float32 and int32"):
        fn.jit(lambda a, b: (a.add_(1), b + 0)[1])(one, two)
    assert fn.jit(lambda a, b: (a + 0, b + 0)[1])(one, two).tolist() == array.view(np.int32).tolist()


# ---- results --------------------------------------------------------------------------------------------------------
W = fn.ones(2, 3)
RESULTS: dict[str, Callable] = {
    "itself": lambda x: x,
    "itself in a tree": lambda x: {"a": [x, (x, x.t())]},
    "transpose": lambda x: x.t(),
    "view of a view": lambda x: x[1:].reshape(-1)[::2],
    "written and returned": lambda x: x.mul_(2),
    "view before a write": lambda x: (lambda v: (x.add_(1), v)[1])(x[:1]),
    "view written": lambda x: x[0].fill_(5),
    "detached": lambda x: x.detach(),
    "detached view": lambda x: x.t().detach()[1:],
    "closed over": lambda x: (W, W[:1], x),
    "computed twice": lambda x: (lambda y: (y, y, y.t(), y[1:]))(x * 2),
    "parts of what is computed": lambda x: (x * 2).split(1),
    "copies": lambda x: (x.clone(), x.t().reshape(-1), x + 0),
    "a flat view or copy": lambda x: x.flatten(),
    "contiguous": lambda x: x.contiguous(),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_results_alias_as_in_eager_code(kind: str) -> None:
    compiled = fn.jit(RESULTS[kind])
    for transposed in (False, True, False):
        seen = []
        for f in (RESULTS[kind], compiled, compiled):
            W.fill_(1.0)
            x = fn.tensor(np.arange(6, dtype=np.float32).reshape(3, 2)).t() if transposed else start()[:6].view(2, 3)
            leaves = fn.tree.leaves(f(x))
            known = [x, W, *leaves]
            seen.append([
                [t.tolist() for t in leaves], [t.stride() for t in leaves],
                [[a is b for a in known] for b in leaves],
                [[np.shares_memory(a.numpy(), b.numpy()) for a in known] for b in leaves],
            ])  # fmt: skip
            leaves[-1].mul_(0.0)  # a later write goes where it goes in eager code, and views see it
            seen[-1].append([t.tolist() for t in known])
        assert seen[0] == seen[1] == seen[2], f"transposed {transposed}"


def test_a_result_that_is_an_argument_has_its_gradients_and_versions() -> None:
    x = fn.ones(3, 2).requires_grad_()
    f, view = fn.jit(lambda x: x), fn.jit(lambda x: x.t())
    assert f(x) is x and f([x]) == [x]
    (view(x) * fn.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])).sum().backward()
    assert x.grad.tolist() == [[1, 4], [2, 5], [3, 6]]
    y = fn.ones(2, 2)
    part = fn.jit(lambda y: y[0])(y)
    w = fn.ones(2).requires_grad_()
    z = (part * w).sum()
    y.add_(1.0)
    with pytest.raises(fn.GradientError, match="overwritten"):
        z.backward()
    assert part.tolist() == [2.0, 2.0]


def test_a_donated_argument_that_comes_back_is_a_new_tensor_on_its_memory() -> None:
    x = fn.ones(3)
    address = x.data_ptr()
    out, part, total = fn.jit(lambda x: (x, x[:1], x.sum()), donate_argnums=0)(x)
    part.fill_(7.0)
    assert out.tolist() == [7, 1, 1] and out.data_ptr() == address and total.item() == 3
    with pytest.raises(fn.TracerError, match="donated"):
        x + 1


# ---- layouts --------------------------------------------------------------------------------------------------------
LAYOUTS: dict[str, Callable] = {
    "reshape": lambda x: x.reshape(-1).mul_(2),
    "flatten": lambda x: x.flatten().add_(1),
    "contiguous": lambda x: x.contiguous().zero_(),
    "view": lambda x: x.view(-1).zero_(),
    "ravel": lambda x: x.ravel().zero_(),
    "unflatten": lambda x: x.unflatten(0, (1, -1)).zero_(),
    "stride": lambda x: x * x.stride()[0],
    "is_contiguous": lambda x: x + 1 if x.is_contiguous() else x - 1,
    "of a view": lambda x: x.t()[1:].reshape(-1).mul_(2),
    "after a write": lambda x: x.mul_(2).reshape(-1).add_(1),
    "of a detached view": lambda x: x.t().detach().reshape(-1).add_(1),
    "of an inner value": lambda x: (x * 2).t().reshape(-1).add_(1),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_the_layout_of_an_argument_is_part_of_the_trace(kind: str) -> None:
    def run(f: Callable, layout: Callable) -> list:
        whole = fn.tensor(np.arange(24, dtype=np.float32))
        x = layout(whole)
        try:
            out = f(x)
        except fn.ShapeError as error:
            return [str(error), whole.tolist()]
        return [out.tolist(), whole.tolist()]

    compiled = fn.jit(LAYOUTS[kind])
    held = fn.zeros(3, 4)
    closed = fn.jit(lambda: LAYOUTS[kind](held))
    layouts = [
        lambda w: w[:12].view(3, 4), lambda w: w[:12].view(4, 3).t(), lambda w: w.view(3, 8)[:, ::2],
        lambda w: w.view(6, 4)[::2], lambda w: w[:12].view(3, 4),
    ]  # fmt: skip
    for layout in layouts:
        assert run(compiled, layout) == run(LAYOUTS[kind], layout)
        assert run(lambda x: (setattr(held, "data", x), closed())[1], layout) == run(LAYOUTS[kind], layout)


def test_a_program_that_does_not_ask_for_the_layout_serves_all() -> None:
    f = fn.jit(lambda x: (x.t() * 2)[1:] + x.sum())
    assert f(fn.ones(3, 3)).tolist() == f(fn.ones(3, 3).t()).tolist() and f.traces == 1


TRANSFORMS: dict[str, Callable] = {
    "eager": lambda f: f,
    "jit": fn.jit,
    "grad": lambda f: fn.grad(lambda x: f(x).sum()),
    "vmap": lambda f: lambda x: fn.vmap(f)(x[None]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_view_refuses_what_only_a_copy_can_be(name: str) -> None:
    for f, x in ((lambda x: x.t().view(6), fn.ones(3, 2)), (lambda x: x.view(6), fn.ones(3, 2).t())):
        with pytest.raises(fn.ShapeError, match=r"view: a tensor of shape \(2, 3\) with strides \(1, 2\).*contiguous"):
            TRANSFORMS[name](f)(x)
    assert TRANSFORMS[name](lambda x: x[1:].view(2, 2))(fn.ones(3, 2)) is not None


# ---- views and writes -----------------------------------------------------------------------------------------------
def _detached_twice(a: Any) -> Any:
    d = a.detach()
    a.add_(1)
    return d.detach()


def _detached_twice_before(a: Any) -> Any:
    d = a.detach().detach()
    a.add_(1)
    return d


def _view_written_after_its_base(a: Any) -> Any:
    v = a[:1]
    a.copy_(a * 0)
    v.add_(2.0)
    return a + 0


def _views_of_views(a: Any) -> Any:
    v = a[1:]
    w = v.detach()[:2]
    a.copy_(a * 0 + 1)
    w.mul_(3.0)
    return v + 0


@pytest.mark.parametrize("f", [_detached_twice, _detached_twice_before, _view_written_after_its_base, _views_of_views])
def test_a_view_sees_the_write_in_between(f: Callable) -> None:
    for grad in (True, False):
        with fn.set_grad_enabled(grad):
            batched = [lambda a: fn.vmap(f)(a.view(2, 6))] * (f is not _views_of_views)  # vmap refuses detached writes
            for wrapped in (f, lambda a: f(a * 1), *batched):
                x, y = start(), start()
                assert fn.jit(wrapped)(x).tolist() == wrapped(y).tolist()
                assert x.tolist() == y.tolist()


@pytest.mark.parametrize("offset", range(-6, 7))
def test_diagonals_within_and_beyond_the_matrix(offset: int) -> None:
    x = fn.tensor(np.arange(12, dtype=np.float64).reshape(3, 4)).requires_grad_()
    expected = np.diagonal(x.detach().numpy(), offset) if -3 < offset < 4 else np.zeros(0)
    for f in (
        fn.jit(lambda x: x.detach().diagonal(offset)),
        lambda x: fn.vmap(lambda r: r.diagonal(offset))(x[None])[0],
    ):
        np.testing.assert_array_equal(f(x).detach().numpy(), expected)
    x.diagonal(offset).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.eye(3, 4, offset))


def test_a_python_number_that_meets_no_tensor_is_what_eager_code_makes_of_it() -> None:
    made: list[Callable] = [
        lambda s: fn.full((2,), s), lambda s: fn.exp(s), lambda s: fn.tensor(s), lambda s: fn.full_like(fn.ones(2), s),
        lambda s: fn.ones(2, dtype=fn.float64) * s, lambda s: fn.full((2,), s, dtype=fn.float64),
        lambda s: fn.where(fn.ones(2) > 0, s, 0.0), lambda s: fn.ones(2, dtype=fn.int64) + s,
    ]  # fmt: skip
    for f in made:
        for number in (0.1, 3):
            eager, compiled = f(number), fn.jit(f)(number)
            assert (eager.dtype, eager.tolist()) == (compiled.dtype, compiled.tolist())


def test_random_programs_over_overlapping_arguments() -> None:
    from benchmarks.aliasing import describe, difference

    for seed in range(500):
        found = difference(seed)
        assert found is None, f"{found}\n{describe(seed)}"
