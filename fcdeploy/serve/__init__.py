"""Open Inference Protocol v2 over ONNX models: an engine that knows no protocol, and HTTP and gRPC on top of it."""

import os

# gRPC's own resolver reads /etc/resolv.conf, even for an address that is a number
os.environ.setdefault("GRPC_DNS_RESOLVER", "native")
