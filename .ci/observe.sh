#!/usr/bin/env bash
# A real Prometheus with the very rules scrapes real servers, only sixty times as fast. Then what each alert watches is
# broken, and the alert must fire; and every query of the rules, the dashboard and the pages must have found something.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need promtool prometheus
need redis-server redis-server
need redis-cli redis-tools
need curl curl
need prlimit util-linux
need openssl openssl

cd "$root"
promtool check rules deploy/prometheus/rules.yaml
promtool test rules deploy/prometheus/rules.test.yaml
bin=${BIN:-$root/.venv/bin}
export PATH=$bin:$PATH
observe=("$bin/python" -m tests.deploy.observe) # no function: what runs in the background must end when it is killed
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
one=$(free_port) two=$(free_port) alone=$(free_port) crowded=$(free_port) narrow=$(free_port) admin=$(free_port) redis=$(free_port) prom=$(free_port)
prometheus=http://127.0.0.1:$prom

start_redis() {
  redis-server --port "$redis" --save '' --appendonly no >"$work/redis.log" 2>&1 &
  redis_id=$!
  until_ok redis-cli -p "$redis" ping
}
start() { # NAME SIDE-PORT FLAG...
  serve "$1" --metrics-port "$2" --admin-listen off --cleanup-interval 1 --log-level warning "${@:3}"
  eval "${1}_id=$! ${1}_port=$port"
  until_ok curl -sf "http://127.0.0.1:$2/healthz"
}
end() { kill -9 "$1" && wait "$1" 2>/dev/null || true; }
firing() { # ALERT...: wait until each has fired, three minutes at most
  local name
  for name; do
    for _ in $(seq 900); do
      ! grep "^ok   $name:" "$work/fired.log" || continue 2
      sleep 0.2
    done
    "${observe[@]}" quiet "$prometheus" "$name" >>"$work/cause" 2>&1 || true
    fail "$name did not fire"
  done
}
scraped() { # EXPRESSION: whether Prometheus itself has a sample for which it holds
  curl -sf --data-urlencode "query=$1" "$prometheus/api/v1/query" | grep -q '"metric"'
}

# -- Three replicas of two versions on Redis, of which one takes one connection and has a certificate of three days; one
# server on its own, and one with few files ----------------------------------------------------------
start_redis
mkdir "$work/older"
cat >"$work/older/coral-discovery" <<PY
#!$bin/python
import discovery
discovery.__version__ = "0.0.1"
from discovery.cli.server import main
main()
PY
chmod +x "$work/older/coral-discovery"
start one "$one" --store "redis://127.0.0.1:$redis/0?timeout=10" --ttl 5 --admin-listen "127.0.0.1:$admin"
BIN=$work/older start two "$two" --store "redis://127.0.0.1:$redis/0?timeout=10" --ttl 5
start alone "$alone"
start crowded "$crowded" --request-timeout 1000
prlimit --pid "$crowded_id" --nofile=150:150
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3 -subj /CN=localhost \
  -keyout "$work/narrow.key" -out "$work/narrow.crt" 2>/dev/null
start narrow "$narrow" --store "redis://127.0.0.1:$redis/0?timeout=10" --ttl 5 --max-connections 1 \
  --tls-cert "$work/narrow.crt" --tls-key "$work/narrow.key"

"${observe[@]}" rules "$work/rules.yaml"
cat >"$work/prometheus.yml" <<YAML
global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}
rule_files: [rules.yaml]
scrape_configs:
  - {job_name: shared, static_configs: [{targets: ["127.0.0.1:$one", "127.0.0.1:$two", "127.0.0.1:$narrow"]}]}
  - {job_name: alone, static_configs: [{targets: ["127.0.0.1:$alone"]}]}
  - {job_name: crowded, static_configs: [{targets: ["127.0.0.1:$crowded"]}]}
YAML
promtool check config "$work/prometheus.yml"
since=$(date +%s)
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" \
  --web.listen-address="127.0.0.1:$prom" --log.level=warn >"$work/prometheus.log" 2>&1 &
until_ok curl -sf "$prometheus/-/ready"
"${observe[@]}" witness "$prometheus" >"$work/fired.log" 2>&1 &

# shellcheck disable=SC2154  # `start` sets them
CORAL_DISCOVERY_ADMIN=127.0.0.1:$admin "${observe[@]}" commands "localhost:9090=127.0.0.1:$one" \
  "localhost:8080=127.0.0.1:$one_port" "-h localhost -p 6379=-p $redis"

# -- What goes wrong while all is up ---------------------------------------------------------------
# shellcheck disable=SC2154
"${observe[@]}" fleet "http://127.0.0.1:$one_port" "http://127.0.0.1:$two_port" >"$work/fleet.log" 2>&1 &
fleet_id=$!
# shellcheck disable=SC2154
"${observe[@]}" crowd "$crowded_port" >"$work/crowd.log" 2>&1 &
while sleep 1; do
  printf '\0\0\0\0\2\377\377' | curl -s --http2-prior-knowledge -H 'content-type: application/grpc' -H 'te: trailers' \
    --data-binary @- "http://127.0.0.1:$one_port/coral.discovery.v1.DiscoveryService/LookupColony"
done >/dev/null 2>&1 &
garbage_id=$!
# shellcheck disable=SC2154
while true; do
  (exec 3<>"/dev/tcp/127.0.0.1/$narrow_port"; exec 4<>"/dev/tcp/127.0.0.1/$narrow_port"; sleep 0.3) || sleep 0.3
done >/dev/null 2>&1 &
second_id=$!
firing CoralDiscoveryDefect CoralDiscoverySilentConnections CoralDiscoveryFileDescriptors \
  CoralDiscoveryConnectionsRefused CoralDiscoveryCertificateExpires
kill "$garbage_id" "$second_id"
for _ in 1 2 3; do
  # shellcheck disable=SC2154
  end "$alone_id"
  start alone "$alone"
  sleep 1 # until it is scraped
done
firing CoralDiscoveryRestarts
end "$alone_id"
firing CoralDiscoveryDown CoralDiscoveryConflicts

# -- A slow Redis, then none -----------------------------------------------------------------------
while sleep 0.2; do redis-cli -p "$redis" client pause 800 all || true; done >/dev/null 2>&1 &
pauses_id=$!
firing CoralDiscoveryStoreSlow CoralDiscoveryLatencyBudgetFastBurn CoralDiscoveryLatencyBudgetSlowBurn
kill "$pauses_id"
end "$redis_id"
firing CoralDiscoveryStoreUnavailable CoralDiscoveryReplicaWithoutStore CoralDiscoveryRateLimitUndecided \
  CoralDiscoveryErrorBudgetFastBurn CoralDiscoveryErrorBudgetSlowBurn

# -- Redis is back, empty; the fleet comes back, and falls silent ----------------------------------
start_redis
TRIES=450 until_ok scraped 'max by (kind) (coral_discovery_registrations) == 20'
kill "$fleet_id"
firing CoralDiscoveryRegistrationsDropped CoralDiscoveryLeasesExpiring CoralDiscoveryVersionSkew
# shellcheck disable=SC2154
end "$two_id"
firing CoralDiscoveryReplicaDown

# A core that is full would slow the machine that this runs on, and a watch that is told nothing takes a defect.
untried=(CoralDiscoveryCpuSaturated CoralDiscoveryWatchesNotDelivering)
# shellcheck disable=SC2046  # one word a name
"${observe[@]}" untried "${untried[@]}" $(sed -n 's/^ok   \(CoralDiscovery[A-Za-z]*\):.*/\1/p' "$work/fired.log")
"${observe[@]}" queries "$prometheus" "$since"
