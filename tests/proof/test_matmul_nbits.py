"""What MatMulNBits does with every size of block, more than a probe asks. Written by hand, without fcdeploy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]


def in_blocks(weight: Array, bits: int, block: int, level: int = 4) -> bytes:
    """x -> MatMulNBits -> y; `weight` (out, in) of unsigned integers whose middle is zero, every scale 1."""
    out, read = weight.shape
    packed = weight.reshape(out, -1, block).astype(np.uint8)
    packed = packed if bits == 8 else packed[..., 0::2] | (packed[..., 1::2] << 4)
    tensors = [
        numpy_helper.from_array(packed, "w"),
        numpy_helper.from_array(np.ones(packed.shape[:2], np.float32), "s"),
    ]
    numbers = {"K": read, "N": out, "bits": bits, "block_size": block, "accuracy_level": level}
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], "blocks", domain="com.microsoft", **numbers)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    graph = helper.make_graph([node], "facts", ends[:1], ends[1:], tensors)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    made: bytes = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    return made


@pytest.mark.parametrize("block", [16, 32, 64, 128])
@pytest.mark.parametrize("bits", [4, 8])
def test_weights_in_blocks_are_summed_without_saturation(bits: int, block: int) -> None:
    """On every CPU: also seen on AVX2 and AVX-512 kernels where VNNI was hidden.  Two products of 8 bits, 255 * 127 twice,
    would not fit 16 bits, so those kernels add each alone."""
    for end in (0, 2**bits - 1):
        session = ort.InferenceSession(in_blocks(np.full((18, 256), end), bits, block))
        for rows in (1, 2, 5, 16):
            for sign in (1.0, -1.0):
                (found,) = session.run(None, {"x": np.full((rows, 256), sign, np.float32)})
                np.testing.assert_allclose(found, sign * 256 * (end - 2 ** (bits - 1)), rtol=1e-5)
