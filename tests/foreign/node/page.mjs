// What runs in the browser; .ci/browser.sh bundles it. `check` leaves its findings to whoever opened the page.

import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";

window.check = async (baseUrl, transport) => {
  const descriptors = new Uint8Array(await (await fetch("/descriptors.binpb")).arrayBuffer());
  const service = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors)).getService(
    "coral.discovery.v1.DiscoveryService",
  );
  const client = createClient(service, createConnectTransport({ baseUrl, ...transport }));
  const meshId = `page-${crypto.randomUUID()}`;
  const pubkey = btoa("\x01".repeat(32));
  const register = (port) => client.registerColony({ meshId, pubkey, endpoints: [`203.0.113.5:${port}`] });

  try {
    await register(1);
    const found = await client.lookupColony({ meshId });
    const missing = await client.lookupColony({ meshId: "nobody" }).catch((error) => ConnectError.from(error));
    const seen = [];
    for await (const { state, colony } of client.watchColony({ meshId })) {
      seen.push(state === 1 ? colony.endpoints[0] : "absent");
      if (seen.length === 1) await register(2);
      else if (seen.length === 2) await client.deregisterColony({ meshId, pubkey });
      else break;
    }
    return {
      found: found.endpoints[0],
      missing: Code[missing.code],
      details: missing.details.map(({ type }) => type),
      seen,
    };
  } catch (error) {
    return { error: String(error) };
  }
};
