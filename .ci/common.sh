# For the scripts beside it, which source it: a scratch directory, servers to test, and their end.
# shellcheck shell=bash
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
name=$(basename "$0" .sh)

finish() {
  local code=$?
  # shellcheck disable=SC2046  # one word a process
  kill $(jobs -p) 2>/dev/null || true
  wait || true
  if [ "$code" != 0 ]; then
    for log in "$work"/*.log; do
      [ ! -e "$log" ] || { echo "-- the end of $(basename "$log"):"; tail -n 20 "$log"; } >&2
    done
    # Once more what went wrong: a log of this may be kept by its end alone.
    [ ! -e "$work/cause" ] || cat "$work/cause"
    echo "FAIL $name (exit code $code)"
  else
    echo "PASS $name"
  fi
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT
# A signal must not pass for success.
trap 'exit 143' INT TERM

# need COMMAND PACKAGE: install Debian's PACKAGE unless COMMAND is there.
need() {
  command -v "$1" >/dev/null && return
  echo "installing $2"
  (
    flock 9 # another script may be installing too
    apt-get update -q >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$2" >/dev/null
  ) 9>/tmp/coral-discovery-apt.lock
}

# fail WHY: say it now, and again at the very end.
fail() {
  echo "$*" | tee -a "$work/cause" >&2
  return 1
}

# until_ok COMMAND...: run it until it succeeds; 30 s at most, or five times a second for TRIES.
until_ok() {
  for _ in $(seq "${TRIES:-150}"); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.2
  done
  fail "gave up on: $*"
}

# port_of LOG: the port that a server's log names in `listening on HOST:PORT`.
port_of() { sed -n 's/.*listening on .*:\([0-9]*\)$/\1/p' "$1" | head -n 1; }
has_port() { [ -n "$(port_of "$1")" ]; }

# serve NAME FLAG...: start a coral-discovery with its output in $work/NAME.log; its port is then in $port.
serve() {
  local log=$work/$1.log
  shift
  "${BIN:-$root/.venv/bin}/coral-discovery" --host 127.0.0.1 --port 0 --metrics-port 0 "$@" >"$log" 2>&1 &
  until_ok has_port "$log"
  port=$(port_of "$log")
}

# ok WHAT: say that a check passed.
ok() { echo "ok   $*"; }

# want WHAT PATTERN COMMAND...: the command succeeds and prints something that matches the pattern.
want() {
  local what=$1 pattern=$2 out
  shift 2
  if out=$("$@" 2>&1) && grep -Eq -- "$pattern" <<<"$out"; then ok "$what"; else
    head -n 30 <<<"$out" >&2
    fail "FAILED: $what: no $pattern from: $*"
  fi
}

# refuse WHAT PATTERN COMMAND...: the command fails, and prints something that matches the pattern.
refuse() {
  local what=$1 pattern=$2 out
  shift 2
  if ! out=$("$@" 2>&1) && grep -Eq -- "$pattern" <<<"$out"; then ok "$what"; else
    head -n 30 <<<"$out" >&2
    fail "FAILED: $what: not refused with $pattern: $*"
  fi
}
