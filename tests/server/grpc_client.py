"""The two gRPC calls that the tests make, from message types put together here.

TorchServe's wheel ships its .proto files inside the frontend's jar and no Python stubs. On the wire
a map is a repeated message of key and value, and is declared so here.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_STRING, _BYTES, _MESSAGE = 9, 12, 11  # FieldDescriptorProto.Type
_PACKAGE = "org.pytorch.serve.grpc.inference"


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="tests/inference.proto", package=_PACKAGE, syntax="proto3")
    fields = {
        "Entry": [("key", 1, _STRING), ("value", 2, _BYTES)],
        "PredictionsRequest": [
            ("model_name", 1, _STRING),
            ("model_version", 2, _STRING),
            ("input", 3, _MESSAGE),
        ],
        "PredictionResponse": [("prediction", 1, _BYTES)],
        "Empty": [],
        "TorchServeHealthResponse": [("health", 1, _STRING)],
    }
    for name, entries in fields.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in entries:
            field = message.field.add(name=field_name, number=number, type=kind)
            field.label = field.LABEL_REPEATED if kind == _MESSAGE else field.LABEL_OPTIONAL
            if kind == _MESSAGE:
                field.type_name = f".{_PACKAGE}.Entry"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in fields
    }


MESSAGES = _messages()


def _call(port: int, method: str, request: Any, answer: str, token: dict[str, str]) -> Any:
    metadata = [(key.lower(), value) for key, value in token.items()]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = channel.unary_unary(
            f"/{_PACKAGE}.InferenceAPIsService/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=MESSAGES[answer].FromString,
        )
        return stub(request, metadata=metadata, timeout=60, wait_for_ready=True)


def predict(port: int, model: str, inputs: dict[str, bytes], *, token: dict[str, str]) -> bytes:
    """The bytes that a model answers. Raises grpc.RpcError."""
    request = MESSAGES["PredictionsRequest"](model_name=model)
    for key, value in inputs.items():
        request.input.add(key=key, value=value)
    answer = _call(port, "Predictions", request, "PredictionResponse", token)
    return bytes(answer.prediction)


def ping(port: int, *, token: dict[str, str]) -> str:
    """The server's health. Raises grpc.RpcError."""
    answer = _call(port, "Ping", MESSAGES["Empty"](), "TorchServeHealthResponse", token)
    return str(answer.health)
