#!/usr/bin/env bash
# A real Prometheus scrapes a real server, and a query returns the right number.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need promtool prometheus
need curl curl

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
side=$(free_port) prom=$(free_port)
serve server --metrics-port "$side" --cleanup-interval 1
until_ok curl -sf "http://127.0.0.1:$side/readyz"

cat >"$work/prometheus.yml" <<YAML
global: {scrape_interval: 1s}
scrape_configs: [{job_name: coral, static_configs: [{targets: ["127.0.0.1:$side"]}]}]
YAML
promtool check config "$work/prometheus.yml"
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" \
  --web.listen-address="127.0.0.1:$prom" --log.level=warn >"$work/prometheus.log" 2>&1 &
until_ok curl -sf "http://127.0.0.1:$prom/-/ready"

for number in 1 2 3; do
  key=$(python3 -c "import base64; print(base64.b64encode(($number).to_bytes(32, 'big')).decode())")
  curl -sf "http://127.0.0.1:$port/v1/colony/register" -H 'content-type: application/json' \
    -d "{\"mesh_id\": \"mesh-$number\", \"pubkey\": \"$key\", \"endpoints\": [\"203.0.113.5:41820\"]}" >/dev/null
done
curl -sf "http://127.0.0.1:$side/metrics" >"$work/metrics"
promtool check metrics <"$work/metrics"
grep -q '^coral_discovery_build_info' "$work/metrics"

says() { # QUERY VALUE
  curl -sf "http://127.0.0.1:$prom/api/v1/query" --data-urlencode "query=$1" |
    python3 -c 'import json, sys; [r] = json.load(sys.stdin)["data"]["result"]; sys.exit(r["value"][1] != sys.argv[1])' "$2"
}
until_ok says 'coral_discovery_requests_total{method="RegisterColony", protocol="rest", status="OK"}' 3
until_ok says 'coral_discovery_leases_total{event="granted"}' 3
until_ok says 'coral_discovery_request_duration_seconds_count{method="RegisterColony"}' 3
until_ok says 'max(coral_discovery_registrations{kind="colony"})' 3
until_ok says 'up{job="coral"}' 1
ok "5 queries answered rightly"
