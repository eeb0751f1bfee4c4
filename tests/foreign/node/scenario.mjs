// What every client has to see. A `client` is a few functions, so that this file knows no library.

import assert from "node:assert/strict";

const key = (number) => Buffer.alloc(32, number).toString("base64");

async function refused(client, call) {
  let answer;
  try {
    answer = await call;
  } catch (error) {
    return client.error(error);
  }
  assert.fail(`answered: ${answer}`);
}

export async function checkService(name, client) {
  const meshId = `node-${name.replaceAll(/[^A-Za-z0-9]+/g, "-")}`;
  const first = { meshId, pubkey: key(1), endpoints: ["203.0.113.5:41820", "[2001:db8::5]:41820"] };

  const missing = await refused(client, client.lookup({ meshId }));
  assert.equal(missing.status, "NotFound");
  assert.equal(missing.info.reason, "NOT_REGISTERED");
  assert.equal(missing.info.domain, "discovery.coral.io");
  assert.equal(missing.info.metadata.mesh_id, meshId);

  const lease = await client.register({ ...first, metadata: { region: "eu-west" } });
  assert.equal(lease.success, true);
  assert.equal(lease.ttl, 300);

  const found = await client.lookup({ meshId });
  assert.equal(found.pubkey, first.pubkey);
  assert.deepEqual(found.endpoints, first.endpoints);
  assert.equal(found.metadata.region, "eu-west");
  assert.equal(String(found.revision), String(lease.revision));

  const taken = await refused(client, client.register({ ...first, pubkey: key(2) }));
  assert.equal(taken.status, "AlreadyExists");
  assert.equal(taken.info.reason, "MESH_ID_TAKEN");
  assert.ok(Date.parse(taken.info.metadata.expires_at) > Date.now());

  const invalid = await refused(client, client.register({ meshId, pubkey: "no key", endpoints: [] }));
  assert.equal(invalid.status, "InvalidArgument");
  assert.equal(invalid.info.reason, "INVALID_FIELD");

  // REGISTERED = 1 and ABSENT = 2: the state at once, then each change.
  const stop = new AbortController();
  const states = client.watch({ meshId }, stop.signal)[Symbol.asyncIterator]();
  const now = (await states.next()).value;
  assert.equal(now.state, 1);
  assert.deepEqual(now.colony.endpoints, first.endpoints);
  await client.register({ ...first, endpoints: ["203.0.113.6:41820"] });
  const moved = (await states.next()).value;
  assert.equal(moved.state, 1);
  assert.deepEqual(moved.colony.endpoints, ["203.0.113.6:41820"]);
  assert.ok(BigInt(moved.revision) > BigInt(now.revision));
  assert.equal((await client.deregister({ meshId, pubkey: first.pubkey })).removed, true);
  assert.equal((await states.next()).value.state, 2);
  stop.abort();
  await states.next().then(() => assert.fail("the watch goes on"), () => {});

  assert.equal((await client.health()).status, "ok");
  console.log(`ok   ${name}`);
}
