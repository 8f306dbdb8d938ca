"""What other runtimes than onnxruntime make of the forms of a file (graph/forms.py).

Written by scripts/compat --runtimes, not by hand: scripts/compat --runtimes, 2026-11-28.
"""

TITLES = {
    "web": "onnxruntime-web (WASM) 1.30.0",
    "node": "onnxruntime-node 1.30.0",
    "openvino": "OpenVINO 2026.4.1",
    "opencv4": "OpenCV 4.14.0.94",
    "opencv5": "OpenCV 5.0.0.93",
    "tract": "tract 0.23.9",
}
"""Runtime -> its name and the version that was run."""

NEAREST = {
    "web": 47,
    "node": 49,
    "openvino": 33,
    "opencv4": 50,
    "opencv5": 51,
    "tract": 47,
}
"""Runtime -> the least SQNR in dB between its answers and onnxruntime's, of all files that it takes."""

UNTAKEN: dict[str, dict[str, str]] = {
    "web": {
        "AveragePool with ceil_mode counting pads": "computes otherwise: 4.6 dB",
        "AveragePool with dilations": "refuses it: Can't create a session. ERROR_CODE: 6, ERROR_MESSAGE: Unreco",
    },
    "node": {
        "AveragePool with ceil_mode counting pads": "computes otherwise: 4.6 dB",
        "AveragePool with dilations": "refuses it: Can't create a session. ERROR_CODE: 6, ERROR_MESSAGE: Unreco",
    },
    "openvino": {
        "AveragePool counting pads": "computes otherwise: -8.1 dB",
        "GRU, weights made of integers, beside bytes": "refuses it: Check 'getParentEdgeAt(wIdx)->getParent()->getType() == Type",
        "constants of INT2": "refuses it: Check 'false' failed at Loading input model Unsupported type",
        "constants of UINT2": "refuses it: Check 'false' failed at Loading input model Unsupported type",
    },
    "opencv4": {
        "AveragePool counting pads": "computes otherwise: 5.9 dB",
        "AveragePool with dilations": "refuses it: its output has shape (50,), expected (18,)",
        "Clip, on int8": "refuses it: Node [Clip@ai.onnx]:(onnx_node!n1) parse /i",
        "Clip, on uint8": "refuses it: src.type() == 5",
        "GRU": "refuses it: Node [GRU@ai.onnx]:(onnx_node!gru/GRU) parse OpenCV(4.14.0",
        "LSTM, weights made of integers": "refuses it: Node [Gemm@ai.onnx]:(onnx_node!hidden) parse OpenCV(4.14.0",
        "MatMul, bytes to bytes": "refuses it: Node [Add@ai.onnx]:(onnx_node!layer1.weights/Add) parse Op",
        "ReduceMax, on int8": "refuses it: DNN/Reduce: Unsupported type.",
        "ReduceMax, on uint8": "refuses it: DNN/Reduce: Unsupported type.",
        "ReduceMin, on int8": "refuses it: DNN/Reduce: Unsupported type.",
        "ReduceMin, on uint8": "refuses it: DNN/Reduce: Unsupported type.",
        "Slice, on int8": "computes otherwise: -600.1 dB",
        "Slice, on uint8": "computes otherwise: -534.4 dB",
        "Tile, on int8": "computes otherwise: 0.1 dB",
        "Tile, on uint8": "computes otherwise: -0.0 dB",
        "com.microsoft DynamicQuantizeLSTM": "refuses it: Node [DynamicQuantizeLSTM@com.microsoft]:(onnx_node!lstm/LST",
        "com.microsoft DynamicQuantizeMatMul": "refuses it: Node [DynamicQuantizeMatMul@com.microsoft]:(onnx_node!hidden",
        "com.microsoft MatMulNBits, 4 bits": "refuses it: Node [MatMulNBits@com.microsoft]:(onnx_node!hidden1) parse e",
        "constants of INT16": "refuses it: Unsupported data type: INT16 in function 'getMatFromTen",
        "constants of INT2": "refuses it: Unsupported data type: UNDEFINED in function 'getMatFro",
        "constants of UINT2": "refuses it: Unsupported data type: UNDEFINED in function 'getMatFro",
    },
    "opencv5": {
        "AveragePool with ceil_mode counting pads": "computes otherwise: 4.6 dB",
        "GRU": "refuses it: perm.empty() || perm.size() == (size_t)inpShape.dims",
        "Gemm, bytes to bytes": "refuses it: bufidx >= 0",
        "com.microsoft DynamicQuantizeLSTM": "refuses it: Node [DynamicQuantizeLSTM@com.microsoft]:(onnx_node!lstm/LST",
        "com.microsoft DynamicQuantizeMatMul": "refuses it: Node [DynamicQuantizeMatMul@com.microsoft]:(onnx_node!hidden",
        "com.microsoft MatMulNBits, 4 bits": "refuses it: Node [LSTM@ai.onnx]:(onnx_node!lstm/LSTM) parse OpenCV(5.0.",
        "com.microsoft QuantizeLinear": "refuses it: outtype == CV_8U || outtype == CV_8S",
        "constants of INT2": "refuses it: Unsupported data type",
        "constants of UINT2": "refuses it: Unsupported data type",
    },
    "tract": {
        "com.microsoft DynamicQuantizeLSTM": "refuses it: Translating node #46 \"lstm/LSTM\" Unimplemented(DynamicQuanti",
        "com.microsoft DynamicQuantizeMatMul": "refuses it: Translating node #5 \"hidden1\" Unimplemented(DynamicQuantizeM",
        "com.microsoft MatMulNBits, 8 bits": "refuses it: Building node dense3 (MatMulNBits) Caused by: MatMulNBits: o",
        "com.microsoft QuantizeLinear": "refuses it: Translating node #3 \"pixels/q\" QuantizeLinear ToTypedTransla",
        "operator set 25": "refuses it: unknown ONNX TensorProto.DataType (26): unknown enumeration",
    },
}  # fmt: skip
"""Runtime -> form -> what becomes of a file with it, in the words of the runtime."""
