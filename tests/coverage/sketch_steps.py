"""What random graphs are grown of: the ingredients of encoders, each a function that adds some nodes where they fit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto, helper

from tests.coverage.sketch import TYPES, WIDTHS, Sketch, Value

LOWEST = float(np.finfo(np.float32).min)


def _float(value: Value) -> bool:
    return value.dtype == "float32"


def _wide(value: Value) -> bool:
    return _float(value) and len(value.shape) >= 1 and isinstance(value.shape[-1], int)


def _tokens(value: Value) -> bool:
    return _wide(value) and value.shape[:2] == ("batch", "seq") and len(value.shape) == 3


def product(g: Sketch) -> Value | None:
    """MatMul with a weight, on any rank, with or without a bias on either side; Gemm in all its forms."""
    x = g.pick(lambda each: _wide(each) and len(each.shape) >= 2)
    if x is None:
        return None
    return _dense(g, x, g.dice.choice(WIDTHS))


def _dense(g: Sketch, x: Value, outer: int) -> Value:
    inner, shape = x.shape[-1], (*x.shape[:-1], outer)
    assert isinstance(inner, int)
    if len(x.shape) == 2 and g.dice.random() < 0.7:
        turned = g.dice.randrange(2)
        weight = g.weight(*((outer, inner) if turned else (inner, outer)))
        alpha, beta = g.dice.choice((1.0, 0.5)), g.dice.choice((1.0, 2.0))
        bias = [g.weight(outer)] if g.dice.random() < 0.7 else []
        return g.op("Gemm", x, weight, *bias, shape=shape, transB=turned, alpha=alpha, beta=beta)
    y = g.op("MatMul", x, g.weight(inner, outer), shape=shape)
    if g.dice.random() < 0.7:
        both = [y, g.weight(outer)]
        g.dice.shuffle(both)
        y = g.op("Add", *both, shape=shape, dtype="float32")
    return y


def norm(g: Sketch) -> Value | None:
    """A norm written out over any axis, with a mean or without, with weights or without; or the operator."""
    x = g.pick(lambda each: _float(each) and len(each.shape) >= 2)
    if x is None:
        return None
    axis = g.dice.choice((len(x.shape) - 1, len(x.shape) - 1, g.dice.randrange(len(x.shape))))
    last = axis == len(x.shape) - 1 and isinstance(x.shape[-1], int)
    if last and g.opset >= 17 and g.dice.random() < 0.3:
        width = x.shape[-1]
        return g.op("LayerNormalization", x, g.weight(width, mean=1.0), g.weight(width), shape=x.shape, epsilon=1e-5)
    y = x
    if g.dice.random() < 0.7:
        y = g.op("Sub", x, g.reduce("ReduceMean", x, axis, True), shape=x.shape)
    square = g.dice.choice((lambda: g.op("Mul", y, y, shape=y.shape), lambda: g.op("Pow", y, g.constant(2.0, "float32"), shape=y.shape)))()
    variance = g.reduce("ReduceMean", square, axis, True)
    root = g.op("Sqrt", g.op("Add", variance, g.constant(1e-5, "float32"), shape=variance.shape), shape=variance.shape)
    if g.dice.random() < 0.5:
        y = g.op("Div", y, root, shape=y.shape)
    else:
        y = g.op("Mul", y, g.op("Reciprocal", root, shape=root.shape), shape=y.shape)
    if last and g.dice.random() < 0.7:
        y = g.op("Mul", y, g.weight(x.shape[-1], mean=1.0), shape=y.shape)
        y = g.op("Add", y, g.weight(x.shape[-1]), shape=y.shape)
    return y


def softmax(g: Sketch) -> Value | None:
    """Softmax over any axis."""
    x = g.pick(lambda each: _float(each) and len(each.shape) >= 1)
    return x and g.op(g.dice.choice(("Softmax", "Softmax", "LogSoftmax")), x, shape=x.shape, axis=g.dice.randrange(len(x.shape)))


def _keep(g: Sketch) -> Value | None:
    """Return a mask [batch, seq] as bool, True for tokens to keep, from a mask or from lengths."""
    given = [each for each in g.inputs if each.means in ("mask", "lengths") and each.shape in (("batch", "seq"), ("batch",))]
    if not given:
        return None
    mask = g.dice.choice(given)
    if mask.means == "mask":
        return mask if mask.dtype == "bool" else g.op("Cast", mask, shape=mask.shape, dtype="bool", to=TensorProto.BOOL)
    x = g.pick(_tokens)
    if x is None:
        return None
    end = g.op("Squeeze", g.size(x, 1), shape=())
    places = g.op("Range", g.constant(0), end, g.constant(1), shape=("seq",), dtype="int64")
    ends = g.op("Unsqueeze", g.op("Cast", mask, shape=mask.shape, dtype="int64", to=TensorProto.INT64), g.constant([1]), shape=("batch", 1))
    return g.op("Less", places, ends, shape=("batch", "seq"), dtype="bool")


def masked(g: Sketch) -> Value | None:
    """Hidden tokens set to a number, or multiplied away."""
    x, keep = g.pick(_tokens), _keep(g)
    if x is None or keep is None:
        return None
    across = g.op("Unsqueeze", keep, g.constant([2]), shape=("batch", "seq", 1))
    if g.dice.random() < 0.5:
        return g.op("Where", across, x, g.constant(g.dice.choice((0.0, -1e4)), "float32"), shape=x.shape, dtype="float32")
    return g.op("Mul", x, g.op("Cast", across, shape=across.shape, dtype="float32", to=TensorProto.FLOAT), shape=x.shape)


def attention(g: Sketch) -> Value | None:
    """Attention in one head or two, with a mask in one of its forms or without."""
    x = g.pick(lambda each: _tokens(each) and each.shape[-1] % 2 == 0)
    if x is None:
        return None
    width, heads = x.shape[-1], g.dice.choice((1, 2))
    assert isinstance(width, int)
    q, k, v = (g.op("MatMul", x, g.weight(width, width), shape=x.shape) for _ in range(3))
    if heads > 1:
        q, k, v = (_heads(g, each, heads) for each in (q, k, v))
    size, rank = width // heads, len(q.shape)
    perm = [*range(rank - 2), rank - 1, rank - 2]
    turned = g.op("Transpose", k, shape=(*k.shape[:-2], k.shape[-1], "seq"), perm=perm)
    scores = g.op("MatMul", q, turned, shape=(*q.shape[:-1], "seq"))
    scores = g.op("Mul", scores, g.constant(size**-0.5, "float32"), shape=scores.shape)
    keep = _keep(g) if g.dice.random() < 0.7 else None
    if keep is not None:
        axes = [1] if rank == 3 else [1, 2]
        across = g.op("Unsqueeze", keep, g.constant(axes), shape=("batch", *[1] * len(axes), "seq"))
        far = g.constant(g.dice.choice((-1e4, -1e9, LOWEST)), "float32")
        if g.dice.random() < 0.5:
            scores = g.op("Where", across, scores, far, shape=scores.shape, dtype="float32")
        else:
            real = g.op("Cast", across, shape=across.shape, dtype="float32", to=TensorProto.FLOAT)
            hidden = g.op("Sub", g.constant(1.0, "float32"), real, shape=real.shape)
            scores = g.op("Add", scores, g.op("Mul", hidden, far, shape=real.shape), shape=scores.shape)
    weights = g.op("Softmax", scores, shape=scores.shape, axis=g.dice.choice((-1, rank - 1)))
    y = g.op("MatMul", weights, v, shape=v.shape)
    if heads > 1:
        y = g.op("Transpose", y, shape=("batch", "seq", heads, size), perm=[0, 2, 1, 3])
        y = g.op("Reshape", y, g.constant([0, 0, width]), shape=x.shape)
    return g.op("Add", y, x, shape=x.shape) if g.dice.random() < 0.7 else y


def _heads(g: Sketch, x: Value, heads: int) -> Value:
    size = x.shape[-1] // heads
    cut = g.op("Reshape", x, g.constant(g.dice.choice(([0, 0, heads, size], [0, 0, -1, size]))), shape=("batch", "seq", heads, size))
    return g.op("Transpose", cut, shape=("batch", heads, "seq", size), perm=[0, 2, 1, 3])


def activation(g: Sketch) -> Value | None:
    """GELU in its forms, and others."""
    x = g.pick(_float)
    if x is None:
        return None

    def number(given: float) -> Value:
        return g.constant(given, "float32")

    def two(op_type: str, a: Value, b: Value) -> Value:
        return g.op(op_type, a, b, shape=x.shape, dtype="float32")

    def one(op_type: str, a: Value, **attributes: str) -> Value:
        return g.op(op_type, a, shape=x.shape, **attributes)

    kind = g.dice.choice(("erf", "erf", "tanh", "sigmoid", "plain", "gelu"))
    if kind == "erf":
        inner = two("Add", one("Erf", two("Div", x, number(2**0.5))), number(1.0))
        return two("Mul", two("Mul", x, inner), number(0.5)) if g.dice.random() < 0.5 else two("Mul", two("Mul", x, number(0.5)), inner)
    if kind == "tanh":
        cube = two("Mul", number(0.044715), two("Pow", x, number(3.0)))
        inner = two("Add", one("Tanh", two("Mul", two("Add", x, cube), number((2 / np.pi) ** 0.5))), number(1.0))
        return two("Mul", two("Mul", x, number(0.5)), inner)
    if kind == "sigmoid":
        return two("Mul", x, one("Sigmoid", two("Mul", x, number(g.dice.choice((1.0, 1.702))))))
    if kind == "gelu" and g.opset >= 20:
        return one("Gelu", x, approximate=g.dice.choice(("none", "tanh")))
    return one(g.dice.choice(("Relu", "Tanh", "Sigmoid", "Abs", "Neg", "Softplus", "Erf")), x)


def layout(g: Sketch) -> Value | None:
    """Transpose, a Reshape by computed sizes and back, Slice, Split and Concat, Unsqueeze, Expand."""
    x = g.pick(lambda each: _float(each) and len(each.shape) >= 2)
    if x is None:
        return None
    rank, kind = len(x.shape), g.dice.choice(("transpose", "merge", "slice", "split", "expand", "gather"))
    if kind == "transpose":
        perm = g.dice.sample(range(rank), rank)
        return g.op("Transpose", x, shape=[x.shape[axis] for axis in perm], perm=perm)
    if kind == "merge" and rank == 3 and isinstance(x.shape[-1], int):
        flat = g.op("Reshape", x, g.constant([-1, x.shape[-1]]), shape=("rows", x.shape[-1]))
        outer = g.dice.choice(WIDTHS)
        y = _dense(g, flat, outer)
        sizes = [g.size(x, 0), g.size(x, 1), g.constant([outer])]
        target = g.op("Concat", *sizes, shape=(3,), dtype="int64", axis=0)
        return g.op("Reshape", y, target, shape=(*x.shape[:2], outer))
    axis = g.dice.randrange(rank)
    size = x.shape[axis]
    if kind == "slice" and isinstance(size, int) and size > 2:
        ends = (g.constant([1]), g.constant([g.dice.choice((-1, size - 1))]), g.constant([axis]), g.constant([1]))
        return g.op("Slice", x, *ends, shape=(*x.shape[:axis], size - 2, *x.shape[axis + 1 :]))
    if kind == "split" and isinstance(size, int) and size > 2:
        parts = g.split(x, axis, [1, size - 1])
        g.dice.shuffle(parts)
        return g.op("Concat", *parts, shape=x.shape, axis=axis)
    if kind == "gather":
        row = g.dice.choice((g.constant(0), g.constant([0])))
        return g.op("Gather", x, row, shape=(*x.shape[:axis], *row.shape, *x.shape[axis + 1 :]), axis=axis)
    one = g.reduce("ReduceMax", x, axis, True)
    return g.op("Expand", one, g.op("Shape", x, shape=(rank,), dtype="int64"), shape=x.shape)


def reduction(g: Sketch) -> Value | None:
    """A reduction of any axis."""
    x = g.pick(lambda each: _float(each) and len(each.shape) >= 2)
    if x is None:
        return None
    op_type = g.dice.choice(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2"))
    return g.reduce(op_type, x, g.dice.randrange(len(x.shape)), g.dice.random() < 0.5)


def scalar(g: Sketch) -> Value | None:
    """A scalar input of any type, multiplied or added."""
    x, given = g.pick(_float), [each for each in g.inputs if each.means == "scalar"]
    if x is None or not given:
        return None
    number = g.dice.choice(given)
    if number.dtype == "bool" and g.dice.random() < 0.5:
        return choice(g, x, number)
    if number.dtype != "float32":
        number = g.op("Cast", number, shape=(), dtype="float32", to=TensorProto.FLOAT)
    return g.op(g.dice.choice(("Mul", "Add")), x, number, shape=x.shape)


def choice(g: Sketch, x: Value, condition: Value) -> Value:
    """An If whose branches read a value from outside."""
    bodies = []
    for op_type in ("Neg", "Relu"):
        out = helper.make_tensor_value_info(f"{op_type}_{len(g.nodes)}", TYPES["float32"], None)
        bodies.append(helper.make_graph([helper.make_node(op_type, [x.name], [out.name])], op_type, [], [out]))
    return g.op("If", condition, shape=x.shape, dtype="float32", then_branch=bodies[0], else_branch=bodies[1])


def loop(g: Sketch) -> Value | None:
    """A Loop that halves a value twice; rarely."""
    x = g.pick(_float)
    if x is None or g.dice.random() < 0.7:
        return None
    mark = len(g.nodes)
    carried = [helper.make_tensor_value_info(f"{name}_{mark}", TYPES["float32"], None) for name in ("in", "out")]
    step, going, still = (helper.make_tensor_value_info(f"{n}_{mark}", t, []) for n, t in (("i", TYPES["int64"]), ("go", TYPES["bool"]), ("on", TYPES["bool"])))
    half = g.constant(0.5, "float32")
    body = [
        helper.make_node("Identity", [going.name], [still.name]),
        helper.make_node("Mul", [carried[0].name, half.name], [carried[1].name]),
    ]
    graph = helper.make_graph(body, "body", [step, going, carried[0]], [still, carried[1]])
    return g.op("Loop", g.constant(2), g.constant(True, "bool"), x, shape=x.shape, dtype="float32", body=graph)


def cast(g: Sketch) -> Value | None:
    """Through another type and back, or to whole numbers and truths that stay."""
    x = g.pick(_float)
    if x is None:
        return None
    if g.dice.random() < 0.3:
        return g.op("Greater", x, g.constant(0.0, "float32"), shape=x.shape, dtype="bool")
    y = g.op("Cast", x, shape=x.shape, dtype="float64", to=TensorProto.DOUBLE)
    return g.op("Cast", y, shape=x.shape, dtype="float32", to=TensorProto.FLOAT)


def pair(g: Sketch) -> Value | None:
    """Two values of one shape, in an operator or joined along an axis."""
    x = g.pick(_float)
    y = x and g.pick(lambda each: _float(each) and each.shape == x.shape and each.name != x.name)
    if x is None or y is None:
        return None
    last = x.shape[-1] if x.shape else None
    if isinstance(last, int) and g.dice.random() < 0.3:
        return g.op("Concat", x, y, shape=(*x.shape[:-1], 2 * last), axis=-1)
    return g.op(g.dice.choice(("Add", "Add", "Mul", "Sub", "Max")), x, y, shape=x.shape)


STEPS: tuple[tuple[int, Callable[[Sketch], Value | None]], ...] = (
    (5, product), (4, norm), (2, softmax), (3, masked), (4, attention), (4, activation), (4, layout), (2, reduction), (8, scalar),
    (1, loop), (1, cast), (3, pair),
)  # fmt: skip
"""How often each is tried, and what."""
