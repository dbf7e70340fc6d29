"""The pass `deadtokens`: drop the work on tokens that nobody reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

import ffc
from ffc.graph.blocks.structure import Blocks, Layer, Operand
from ffc.graph.blocks.tokens import TOKEN_AXIS, Rows, Tokens, taken_tokens, token_rows
from ffc.graph.dialect.edit import Editor, constant
from ffc.graph.dialect.function import quantises
from ffc.graph.shapes.dim import Dim
from ffc.graph.shapes.inference import Shapes


@dataclass(frozen=True)
class DeadTokens(ffc.Pass):
    """Drop the work on tokens that nobody reads.

    A classifier that reads the first token alone needs, in the last layer, keys and values of every token, but the
    query, the output projection, norms and feed-forward network of one.

    1. Backwards from the outputs it is found which tokens of each value are read, through all operators that treat
       tokens apart; a ``Gather`` or ``Slice`` at fixed positions is where they become few.
    2. At an attention, the query and the rows of the mask become few; keys and values stay.
    3. The selection moves to the inputs of what was found; where several positions are read, all are kept.

    Models that give all tokens, or average over them, are left alone. Outputs stay equal.
    """

    name = "deadtokens"
    needs = ("fuse",)
    before_rounding = True

    def run(self, model: ir.Model, log: ffc.Log) -> None:
        """See `ffc.Pass.run`."""
        if any(quantises(node) for node in model.graph):
            raise ffc.CannotApplyError(
                "the model holds int8 products, whose rounding depends on all tokens together; "
                "run `deadtokens` before `int8`"
            )
        blocks = ffc.find_blocks(model)
        editor = Editor(model)
        reading = _Reading(editor.shapes)
        for node in reversed(list(model.graph)):
            reading.visit(node)
        if _tell(blocks, reading, log):
            _cut(editor, reading)


# Which tokens are read


@dataclass
class _Reading:
    """What is known, from a walk backwards, of the tokens that are read.

    Attributes:
        shapes: Shapes of the graph, all tokens of it until some are left out.
        wanted: The tokens that are read of a value, where those are few.
        why: For values of which all tokens are read, the reason.
        rows: The nodes, of those that have one row per token, of whose output few are read.
        lengths: How many tokens the outputs of these have as long as none is left out.
        apart: All nodes that have one row per token, with the inputs of which that is so.
        selections: What nodes select that take tokens at fixed positions.
    """

    shapes: Shapes
    wanted: dict[ir.Value, Tokens] = field(default_factory=dict)
    why: dict[ir.Value, str] = field(default_factory=dict)
    rows: dict[ir.Node, Rows] = field(default_factory=dict)
    lengths: dict[ir.Value, Dim | None] = field(default_factory=dict)
    apart: dict[ir.Node, Rows] = field(default_factory=dict)
    selections: dict[ir.Node, Tokens] = field(default_factory=dict)

    def visit(self, node: ir.Node) -> None:
        """Note what is read of the outputs of `node`; their consumers were visited before."""
        taken = taken_tokens(node, self.shapes)
        if isinstance(taken, tuple):
            self.selections[node] = taken
        rows = token_rows(node, self.shapes)
        if rows:
            self.apart[node] = rows
        outputs = [value for value in node.outputs if value.uses() or value.is_graph_output()] or node.outputs[:1]
        read = self._read(outputs)
        if isinstance(read, str):
            self.why.update(dict.fromkeys(node.outputs, read))
            return
        self.wanted.update(dict.fromkeys(node.outputs, read))
        if rows:
            self.rows[node] = rows
            self.lengths.update({value: self._length(value) for value in node.outputs})

    def _length(self, value: ir.Value) -> Dim | None:
        shape = self.shapes.of(value)
        return shape[TOKEN_AXIS] if shape is not None and len(shape) > TOKEN_AXIS else None

    def _read(self, outputs: Sequence[ir.Value]) -> Tokens | str:
        """Return the tokens that are read of any of the outputs of one node, or why all are."""
        found: set[int] = set()
        for value in outputs:
            if value.is_graph_output():
                return f"'{value.name}' is an output of the model"
            for use in value.uses():
                tokens = self._read_by(use.node, use.idx)
                if isinstance(tokens, str):
                    return tokens
                found.update(tokens)
        size = self._length(outputs[0])
        if isinstance(size, int):
            found = {token % size for token in found}
            if len(found) == size:
                return f"it has {size} tokens and all are read" if size > 1 else "it has one token only"
        return tuple(sorted(found, key=lambda token: (token < 0, token))) or "nothing reads it"

    def _read_by(self, node: ir.Node, index: int) -> Tokens | str:
        """Return the tokens that `node` reads of its input `index`, or why it reads all."""
        if index == 0 and node in self.selections:
            return self.selections[node]
        if self.rows.get(node, {}).get(index) == TOKEN_AXIS:
            return self.wanted[node.outputs[0]]
        if index in self.apart.get(node, ()) and node.outputs[0] in self.why:
            return self.why[node.outputs[0]]
        taken = taken_tokens(node, self.shapes) if index == 0 else None
        return taken if isinstance(taken, str) else f"{node.op_type} '{node.name}' reads all tokens"


# Leaving the others out


def _tell(blocks: Blocks, reading: _Reading, log: ffc.Log) -> bool:
    """Say what becomes shorter and what does not; return whether it is worth while."""
    parts = {product.out: product for product in blocks.products if product.node in reading.rows}
    for layer in blocks.layers:
        shorter = [product.role for product in layer.products() if parts.pop(product.out, None)]
        if shorter:
            log.did("layers")
            log.note(f"layer {layer.index}: {', '.join(shorter)} on {_named(_tokens(layer, reading))}")
    log.did("other products", len(parts))
    if not blocks.layers:
        log.missed("layers", "none was found in the model")
    elif (reason := _obstacle(blocks.layers[-1], reading)) is not None:
        log.missed(f"layer {blocks.layers[-1].index}", reason)
    return log.count > 0


def _tokens(layer: Layer, reading: _Reading) -> Tokens:
    return next(reading.wanted[p.out] for p in layer.products() if p.node in reading.rows)


def _named(tokens: Tokens) -> str:
    if tokens in ((0,), (-1,)):
        return "the first token alone" if tokens == (0,) else "the last token alone"
    return f"tokens {', '.join(map(str, tokens))} alone"


def _obstacle(layer: Layer, reading: _Reading) -> str | None:
    """Say why the attention of the last layer is computed for all tokens, or None if it is not."""
    attention = layer.attention
    if attention is None or attention.node in reading.rows:
        return None
    if attention.context in reading.why:
        queries, keys = (_token_count(operand, reading.shapes) for operand in attention.operands[:2])
        if queries != keys:
            return f"it has {queries} queries to {keys} keys already"
        return f"all tokens of it are read: {reading.why[attention.context]}"
    return f"its attention is computed for all tokens: '{attention.node.name}' is no call, or its shapes are not known"


def _token_count(operand: Operand, shapes: Shapes) -> Dim | None:
    shape = shapes.of(operand.value)
    return None if shape is None else shape[TOKEN_AXIS if operand.axes is None else operand.axes[1]]


def _cut(editor: Editor, reading: _Reading) -> None:
    """Compute of every value only the tokens that are read."""
    narrow = _Narrow(editor, reading)
    for node, rows in reversed(reading.rows.items()):
        tokens = reading.wanted[node.outputs[0]]
        for index, axis in rows.items():
            value = node.inputs[index]
            assert value is not None
            editor.replace_input(node, index, narrow.value(value, tokens, axis, node))
    for node, tokens in reading.selections.items():
        source = node.inputs[0]
        assert source is not None
        if source.producer() in reading.rows:
            narrow.select(node, source, tokens)


@dataclass
class _Narrow:
    """Takes tokens of values, each no more than once."""

    editor: Editor
    reading: _Reading
    made: dict[tuple[ir.Value, Tokens, int], ir.Value] = field(default_factory=dict)

    def value(self, value: ir.Value, tokens: Tokens, axis: int, before: ir.Node) -> ir.Value:
        """Return `value` with these tokens alone; `before` reads it."""
        places = self._places(value, tokens)
        if places is None:
            return value
        if (value, tokens, axis) not in self.made:
            op = self.editor.at(before, f"{value.name}.tokens")
            self.made[value, tokens, axis] = op.Gather(value, list(places), axis=axis)
        return self.made[value, tokens, axis]

    def select(self, node: ir.Node, source: ir.Value, tokens: Tokens) -> None:
        """Replace `node`, which selected `tokens` of all of `source`, now that it holds few."""
        index = None if node.op_type == "Slice" else constant(node.inputs[1])
        places = self._places(source, tokens)
        old = node.outputs[0]
        if index is None or index.ndim:
            self.editor.replace(old, self.value(source, tokens, TOKEN_AXIS, node))
            return
        op = self.editor.at(node, f"{old.name}.token")
        new = op.Squeeze(source, [TOKEN_AXIS]) if places is None else op.Gather(source, places[0], axis=TOKEN_AXIS)
        self.editor.replace(old, new, fresh=True)

    def _places(self, value: ir.Value, tokens: Tokens) -> Tokens | None:
        """Return where `tokens` lie in `value` as it is now, None where they are all it holds."""
        if value.producer() not in self.reading.rows:
            return tokens
        held = self.reading.wanted[value]
        length = self.reading.lengths[value]
        tokens = tuple(token % length for token in tokens) if isinstance(length, int) else tokens
        return None if tokens == held else tuple(held.index(token) for token in tokens)
