// The discovery service through @grpc/grpc-js, which reads proto/ when it starts and generates nothing.

import { promisify } from "node:util";

import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

import { errorInfo, statusDetails } from "./rpc.mjs";
import { checkService } from "./scenario.mjs";

const definition = loader.loadSync("coral/discovery/v1/discovery.proto", {
  includeDirs: [process.env.PROTO],
  longs: String,
});
const { DiscoveryService } = grpc.loadPackageDefinition(definition).coral.discovery.v1;
const client = new DiscoveryService(process.env.SERVER, grpc.credentials.createInsecure());

const call = (method) => {
  const unary = promisify(client[method]).bind(client);
  return (request) => unary(request, { deadline: Date.now() + 10_000 });
};

// NOT_FOUND is `NotFound` to the scenario, as in Connect's libraries.
const statuses = Object.fromEntries(
  Object.entries(grpc.status)
    .filter(([, code]) => typeof code === "number")
    .map(([label, code]) => [code, label.toLowerCase().replaceAll(/(?:^|_)(.)/g, (_, letter) => letter.toUpperCase())]),
);

await checkService("grpc-js", {
  register: call("registerColony"),
  lookup: call("lookupColony"),
  deregister: call("deregisterColony"),
  health: () => call("health")({}),
  watch: (request, signal) => {
    const stream = client.watchColony(request);
    signal.addEventListener("abort", () => stream.cancel());
    return stream;
  },
  // grpc-js leaves the details to its caller.
  error: (error) => ({
    status: statuses[error.code],
    info: errorInfo(statusDetails(error.metadata.get("grpc-status-details-bin")[0])),
  }),
});
client.close();
