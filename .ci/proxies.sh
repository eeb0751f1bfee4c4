#!/usr/bin/env bash
# HAProxy and nginx with the very configurations of docs/deployment.md.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
need haproxy haproxy
need nginx nginx-light
.venv/bin/tox run -e deploy -- tests/deploy/test_proxies.py
