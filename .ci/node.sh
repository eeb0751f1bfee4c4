#!/usr/bin/env bash
# Public Node libraries call the server: @connectrpc/connect-node over each of its transports, and @grpc/grpc-js.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need node nodejs
need npm npm

cp "$root"/tests/foreign/node/* "$work"
(cd "$work" && npm ci --no-audit --no-fund --loglevel=error)
serve server

export SERVER=127.0.0.1:$port
export DESCRIPTORS=$root/src/discovery/_gen/descriptors.binpb
export PROTO=$root/proto
for client in connect grpc; do
  timeout 60 node "$work/$client.mjs"
done
