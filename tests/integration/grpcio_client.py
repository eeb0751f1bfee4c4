"""A client that shares no code with ours: grpcio and protobuf, from `proto/` and nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2, status_pb2

from tests.integration.support import LOOPBACK, PATIENCE, ROOT, script

PACKAGE = "coral.discovery.v1"
SERVICE = f"{PACKAGE}.DiscoveryService"


class Schema:
    """The protocol's messages and methods, as protobuf's own classes."""

    def __init__(self, descriptors: bytes) -> None:
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptors).file
        self._pool = descriptor_pool.DescriptorPool()
        for file in files:
            self._pool.Add(file)
        names = [file.name for file in files]
        self._types = message_factory.GetMessageClassesForFiles(names, self._pool)

    @classmethod
    def compiled(cls, directory: Path) -> Self:
        """Compile `proto/` with buf."""
        target = directory / "discovery.binpb"
        subprocess.run(
            [script("buf"), "build", "proto", "--as-file-descriptor-set", "--output", str(target)],
            cwd=ROOT,
            check=True,
            timeout=2 * PATIENCE,
        )
        return cls(target.read_bytes())

    def new(self, name: str, **fields: Any) -> Any:
        """Return a message of the protocol."""
        return self._types[f"{PACKAGE}.{name}"](**fields)

    def methods(self) -> Mapping[str, MethodDescriptor]:
        """Return every method of the service."""
        methods: Mapping[str, MethodDescriptor] = self._pool.FindServiceByName(
            SERVICE
        ).methods_by_name
        return methods

    def types_of(self, method: str) -> tuple[type[Any], type[Any]]:
        """Return what a method takes and what it answers."""
        descriptor = self.methods()[method]
        return (
            self._types[descriptor.input_type.full_name],
            self._types[descriptor.output_type.full_name],
        )


class GrpcioClient:
    """Calls one server, over a connection of its own."""

    def __init__(self, schema: Schema, port: int) -> None:
        self.schema = schema
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(f"{LOOPBACK}:{port}", options=options)

    def method(self, name: str) -> grpc.UnaryUnaryMultiCallable[Any, Any]:
        """Return a method of one answer, to be called in any of grpcio's ways."""
        request_type, reply_type = self.schema.types_of(name)
        return self.channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=request_type.SerializeToString,
            response_deserializer=reply_type.FromString,
        )

    def stream_method(self, name: str) -> grpc.UnaryStreamMultiCallable[Any, Any]:
        """Return a method that answers with a stream."""
        request_type, reply_type = self.schema.types_of(name)
        return self.channel.unary_stream(
            f"/{SERVICE}/{name}",
            request_serializer=request_type.SerializeToString,
            response_deserializer=reply_type.FromString,
        )

    def bytes_method(self, name: str) -> grpc.UnaryUnaryMultiCallable[bytes, Any]:
        """Return a method that sends what it is given as the message."""
        _, reply_type = self.schema.types_of(name)
        return self.channel.unary_unary(
            f"/{SERVICE}/{name}", response_deserializer=reply_type.FromString
        )

    def call(self, name: str, /, **fields: Any) -> Any:
        """Call a method of one answer with a request of these fields; raises grpc.RpcError."""
        request_type, _ = self.schema.types_of(name)
        return self.method(name)(request_type(**fields), timeout=PATIENCE)


@contextmanager
def grpcio_client(schema: Schema, port: int) -> Iterator[GrpcioClient]:
    client = GrpcioClient(schema, port)
    with client.channel:
        yield client


class Failure:
    """What a call failed with: its status, and the details that came in `grpc-status-details-bin`."""

    def __init__(self, error: Any) -> None:
        self.code: grpc.StatusCode = error.code()
        self.message: str = error.details()
        self.status = status_pb2.Status()
        self.info = error_details_pb2.ErrorInfo()
        self.bad_request = error_details_pb2.BadRequest()
        self.retry_info = error_details_pb2.RetryInfo()
        self._unpack(dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b""))

    def _unpack(self, status: bytes) -> None:
        self.status.ParseFromString(status)
        for detail in self.status.details:
            for holder in (self.info, self.bad_request, self.retry_info):
                detail.Unpack(holder)

    @property
    def violations(self) -> list[tuple[str, str]]:
        return [(v.field, v.description) for v in self.bad_request.field_violations]


def failure(client: GrpcioClient, name: str, /, **fields: Any) -> Failure:
    """Call a method that must fail, and return what it failed with."""
    try:
        reply = client.call(name, **fields)
    except grpc.RpcError as error:
        return Failure(error)
    raise AssertionError(f"{name} succeeded: {reply}")
