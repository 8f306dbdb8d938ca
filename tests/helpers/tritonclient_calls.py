"""Run by the interpreter that has tritonclient: asks a server everything, prints what it answered as one JSON object.

Arguments: the address of HTTP and of gRPC, and an .npz with the inputs `x` and `image`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as rpc
import tritonclient.http as http
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException


def both(client: Any, kind: Any, data: dict[str, np.ndarray]) -> dict[str, Any]:
    """What one protocol's client can ask."""

    def tensor(name: str, array: np.ndarray, **how: Any) -> Any:
        made = kind.InferInput(name, list(array.shape), "FP32")
        made.set_data_from_numpy(array, **how)
        return made

    def answers(result: Any, *names: str) -> list[Any]:
        return [result.as_numpy(name).tolist() for name in names]

    x, image = tensor("x", data["x"]), tensor("image", data["image"])
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": [client.is_model_ready("net"), client.is_model_ready("conv", "1"), client.is_model_ready("no")],
        "infer": answers(client.infer("net", [x]), "second_out", "class_out"),
        "one output": answers(client.infer("net", [x], outputs=[kind.InferRequestedOutput("class_out")]), "class_out"),
        "newest": answers(client.infer("conv", [image]), "conv0_out"),
        "version 1": answers(client.infer("conv", [image], model_version="1"), "conv0_out"),
        "version 2": answers(client.infer("conv", [image], model_version="2"), "conv0_out"),
        "errors": {
            "model": refused(lambda: client.infer("no", [x])),
            "version": refused(lambda: client.infer("net", [x], model_version="9")),
            "input": refused(lambda: client.infer("net", [image])),
            "missing": refused(lambda: client.infer("net", [])),
            "shape": refused(lambda: client.infer("net", [tensor("x", data["x"][:, :5].copy())])),
            "output": refused(lambda: client.infer("net", [x], outputs=[kind.InferRequestedOutput("no")])),
            "memory": refused(lambda: client.infer("net", [shared(kind)])),
        },
    }


def shared(kind: Any) -> Any:
    made = kind.InferInput("x", [1, 8], "FP32")
    made.set_shared_memory("region", 32)
    return made


def refused(call: Any) -> list[str | None]:
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return [None, "was answered"]


def over_http(address: str, data: dict[str, np.ndarray]) -> dict[str, Any]:
    client = http.InferenceServerClient(address)
    found = both(client, http, data)
    found |= {"server": client.get_server_metadata(), "model": client.get_model_metadata("conv")}
    found["config"] = client.get_model_config("net")
    plain = http.InferInput("x", list(data["x"].shape), "FP32")
    plain.set_data_from_numpy(data["x"], binary_data=False)
    outputs = [http.InferRequestedOutput(name, binary_data=False) for name in ("second_out", "class_out")]
    result = client.infer("net", [plain], outputs=outputs, request_id="seven")
    found["json"] = [result.as_numpy(name).tolist() for name in ("second_out", "class_out")]
    found["id"] = result.get_response()["id"]
    packed = client.infer("net", [plain], request_compression_algorithm="gzip", response_compression_algorithm="gzip")
    found["gzip"] = packed.as_numpy("second_out").tolist()
    client.close()
    return found


def over_grpc(address: str, data: dict[str, np.ndarray]) -> dict[str, Any]:
    client = rpc.InferenceServerClient(address)
    found = both(client, rpc, data)
    found["server"] = client.get_server_metadata(as_json=True)
    found["model"] = client.get_model_metadata("conv", as_json=True)
    found["index"] = client.get_model_repository_index(as_json=True)
    x = rpc.InferInput("x", list(data["x"].shape), "FP32")
    x.set_data_from_numpy(data["x"])
    found["id"] = client.infer("net", [x], request_id="seven").get_response().id
    client.close()
    stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(address))
    request = service_pb2.ModelInferRequest(model_name="net")
    request.inputs.add(name="x", datatype="FP32", shape=data["x"].shape).contents.fp32_contents.extend(
        data["x"].ravel()
    )
    answer = stub.ModelInfer(request)
    found["typed"] = [list(answer.outputs[0].contents.fp32_contents), list(answer.outputs[1].contents.int64_contents)]
    return found


if __name__ == "__main__":
    arrays = dict(np.load(sys.argv[3]))
    print(json.dumps({"http": over_http(sys.argv[1], arrays), "grpc": over_grpc(sys.argv[2], arrays)}))  # noqa: T201
