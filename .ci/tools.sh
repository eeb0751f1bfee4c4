#!/usr/bin/env bash
# Tools of others: grpcurl, which finds its way by reflection; curl over TLS; and h2spec, which looks for faults in HTTP/2.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need curl curl
need openssl openssl
need go golang-go

tools=$work/bin
for tool in github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4 \
  github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible; do
  GOBIN=$tools go install "$tool" >>"$work/go.log" 2>&1
done

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
  -addext 'subjectAltName = DNS:localhost, IP:127.0.0.1' -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
serve plain
plain=$port
serve tls --tls-cert "$work/cert.pem" --tls-key "$work/key.pem"
tls=$port

echo "-- grpcurl, without a proto"
service=coral.discovery.v1.DiscoveryService
colony='{"mesh_id": "tools", "pubkey": "dFWrnF+3QjKjSbgCnHDFxVzrbiKS6T5zWbJ1mwGxpGo=", "endpoints": ["203.0.113.42:41820"]}'
for way in "-plaintext 127.0.0.1:$plain" "-cacert $work/cert.pem localhost:$tls"; do
  read -r -a flags <<<"$way"
  target=${flags[-1]}
  unset 'flags[-1]'
  grpcurl() { "$tools/grpcurl" -max-time 10 "${flags[@]}" "$@"; }
  echo "${flags[0]}"
  want "list" "^$service$" grpcurl "$target" list
  want "list the calls" "^$service.WatchColony$" grpcurl "$target" list "$service"
  want "describe the service" 'rpc LookupColony' grpcurl "$target" describe "$service"
  want "describe a message" 'string mesh_id = 1' grpcurl "$target" describe coral.discovery.v1.LookupColonyRequest
  want "register" '"success": true' grpcurl -d "$colony" "$target" "$service/RegisterColony"
  want "look up" '203.0.113.42:41820' grpcurl -d '{"mesh_id": "tools"}' "$target" "$service/LookupColony"
  refuse "look up what is not there" 'NotFound' grpcurl -d '{"mesh_id": "no"}' "$target" "$service/LookupColony"
  refuse "an error's details" 'google.rpc.ErrorInfo' grpcurl -d '{"mesh_id": "no"}' "$target" "$service/LookupColony"
  refuse "watch, until the deadline" '"REGISTERED"' grpcurl -max-time 1 -d '{"mesh_id": "tools"}' "$target" "$service/WatchColony"
  want "health" 'SERVING' grpcurl "$target" grpc.health.v1.Health/Check
done

echo "-- curl over TLS"
https() { curl -sS --fail-with-body --max-time 10 --cacert "$work/cert.pem" -w ' HTTP/%{http_version}\n' "$@"; }
base=https://localhost:$tls
want "HTTP/2, REST" '"status":"ok".* HTTP/2' https --http2 "$base/health"
want "HTTP/1.1, REST" '"status":"ok".* HTTP/1.1' https --http1.1 "$base/health"
for version in 2 1.1; do
  want "HTTP/$version, Connect" "203.0.113.42:41820.* HTTP/$version" https "--http$version" "$base/$service/LookupColony" \
    -H 'content-type: application/json' -d '{"mesh_id": "tools"}'
  refuse "HTTP/$version, not found" "not_found.* HTTP/$version" https "--http$version" "$base/v1/colony/lookup/no"
done
refuse "a certificate that is not known" 'SSL certificate' curl -sS --max-time 10 "$base/health"
refuse "no TLS" '' curl -sS --max-time 10 "http://localhost:$tls/health"
# asyncio closes without the alert; a curl that cannot do TLS 1.1 itself would say something else.
refuse "TLS 1.1" 'alert protocol version|SSL_ERROR_SYSCALL' https --tlsv1.0 --tls-max 1.1 --ciphers DEFAULT@SECLEVEL=0 "$base/health"

echo "-- h2spec"
# h2spec WAY KNOWN FLAG...: run every test; one may fail only with what is KNOWN, or because TCP reset the connection: a
# server that closes before it has read everything resets it, and h2spec, which wants an orderly close, sees that in some
# runs and not in others.
h2spec() {
  local log=$work/h2spec-$1.log known=$2 wrong
  "$tools/h2spec" -h 127.0.0.1 -p "${!1}" -P /health -o 5 "${@:3}" >"$log" || true
  # What failed is listed once more after `Failures:`, and a count of 0 would be no test at all.
  wrong=$(sed '1,/^Failures:/d' "$log" | grep 'Actual:' | grep -Ev "connection reset by peer|$known" || true)
  if [ -z "$wrong" ] && grep -Eq '^1[0-9]{2} tests, 1[0-9]{2} passed, 0 skipped' "$log"; then
    ok "$1: $(tail -n 1 "$log")"
  else
    printf 'FAILED: h2spec, %s:\n%s\n' "$1" "$(sed -n '/^Failures:/,$p' "$log")" >&2
    return 1
  fi
}
# Plain, what is not HTTP/2's preface may be HTTP/1.1: the answer is a 400 in that, which h2spec cannot read.
h2spec plain 'looked like an HTTP/1.1 header'
h2spec tls 'nothing else' --tls --insecure
