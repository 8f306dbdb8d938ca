"""Networks that mutants of models are made of, and the mutations: of the message field by field, and of its bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import numpy_helper, parser

NETWORKS = {
    "convolutions": """<ir_version: 8, opset_import: ["" : 17]>
    net (float[n, 3, 8, 8] image) => (float[n, 4] scores) {
        c = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (image, w8_3_3_3, b8)
        b = BatchNormalization <epsilon = 1e-5> (c, s8, b8, m8, v8)
        r = Relu (b)
        d = Conv <pads = [1, 1, 1, 1], group = 8> (r, w8_1_3_3)
        h = HardSwish (d)
        a = Add (h, r)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
        q = Pad (p, pads)
        g = GlobalAveragePool (q)
        f = Flatten (g)
        y = Gemm <transB = 1> (f, w4_8, b4)
        scores = Softmax <axis = -1> (y)
    }""",
    "shapes": """<ir_version: 8, opset_import: ["" : 17]>
    net (float[n, 12] x, int64[n] index) => (float[n, 4] y, float[n, 6] other) {
        shape = Shape (x)
        first = Gather <axis = 0> (shape, zero)
        one = Unsqueeze (first, zeros)
        full = Concat <axis = 0> (one, four)
        r = Reshape (x, full)
        t = Transpose <perm = [0, 2, 1]> (r)
        s = Slice (t, zeros, ends, twos)
        k = Clip (s, low, high)
        z = ConstantOfShape <value = float[1] {2.0}> (four)
        e = Expand (z, big)
        m = ReduceMean <axes = [1, 2], keepdims = 0> (e)
        c = Mul (x, m)
        h = MatMul (c, w12_6)
        l = LayerNormalization <axis = -1> (h, s6, b6)
        other = Sigmoid (l)
        y = Gemm (other, w6_4, b4)
        unused = ReduceSum <keepdims = 0> (k, twos)
    }""",
    "sequences": """<ir_version: 8, opset_import: ["" : 17]>
    net (float[n, 5, 4] x) => (float[n, 3] y) {
        t = Transpose <perm = [1, 0, 2]> (x)
        s, last = LSTM <hidden_size = 4> (t, w1_16_4, r1_16_4, b1_32)
        q = Squeeze (last, zeros)
        u = Resize <mode = "linear", coordinate_transformation_mode = "asymmetric"> (x, , scales)
        v = ReduceMax <axes = [1], keepdims = 0> (u)
        w = Concat <axis = 1> (q, v)
        g = If (yes) <
            then_branch = then () => (float[n, 8] a) { a = Relu (w) },
            else_branch = other () => (float[n, 8] b) { b = Tanh (w) }
        >
        y = Gemm (g, w8_3, b3)
    }""",
}
CONSTANTS: dict[str, Any] = {
    "pads": np.int64([0, 0, 0, 0, 0, 0, 1, 1]), "zero": np.int64(0), "zeros": np.int64([0]), "ends": np.int64([2]),
    "twos": np.int64([1]), "four": np.int64([3, 4]), "big": np.int64([1, 3, 4]), "low": np.float32(-1), "high": np.float32(6),
    "scales": np.float32([1, 2, 1]), "yes": np.bool_(True),
}  # fmt: skip
ODD = (0, 1, -1, 2, 3, 5, 17, 127, 255, 1 << 16, (1 << 31) - 1, -(1 << 31), 1 << 40, -(1 << 62), (1 << 63) - 1)
TEXTS = (
    "",
    "x",
    "y",
    "a" * 300,
    "../../etc/passwd",
    "/dev/zero",
    "\x1b[31mred",
    "line\nline",
    "Conv",
    "Loop",
    "\u202e",
    "com.microsoft",
)


def make_network(name: str) -> onnx.ModelProto:
    """One of NETWORKS with weights drawn; a name such as w8_3_3_3 says their shape."""
    model: onnx.ModelProto = parser.parse_model(NETWORKS[name])
    draw = np.random.default_rng(0)
    produced = {value for node in model.graph.node for value in node.output} | {i.name for i in model.graph.input}
    for used in dict.fromkeys(value for node in model.graph.node for value in node.input):
        if not used or used in produced:
            continue
        value = CONSTANTS.get(used)
        if value is None:
            shape = [int(length) for length in used[1:].split("_")]
            value = (draw.random(shape) + 0.5 if used[0] == "v" else draw.normal(0, 0.4, shape)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), used))
    onnx.checker.check_model(model)
    return model


def mutate_bytes(data: bytes, draw: random.Random) -> bytes:
    """A few bytes overwritten, inserted, taken out or repeated; or the end cut off."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(changed) or 1)
        what = draw.random()
        if what < 0.5 and changed:
            changed[at] = draw.randrange(256)
        elif what < 0.65:
            changed[at:at] = draw.randbytes(draw.randint(1, 8))
        elif what < 0.8:
            del changed[at : at + draw.randint(1, 8)]
        elif what < 0.9:
            changed[at:at] = changed[at : at + draw.randint(1, 64)]
        else:
            del changed[at:]
    return bytes(changed)


def mutate_model(data: bytes, draw: random.Random) -> bytes:
    """A model's message with one to four fields changed, or its bytes."""
    if draw.random() < 0.15:
        return mutate_bytes(data, draw)
    model = onnx.ModelProto.FromString(data)
    for _ in range(draw.randint(1, 4)):
        draw.choice(MUTATIONS)(model, draw)
    return bytes(model.SerializeToString())


