// The discovery service through @connectrpc/connect-node: each protocol that it speaks, over each HTTP it has for it.

import { readFileSync } from "node:fs";

import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";

import { errorInfo } from "./rpc.mjs";
import { checkService } from "./scenario.mjs";

const registry = createFileRegistry(
  fromBinary(FileDescriptorSetSchema, readFileSync(process.env.DESCRIPTORS)),
);
const service = registry.getService("coral.discovery.v1.DiscoveryService");
const baseUrl = `http://${process.env.SERVER}`;

const transports = {
  "connect, JSON, HTTP/1.1": createConnectTransport({ baseUrl, httpVersion: "1.1" }),
  "connect, binary, HTTP/1.1": createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: true }),
  "connect, JSON, HTTP/2": createConnectTransport({ baseUrl, httpVersion: "2" }),
  "connect, binary, HTTP/2": createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: true }),
  "connect, GET, HTTP/1.1": createConnectTransport({ baseUrl, httpVersion: "1.1", useHttpGet: true }),
  "connect-node's grpc, HTTP/2": createGrpcTransport({ baseUrl }),
};

for (const [name, transport] of Object.entries(transports)) {
  const client = createClient(service, transport);
  await checkService(name, {
    register: (request) => client.registerColony(request),
    lookup: (request) => client.lookupColony(request),
    deregister: (request) => client.deregisterColony(request),
    health: () => client.health({}),
    watch: (request, signal) => client.watchColony(request, { signal }),
    error: (error) => ({ status: Code[error.code], info: errorInfo(error.details) }),
  });
}
