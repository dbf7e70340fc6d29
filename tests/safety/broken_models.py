"""Files that are no models, graphs that do not hold together, and models that ask for more than there is."""

from __future__ import annotations

import io
import itertools
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper, numpy_helper

from tests.safety.broken import encoder, parsed, put, row, with_weight

# No models


def _png() -> bytes:
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(100)


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps({"weight": [1.0]}))
    return buffer.getvalue()


def _bytes_rows() -> None:
    for name, content, words in (
        ("text", b"hello, this is no model\n" * 9, "not an ONNX model"),
        ("png", _png(), "not an ONNX model"),
        ("zip as torch.save writes", _zip(), "not an ONNX model"),
        ("pickle", pickle.dumps({"weight": [1.0] * 99}), "not an ONNX model"),
        ("empty", b"", "it is empty"),
        ("no graph", onnx.ModelProto(ir_version=10).SerializeToString(), "without a graph"),
    ):
        row(name, 3, words)(lambda folder, content=content: put(folder, content))
    for share in (0.02, 0.5, 0.99):
        row(f"cut at {share:.0%}", 3, "not an ONNX model")(
            lambda folder, share=share: put(folder, encoder()[: int(share * len(encoder()))])
        )


_bytes_rows()


@row("missing", 3, "no such file")
def _missing(folder: Path) -> None:
    return None


@row("a pipe", 3, "not a regular file")
def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "m.onnx")


@row("subgraphs nested 1000 deep", 3, "not an ONNX model")
def _nested(folder: Path) -> None:
    def framed(number: int, content: bytes) -> bytes:
        length, size = bytearray(), len(content)
        while size >= 0x80:
            length.append(size & 0x7F | 0x80)
            size >>= 7
        return bytes([number << 3 | 2, *length, size]) + content

    content = b""
    for _ in range(1000):
        content = framed(1, framed(4, b"If") + framed(5, framed(1, b"then_branch") + framed(6, content)))
    put(folder, b"\x08\x0a" + framed(7, content))


# Graphs that do not hold together


@row("cycle", 3, "cycle")
def _cycle(folder: Path) -> None:
    put(folder, parsed("a = Add(x, b) b = Abs(a) y = Abs(b)"))


@row("dangling input", 3, "'nowhere', which nothing produces")
def _dangling(folder: Path) -> None:
    proto = parsed("y = Abs(x)")
    proto.graph.node[0].input[0] = "nowhere"
    put(folder, proto)


@row("produced twice", 3, "'a' is produced twice")
def _twice(folder: Path) -> None:
    proto = parsed("a = Abs(x) b = Neg(x) y = Add(a, b)")
    proto.graph.node[1].output[0] = "a"
    put(folder, proto)


@row("an output listed twice", 3, "the output 'y' is listed twice")
def _listed_twice(folder: Path) -> None:
    proto = parsed("y = Abs(x)")
    proto.graph.output.append(proto.graph.output[0])
    put(folder, proto)


@row("no outputs", 3, "no outputs")
def _no_outputs(folder: Path) -> None:
    proto = parsed("y = Abs(x)")
    del proto.graph.output[:]
    put(folder, proto)


@row("opset 999", 3, "of opset 999, known are 1 to")
def _opset_999(folder: Path) -> None:
    put(folder, parsed("y = Abs(x)", opset=999))


@row("opset 1 with an operator of 20", 3, "Gelu")
def _opset_1(folder: Path) -> None:
    put(folder, parsed("y = Gelu(x)", opset=1))


@row("unknown domain", 3, "'elsewhere'")
def _domain(folder: Path) -> None:
    proto = parsed("y = Abs(x)")
    proto.graph.node[0].domain = "elsewhere"
    put(folder, proto)


@row("operator of a custom library", 3, "ai.onnx.contrib:Abs(-1) is not a registered function")
def _custom(folder: Path) -> None:
    proto = parsed("y = Abs(x)")
    proto.graph.node[0].domain = "ai.onnx.contrib"
    proto.opset_import.append(helper.make_opsetid("ai.onnx.contrib", 1))
    put(folder, proto)


@row("function that calls itself", 3, "functions call themselves")
def _endless(folder: Path) -> None:
    proto = parsed("y = Abs(x)")
    call = helper.make_node("F", ["x"], ["y"], domain="f")
    proto.functions.append(helper.make_function("f", "F", ["x"], ["y"], [call], [helper.make_opsetid("f", 1)]))
    proto.opset_import.append(helper.make_opsetid("f", 1))
    proto.graph.node[0].domain, proto.graph.node[0].op_type = "f", "F"
    put(folder, proto)


