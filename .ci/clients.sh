#!/usr/bin/env bash
# The programs of docs/clients/go.md and node.md: made as the pages say, they find each other through a server.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need go golang-go
need node nodejs
need npm npm
bin=${BIN:-$root/.venv/bin}
[ -x "$bin/buf" ] || make -C "$root" dev >"$work/make.log" 2>&1
export GOBIN=$work/bin GOFLAGS=-mod=mod
export PATH=$GOBIN:$bin:$PATH
serve server --ttl 20

# block PAGE LANGUAGE NUMBER: that code block of the page, with the addresses of here.
block() {
  (
    cd "$root"
    "$bin/python" - "docs/clients/$1.md" "$2" "$3" <<'PYTHON'
import sys
from tests.docs.markdown import blocks

page, language, number = sys.argv[1:]
found = [block.text for block in blocks(page) if block.language == language]
print(found[int(number)], end="")
PYTHON
  ) | sed "s#PATH/TO/coral-discovery#$root#; s#localhost:8080#127.0.0.1:$port#"
}

# has_left LOG: the colony was there, and then it was not.
has_left() { sed '1,/^REGISTERED/d' "$1" | grep '^ABSENT'; }

# meet NAME COMMAND...: what the page calls agent sees what it calls colony come, and leave when it is stopped.
meet() {
  local name=$1 colony
  shift
  "$@" agent >"$work/$name-agent.log" 2>&1 &
  "$@" colony >"$work/$name-colony.log" 2>&1 &
  colony=$!
  until_ok grep -q '^REGISTERED' "$work/$name-agent.log"
  kill "$colony"
  wait "$colony"
  until_ok has_left "$work/$name-agent.log"
  ok "$name: registered, found, followed, left"
}

mkdir "$work/go" "$work/node"

cd "$work/go"
block go yaml 0 >buf.gen.yaml
block go go 0 >main.go
bash -e <(block go bash 0) >"$work/go.log" 2>&1
bash -e <(block go bash 1) >>"$work/go.log" 2>&1
go mod tidy >>"$work/go.log" 2>&1
[ -z "$(gofmt -l main.go)" ] && go vet . && go build -o client .
meet go ./client

cd "$work/node"
block node json 0 >package.json
block node yaml 0 >buf.gen.yaml
block node js 0 >client.mjs
bash -e <(block node bash 0) >"$work/node.log" 2>&1
bash -e <(block node bash 1) >>"$work/node.log" 2>&1
meet node node client.mjs
