#!/usr/bin/env bash
# A page with @connectrpc/connect-web, in headless Chromium, calls a server of another origin.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need node nodejs
need npm npm
need chromium chromium

cp "$root"/tests/foreign/node/* "$work"
(cd "$work" && npm ci --no-audit --no-fund --loglevel=error)
PAGE_PORT=$(node -e 's = require("net").createServer().listen(0, () => { console.log(s.address().port); s.close() })')
serve server --cors-origin "http://localhost:$PAGE_PORT"

export PAGE_PORT SERVER=127.0.0.1:$port
export DESCRIPTORS=$root/src/discovery/_gen/descriptors.binpb
timeout 120 node "$work/browser.mjs" "$(command -v chromium)"
