// Opens page.mjs in Chromium at an origin that the server allows and at one that it does not: `browser.mjs CHROMIUM`.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

import { build } from "esbuild";
import { chromium } from "playwright-core";

const here = new URL(".", import.meta.url).pathname;
const bundle = await build({ entryPoints: [`${here}page.mjs`], bundle: true, format: "iife", write: false });
const files = {
  "/": ["text/html", "<!doctype html><title>page</title><script src=page.js></script>"],
  "/page.js": ["text/javascript", bundle.outputFiles[0].text],
  "/descriptors.binpb": ["application/octet-stream", readFileSync(process.env.DESCRIPTORS)],
};
const pages = createServer((request, response) => {
  const [type, body] = files[request.url] ?? ["text/plain", ""];
  response.writeHead(body ? 200 : 404, { "content-type": type }).end(body);
});
await new Promise((resolve) => pages.listen(Number(process.env.PAGE_PORT), "127.0.0.1", resolve));

const browser = await chromium.launch({
  executablePath: process.argv[2],
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const server = `http://${process.env.SERVER}`;

// What the page finds when it is opened under `host`.
async function open(host, transport = {}) {
  const page = await browser.newPage();
  const messages = [];
  page.on("console", (message) => messages.push(message.text()));
  await page.goto(`http://${host}:${process.env.PAGE_PORT}/`);
  const finding = await page.evaluate(([url, options]) => window.check(url, options), [server, transport]);
  await page.close();
  return { ...finding, messages };
}

try {
  const ways = { JSON: {}, binary: { useBinaryFormat: true }, GET: { useHttpGet: true } };
  for (const [name, transport] of Object.entries(ways)) {
    const { error, found, missing, details, seen, messages } = await open("localhost", transport);
    assert.equal(error, undefined, `${error} ${messages}`);
    assert.equal(found, "203.0.113.5:1");
    assert.equal(missing, "NotFound");
    assert.deepEqual(details, ["google.rpc.ErrorInfo"]);
    assert.deepEqual(seen, ["203.0.113.5:1", "203.0.113.5:2", "absent"]);
    console.log(`ok   connect-web, ${name}: calls and a watch`);
  }
  // The same page at another origin, which is `--cors-origin` of nobody.
  const { error, messages } = await open("127.0.0.1");
  assert.match(String(error), /Failed to fetch/);
  assert.match(messages.join("\n"), /blocked by CORS policy/);
  console.log("ok   another origin is refused");
} finally {
  await browser.close();
  pages.close();
}
