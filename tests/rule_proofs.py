"""A rule is proved on a sample of its own: it fires there or not as the sample says, and both sides compute the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ffc.compiler.log import Log
from ffc.compiler.rules import Rule, Sample, apply
from ffc.graph.execute import Runner
from tests.graphs import of_program


def samples(rule: Rule, seeds: Sequence[int]) -> Iterator[Sample]:
    """Yield the samples of `rule`, drawn once for each seed."""
    for seed in seeds:
        random = np.random.default_rng(seed)
        yield from (sample.drawn(random) for sample in rule.samples)


def prove(rule: Rule, sample: Sample, *, symbolic: bool = False) -> int:
    """Return how often `rule` fires on its left side with the tensors of `sample`, and check what it makes of it.

    Args:
        rule: The rule.
        sample: A sample of it with arrays.
        symbolic: Whether sizes of inputs are symbols; the rule may then be careful and not fire.
    """
    before, log = of_program(rule.match, sample.inputs, sample.constants, sample.attributes, symbolic=symbolic), Log()
    after = before.clone()
    count = apply([rule], after, log)
    assert sample.matches or not count, "it takes what it shall leave alone"
    assert count or symbolic or not sample.matches, [miss.why for miss in log.misses]
    assert log.done == ({rule.name: count} if count else {})
    if count:
        _assert_same(before, after, sample.inputs, 1e-5)
    return count


def _assert_same(before: ir.Model, after: ir.Model, feeds: Mapping[str, np.ndarray], tolerance: float) -> None:
    one, other = (Runner(model, optimise=False).run(feeds)["y"] for model in (before, after))
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
    if one.dtype.kind != "f":
        assert np.array_equal(one, other)
        return
    assert np.isfinite(one).all()
    assert np.abs(one - other).max(initial=0.0) <= tolerance * np.abs(one).max(initial=0.0)
