#!/bin/sh
# Make the passwords of compose.yaml, once: `sh deploy/docker/make-secrets.sh`.
#
# They are mounted as they are, and read by users who are not you: what keeps others out is the folder's mode.
set -eu
cd "$(dirname "$0")"
if [ -e secrets ]; then
  echo "secrets: they are there already; remove the folder to make new ones" >&2
  exit 1
fi
password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
store=$(password)

umask 022
mkdir -m 700 secrets
# Whoever has no password may ask whether the server lives, and no more.
cat >secrets/valkey.acl <<ACL
user default on nopass resetkeys resetchannels -@all +ping
user coral on >$store ~coral:* resetchannels +@all -@admin -@dangerous +role
ACL
echo "store: redis://coral:$store@valkey:6379/0" >secrets/discovery.yaml
password >secrets/grafana-admin
echo "deploy/docker/secrets is made: whoever logs in to Grafana is admin, with the password in grafana-admin"
