// google.rpc.Status and ErrorInfo, which are not in our descriptors: what an error's details are made of.

import protobuf from "protobufjs";

const { root } = protobuf.parse(`
  syntax = "proto3";
  package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
`);
const Status = root.lookupType("google.rpc.Status");
const ErrorInfo = root.lookupType("google.rpc.ErrorInfo");

// The ErrorInfo among details of the form {type, value}.
export function errorInfo(details) {
  const detail = details.find(({ type }) => type === "google.rpc.ErrorInfo");
  return ErrorInfo.decode(detail.value);
}

// The details of a `grpc-status-details-bin`, in that form.
export function statusDetails(bytes) {
  return Status.decode(bytes).details.map(({ type_url, typeUrl = type_url, value }) => ({
    type: typeUrl.split("/").at(-1),
    value,
  }));
}
