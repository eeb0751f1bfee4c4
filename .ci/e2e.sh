#!/usr/bin/env bash
# Colonies, agents and a server on networks of their own, with real WireGuard. Needs root.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

need ip iproute2
need ping iputils-ping
need nft nftables
need sysctl procps
need wg wireguard-tools
need wireguard-go wireguard-go
.venv/bin/tox run -e e2e