@row("sparse weights", 3, "sparse")
def _sparse(folder: Path) -> None:
    proto = with_weight(np.ones(1, np.float32))
    weight = proto.graph.initializer.pop()
    index = numpy_helper.from_array(np.array([7]), "i")
    proto.graph.sparse_initializer.append(onnx.SparseTensorProto(values=weight, indices=index, dims=[2**40]))
    put(folder, proto)


@row("weights that are text", 3, "onnxruntime refuses the model")
def _strings(folder: Path) -> None:
    proto = parsed("y = Mul(x, w)")
    proto.graph.initializer.append(helper.make_tensor("w", TensorProto.STRING, [2], [b"a", b"b"]))
    put(folder, proto)


# Names


def _named(name: str) -> onnx.ModelProto:
    proto = parsed("a = Abs(x) y = Reshape(a, a)")  # of the wrong type, so that something has to be said
    proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = proto.graph.node[1].input[1] = name
    return proto


for _what, _name, _words in (
    ("line break in a name", "a\nffc: all is well", "control characters"),
    ("terminal escape in a name", "a\x1b[2J\x1b]0;owned\x07", "control characters"),
    ("text that runs backwards in a name", "a\u202eb", "control characters"),
    ("endless name", "n" * 1_000_000, "1000000 characters"),
):
    row(_what, 3, _words)(lambda folder, name=_name: put(folder, _named(name)))


@row("a name that is not UTF-8", 3, "is not text")
def _not_text(folder: Path) -> None:
    put(folder, _named("abcd").SerializeToString().replace(b"abcd", b"ab\xff\xfe"))


# Tensors, and data beside the model


@row("negative dimensions", 3, "negative dimension")
def _negative(folder: Path) -> None:
    proto = with_weight(np.ones((4,), np.float32))
    proto.graph.initializer[0].dims[:] = [-2, -2]
    put(folder, proto)


@row("short data", 3, "too few")
def _short(folder: Path) -> None:
    proto = with_weight(np.ones((4,), np.float32))
    proto.graph.initializer[0].raw_data = bytes(3)
    put(folder, proto)


def _external(folder: Path, **changes: str) -> None:
    inner = folder / "model"
    inner.mkdir()
    proto = with_weight(np.ones((4,), np.float32))
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    given = {"location": "w.data", "offset": "0", "length": "16"} | changes
    for key, value in given.items():
        tensor.external_data.add(key=key, value=value)
    put(inner, proto)
    (inner / "w.data").write_bytes(bytes(16))
    (folder / "secret.data").write_bytes(bytes(16))


for _what, _changes, _words in (
    ("../", {"location": "../secret.data"}, "outside the model's folder"),
    ("absolute", {"location": "/etc/passwd"}, "outside the model's folder"),
    ("symlink", {"location": "soft.data"}, "outside the model's folder"),
    ("hard link", {"location": "hard.data"}, "hard link"),
    ("device", {"location": "/dev/zero"}, "outside the model's folder"),
    ("link to a device", {"location": "zero.data"}, "outside the model's folder"),
    ("pipe", {"location": "pipe.data"}, "no regular file"),
    ("missing", {"location": "absent.data"}, "missing"),
    ("negative offset", {"offset": "-8"}, "does not lie within"),
    ("offset past the end", {"offset": "17"}, "does not lie within"),
    ("huge offset", {"offset": str(2**63)}, "does not lie within"),
    ("negative length", {"length": "-16"}, "does not lie within"),
    ("huge length", {"length": str(2**62)}, "does not lie within"),
):

    @row(f"external data: {_what}", 3, _words)
    def _outside(folder: Path, changes: dict[str, str] = _changes) -> list[str]:
        _external(folder, **changes)
        inner = folder / "model"
        (inner / "soft.data").symlink_to(folder / "secret.data")
        (inner / "hard.data").hardlink_to(folder / "secret.data")
        (inner / "zero.data").symlink_to("/dev/zero")
        os.mkfifo(inner / "pipe.data")
        return ["compile", "model/m.onnx", "-o", "out.onnx"]


# Models that ask for more than there is