def _change_anything(model: onnx.ModelProto, draw: random.Random) -> None:
    """Some field of some message."""
    messages = list(_walk(model))
    message = draw.choice(messages)
    fields = list(message.DESCRIPTOR.fields)
    field = draw.choice([f for f in fields if f.is_repeated and len(getattr(message, f.name))] or fields)
    if draw.random() < 0.5:
        field = draw.choice(fields)
    _change_field(message, field, draw)


def _change_node(model: onnx.ModelProto, draw: random.Random) -> None:
    """Its operator, ends or attributes."""
    nodes = [message for message in _walk(model) if isinstance(message, onnx.NodeProto)]
    if not nodes:
        return
    node, other = draw.choice(nodes), draw.choice(nodes)
    what = draw.randrange(7)
    if what == 0:
        node.op_type = draw.choice(
            [n.op_type for n in nodes] + ["Loop", "Split", "TopK", "Einsum", "Range", "Tile", "QLinearConv"]
        )
    elif what == 1 and node.input:
        names = [name for n in nodes for name in (*n.input, *n.output)] + [i.name for i in model.graph.initializer]
        node.input[draw.randrange(len(node.input))] = draw.choice(names)
    elif what == 2 and node.input:
        del node.input[draw.randrange(len(node.input)) :]
    elif what == 3 and node.output:
        node.output[draw.randrange(len(node.output))] = draw.choice([*TEXTS, *other.output])
    elif what == 4 and node.attribute:
        del node.attribute[draw.randrange(len(node.attribute))]
    elif what == 5 and other.attribute:
        node.attribute.append(draw.choice(list(other.attribute)))
    elif node.attribute:
        attribute = draw.choice(list(node.attribute))
        field = attribute.DESCRIPTOR.fields_by_name[draw.choice(("i", "f", "s", "ints", "floats", "type", "t", "name"))]
        _change_field(attribute, field, draw)


def _change_tensor(model: onnx.ModelProto, draw: random.Random) -> None:
    """Its shape, type, bytes, place or values."""
    tensor = draw.choice(list(model.graph.initializer) or [onnx.TensorProto()])
    what = draw.randrange(7)
    if what == 0 and tensor.dims:
        tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(ODD)
    elif what == 1:
        tensor.data_type = draw.randrange(28)
    elif what == 2:
        tensor.raw_data = tensor.raw_data[: draw.randrange(len(tensor.raw_data) + 1)]
    elif what == 3:
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", draw.choice(TEXTS)
        tensor.data_location = onnx.TensorProto.EXTERNAL
    elif what == 4:
        tensor.raw_data = mutate_bytes(tensor.raw_data, draw)
    elif what == 5 and tensor.raw_data and len(tensor.raw_data) % 8 == 0:
        fields = np.frombuffer(tensor.raw_data, np.int64 if tensor.data_type == 7 else np.float32).copy()
        fields[draw.randrange(len(fields))] = (
            draw.choice(ODD) if tensor.data_type == 7 else draw.choice((np.nan, np.inf, 1e38, 0))
        )
        tensor.raw_data = fields.tobytes()
    else:
        del tensor.dims[:]


def _change_end(model: onnx.ModelProto, draw: random.Random) -> None:
    """The type or shape of an input or output, or whether it is there."""
    ends = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if not ends:
        return
    end = draw.choice(ends)
    what = draw.randrange(5)
    dims = end.type.tensor_type.shape.dim
    if what == 0:
        end.type.tensor_type.elem_type = draw.randrange(28)
    elif what == 1 and dims:
        draw.choice(list(dims)).dim_value = draw.choice(ODD)
    elif what == 2:
        end.type.ClearField(draw.choice(("tensor_type", "denotation")))
    elif what == 3:
        end.name = draw.choice(TEXTS)
    else:
        del model.graph.output[draw.randrange(len(model.graph.output) or 1) :]


def _change_model(model: onnx.ModelProto, draw: random.Random) -> None:
    """Operator set, IR version, nodes twice or none."""
    what = draw.randrange(5)
    if what == 0 and model.opset_import:
        model.opset_import[0].version = draw.choice((*range(26), *ODD))
    elif what == 1:
        model.ir_version = draw.choice((*range(14), *ODD))
    elif what == 2 and model.graph.node:
        del model.graph.node[draw.randrange(len(model.graph.node))]
    elif what == 3 and model.graph.node:
        model.graph.node.append(draw.choice(list(model.graph.node)))
    elif model.graph.initializer:
        del model.graph.initializer[draw.randrange(len(model.graph.initializer))]


MUTATIONS: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    _change_anything, _change_node, _change_node, _change_tensor, _change_end, _change_model,
)  # fmt: skip


def _walk(message: Message) -> Any:
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for each in value if field.is_repeated else (value,):
                yield from _walk(each)


def _change_field(message: Any, field: Any, draw: random.Random) -> None:
    if field.type == field.TYPE_MESSAGE:
        if field.is_repeated and len(getattr(message, field.name)):
            del getattr(message, field.name)[draw.randrange(len(getattr(message, field.name)))]
        else:
            message.ClearField(field.name)
        return
    if field.type == field.TYPE_STRING:
        value: Any = draw.choice(TEXTS)
    elif field.type == field.TYPE_BYTES:
        value = draw.choice(TEXTS).encode()
    elif field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        value = draw.choice((0.0, -1.0, float("nan"), float("inf"), 1e30))
    elif field.type == field.TYPE_ENUM:
        value = draw.randrange(12)
    elif field.type in (field.TYPE_INT64, field.TYPE_UINT64):
        value = abs(draw.choice(ODD)) if field.type == field.TYPE_UINT64 else draw.choice(ODD)
    else:
        value = draw.choice([odd for odd in ODD if 0 <= odd < 1 << 31])
    try:
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
    except ValueError:
        message.ClearField(field.name)
