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
    "web": 46,
    "node": 48,
    "openvino": 40,
    "opencv4": 49,
    "opencv5": 51,
    "tract": 46,
}
"""Runtime -> the least SQNR in dB between its answers and onnxruntime's, of all files that it takes."""

ROUNDED = {
    "openvino": {"Add, bytes to bytes": "adds before it rounds: 31 dB of a ResNet-20, and as near to float"},
}
"""Runtime -> form -> what it rounds otherwise in deep networks, and how near that is to onnxruntime."""

UNTAKEN: dict[str, dict[str, str]] = {
    "web": {
        "AveragePool with ceil_mode counting pads": "computes otherwise: 4.6 dB",
        "AveragePool with dilations": "refuses it: Can't create a session. ERROR_CODE: 6, ERROR_MESSAGE: Un",
        "operator set 27": "refuses it: Can't create a session. ERROR_CODE: 1, ERROR_MESSAGE: mo",
    },
    "node": {
        "AveragePool with ceil_mode counting pads": "computes otherwise: 4.6 dB",
        "AveragePool with dilations": "refuses it: This is an invalid model. In Node, (\"n2\", QLinearAverage",
        "operator set 27": "refuses it: model_load_utils.h:46 void onnxruntime::model_load_utils",
    },
    "openvino": {
        "AveragePool counting pads": "computes otherwise: -8.1 dB",
        "GRU, weights made of integers, beside bytes": "refuses it: Check 'getParentEdgeAt(wIdx)->getParent()->getType() ==",
        "LSTM, behind bytes": "computes otherwise: 33.3 dB",
        "LSTM, weights made of integers, beside bytes": "refuses it: Check 'getParentEdgeAt(wIdx)->getParent()->getType() ==",
        "ai.onnx.ml Imputer": "refuses it: Check 'false' failed at src/frontends/common_transla",
        "com.microsoft DynamicQuantizeLSTM, behind bytes": "computes otherwise: 33.5 dB",
        "constants of INT2": "refuses it: Check 'false' failed at Loading input model Unsupported",
        "constants of UINT2": "refuses it: Check 'false' failed at Loading input model Unsupported",
    },
    "opencv4": {
        "AveragePool counting pads": "computes otherwise: 5.9 dB",
        "AveragePool with dilations": "refuses it: its output has shape (1, 2, 5, 5), expected (1, 2, 3, 3)",
        "Clip, on int8": "refuses it: src.type() == 5",
        "Clip, on uint8": "refuses it: src.type() == 5",
        "GRU": "refuses it: Node [GRU@ai.onnx]:(onnx_node!gru/GRU) parse node_proto.",
        "IsNaN": "refuses it: Node [IsNaN@ai.onnx]:(onnx_node!n0) parse",
        "LSTM": "refuses it: Node [Gemm@ai.onnx]:(onnx_node!hidden) parse in function",
        "MatMul, bytes to bytes": "refuses it: Node [Add@ai.onnx]:(onnx_node!layer1.weights/Add) parse",
        "ReduceMax, on int8": "refuses it: DNN/Reduce: Unsupported type.",
        "ReduceMax, on uint8": "refuses it: DNN/Reduce: Unsupported type.",
        "ReduceMin, on int8": "refuses it: DNN/Reduce: Unsupported type.",
        "ReduceMin, on uint8": "refuses it: DNN/Reduce: Unsupported type.",
        "Slice, on int8": "computes otherwise: -600.1 dB",
        "Slice, on uint8": "computes otherwise: -534.4 dB",
        "Tile, on int8": "computes otherwise: 0.1 dB",
        "Tile, on uint8": "computes otherwise: -0.0 dB",
        "ai.onnx.ml Imputer": "refuses it: Node [Imputer@ai.onnx.ml]:(onnx_node!n0) parse",
        "com.microsoft DynamicQuantizeLSTM": "refuses it: Node [DynamicQuantizeLSTM@com.microsoft]:(onnx_node!n0)",
        "com.microsoft DynamicQuantizeMatMul": "refuses it: Node [DynamicQuantizeMatMul@com.microsoft]:(onnx_node!hi",
        "com.microsoft MatMulNBits, 4 bits": "refuses it: Node [MatMulNBits@com.microsoft]:(onnx_node!hidden1) par",
        "constants of INT16": "refuses it: Unsupported data type: INT16",
        "constants of INT2": "refuses it: Unsupported data type: UNDEFINED",
        "constants of UINT2": "refuses it: Unsupported data type: UNDEFINED",
    },
    "opencv5": {
        "AveragePool with ceil_mode counting pads": "computes otherwise: 4.6 dB",
        "GRU": "refuses it: perm.empty() || perm.size() == (size_t)inpShape.dims",
        "Gemm, bytes to bytes": "refuses it: bufidx >= 0",
        "ai.onnx.ml Imputer": "refuses it: Node [Imputer@ai.onnx.ml]:(onnx_node!n0) parse",
        "com.microsoft DynamicQuantizeLSTM": "refuses it: Node [DynamicQuantizeLSTM@com.microsoft]:(onnx_node!lstm",
        "com.microsoft DynamicQuantizeMatMul": "refuses it: Node [DynamicQuantizeMatMul@com.microsoft]:(onnx_node!hi",
        "com.microsoft MatMulNBits, 4 bits": "refuses it: Node [LSTM@ai.onnx]:(onnx_node!lstm/LSTM) parse dstTotal",
        "com.microsoft QuantizeLinear": "refuses it: outtype == CV_8U || outtype == CV_8S",
        "constants of INT2": "refuses it: Unsupported data type",
        "constants of UINT2": "refuses it: Unsupported data type",
    },
    "tract": {
        "ai.onnx.ml Imputer": "refuses it: Translating node #1 \"imputer0_0\" Unimplemented(Imputer) ToT",
        "com.microsoft DynamicQuantizeLSTM": "refuses it: Translating node #10 \"lstm/LSTM\" Unimplemented(DynamicQu",
        "com.microsoft DynamicQuantizeMatMul": "refuses it: Translating node #5 \"hidden1\" Unimplemented(DynamicQuant",
        "com.microsoft MatMulNBits, 8 bits": "refuses it: Building node dense3 (MatMulNBits) Caused by: MatMulNBit",
        "com.microsoft QuantizeLinear": "refuses it: Translating node #3 \"pixels/q\" QuantizeLinear ToTypedTra",
        "constants of INT2": "refuses it: unknown ONNX TensorProto.DataType (26): unknown enumerat",
        "constants of UINT2": "refuses it: unknown ONNX TensorProto.DataType (25): unknown enumerat",
    },
}  # fmt: skip
"""Runtime -> form -> what becomes of a file with it, in the words of the runtime."""
