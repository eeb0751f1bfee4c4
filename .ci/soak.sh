#!/usr/bin/env bash
# Many replicas, as operators have them: restarted one by one behind haproxy, and killed at random together with Valkey.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need haproxy haproxy
make dev >>"$work/make.log" 2>&1

echo "-- a rolling restart under load: no call fails"
.venv/bin/python -m tests.soak.rolling --rounds 1 --server-option=--drain-delay=3
echo "-- replicas and Valkey killed at random: nothing that was acknowledged is lost"
.venv/bin/python -m tests.soak.chaos --colonies 500 --seconds 30 --ttl 60