@row("functions that call functions, 2^30 nodes", 3, "over the limit 'nodes'", quick=True)
def _functions(folder: Path) -> None:
    proto = parsed("y = Abs(x)")
    opsets = [helper.make_opsetid("f", 1), helper.make_opsetid("", 20)]
    for level in range(30):
        inner = ("Abs", "") if level == 0 else (f"F{level - 1}", "f")
        nodes = [helper.make_node(inner[0], [a], [b], domain=inner[1]) for a, b in (("x", "t"), ("t", "y"))]
        proto.functions.append(helper.make_function("f", f"F{level}", ["x"], ["y"], nodes, opsets))
    proto.opset_import.append(helper.make_opsetid("f", 1))
    proto.graph.node[0].domain, proto.graph.node[0].op_type = "f", "F29"
    put(folder, proto)


@row("doubled by Concat 35 times", 3, "over the limit 'value'", quick=True)
def _concat(folder: Path) -> None:
    names = ["w", *(f"a{i}" for i in range(35))]
    body = " ".join(f"{b} = Concat<axis=0>({a}, {a})" for a, b in itertools.pairwise(names))
    put(folder, with_weight(np.ones(4, np.float32), f"{body} s = ReduceSum<keepdims=0>({names[-1]}) y = Add(x, s)"))


for _what, _body in (
    ("ConstantOfShape", "b = ConstantOfShape(n)"),
    ("Expand", "b = Expand(f, n)"),
    ("Tile", "b = Tile(f, n)"),
    ("Pad", "p = Concat<axis=0>(n, n) b = Pad(f, p)"),
    (
        "Range",
        "o = Constant<value_int=0>() e = Constant<value_int=1>() z = Squeeze(n) r = Range(o, z, e) b = Cast<to=1>(r)",
    ),
):

    @row(f"a terabyte by {_what}", 3, "over the limit 'value'", quick=True)
    def _terabyte(folder: Path, body: str = _body) -> None:
        head = f"n = Constant<value_ints=[{2**40}]>() f = Constant<value_floats=[1.0]>()"
        put(folder, parsed(f"{head} {body} s = ReduceSum<keepdims=0>(b) y = Add(x, s)"))


@row("an input of a terabyte", 3, "over the limit 'value'", quick=True)
def _input(folder: Path) -> None:
    put(folder, parsed("y = ReduceSum<keepdims=0>(x)", inputs="float[1048576, 1048576] x"))


@row("a terabyte that shapes do not tell", 3, "memory")
def _untold(folder: Path) -> list[str]:
    head = "c = Cast<to=7>(x) z = Mul(c, c) m = ReduceMax<keepdims=1>(z) k = Constant<value_ints=[1099511627776]>()"
    put(folder, parsed(f"{head} o = Max(m, k) b = ConstantOfShape(o) s = ReduceSum<keepdims=0>(b) y = Add(x, s)"))
    return ["--limit", "memory=2G", "compile", "m.onnx", "-o", "out.onnx"]


@row("too many products", 3, "over the limit 'macs'", quick=True)
def _products(folder: Path) -> None:
    body = "n = Constant<value_ints=[15000, 15000]>() a = ConstantOfShape(n) " + " ".join(
        f"{b} = MatMul({a}, {a})" for a, b in (("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"))
    )
    put(folder, parsed(f"{body} s = ReduceSum<keepdims=0>(e) y = Add(x, s)"))


@row("a loop without end", 3, "runs longer than 1 s")
def _loop(folder: Path) -> list[str]:
    loop = "<body = b (int64 i, bool ci, float[4] v) => (bool co, float[4] vo) { co = Identity(ci) vo = Abs(v) }>"
    put(
        folder, parsed(f"n = Constant<value_int={2**62}>() c = Constant<value = bool {{1}}>() y = Loop(n, c, x) {loop}")
    )
    return ["--limit", "seconds=1", "compile", "m.onnx", "-o", "out.onnx"]


@row("a limit that there is not", 2, "no limit is called 'node'; did you mean 'nodes'?")
def _limit(folder: Path) -> list[str]:
    put(folder, encoder())
    return ["--limit", "node=5", "compile", "m.onnx", "-o", "out.onnx"]


# Models that run, and should not


@row("live Dropout", 4, "draws random numbers")
def _dropout(folder: Path) -> None:
    put(
        folder,
        parsed("r = Constant<value_float=0.0>() t = Constant<value = bool {1}>() y = Dropout(x, r, t)", opset=13),
    )


for _what, _value in (("NaN", np.nan), ("infinite", np.inf)):
    row(f"{_what} weights", 3, "not finite")(
        lambda folder, value=_value: put(folder, with_weight(np.full(4, value, np.float32)))
    )
