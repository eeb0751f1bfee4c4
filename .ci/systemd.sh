#!/usr/bin/env bash
# The units, as an operator installs them: looked over by systemd-analyze, and then run by a real systemd, with their users
# and their sandbox. It is the first process of namespaces of its own, and leaves nothing behind. That takes root.

# Its processes are in a cgroup of ours; what they call the root of all cgroups is that.
if [ "${1:-}" != inside ]; then
  ours=/sys/fs/cgroup
  [ "$(stat -fc %T $ours)" = cgroup2fs ] || ours=$ours/systemd
  ours=$ours/coral-$$
  mkdir "$ours"
  # What ends takes a moment to be gone.
  trap 'for _ in $(seq 50); do find "$ours" -depth -type d -exec rmdir {} + 2>/dev/null && break; sleep 0.1; done' EXIT
  (echo "$BASHPID" >"$ours/cgroup.procs" && exec unshare --mount --cgroup --propagation private bash "$0" inside)
  exit
fi

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need systemd-analyze systemd
need curl curl
need ip iproute2
need wg wireguard-tools
need wireguard-go wireguard-go
cd "$root"
units=$root/deploy/systemd
uv=${UV:-$root/.venv/bin/uv}

# -- The machine: /etc, /opt and /var are layers over the real ones -------------------------------------------------------
cp --dereference /etc/resolv.conf "$work" # it may be a link into /run
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/targets
for folder in etc opt var; do
  mkdir -p "/run/layers/$folder/"{upper,work}
  mount -t overlay overlay -o "lowerdir=/$folder,upperdir=/run/layers/$folder/upper,workdir=/run/layers/$folder/work" "/$folder"
done
cp --remove-destination "$work/resolv.conf" /etc
if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
  mount -t tmpfs tmpfs /sys/fs/cgroup
  mkdir /sys/fs/cgroup/systemd
  mount -t cgroup -o none,name=systemd,xattr cgroup /sys/fs/cgroup/systemd
  mount -o remount,ro /sys/fs/cgroup # no controllers: those of the real machine are not ours
fi

echo "-- installed"
"$uv" build --quiet --wheel --out-dir "$work/dist"
"$uv" venv --quiet --no-python-downloads --python /usr/bin/python3 /opt/coral-discovery
"$uv" pip install --quiet --python /opt/coral-discovery --link-mode copy --constraint constraints.txt "$work"/dist/*.whl
mkdir -p /etc/systemd/system /etc/sysusers.d /etc/tmpfiles.d
cp "$units"/*.service /etc/systemd/system
for what in sysusers tmpfiles; do
  for file in "$units"/*."$what.conf"; do cp "$file" "/etc/$what.d/$(basename "$file" ".$what.conf").conf"; done
done
systemd-sysusers coral-discovery.conf coral-colony.conf
systemd-tmpfiles --create coral-discovery.conf coral-colony.conf
install -m 640 "$units/config.yaml" /etc/coral-discovery
install -m 640 "$units/my-app-prod.yaml" /etc/coral
want "the group reads the settings" '^root:coral-discovery:640$' stat -c %U:%G:%a /etc/coral-discovery/config.yaml

echo "-- systemd-analyze"
want "the units have no mistakes" '^$' systemd-analyze verify --man=no --recursive-errors=no \
  /etc/systemd/system/coral-discovery.service /etc/systemd/system/coral-colony@my-app-prod.service
for unit in coral-discovery.service coral-colony@.service; do
  want "$unit is exposed by less than 2.5" "for ${unit/@/@.*}: [0-2]\.[0-9] OK" \
    systemd-analyze security --offline=true --no-pager --threshold=24 "$units/$unit"
done

# -- A systemd that knows nothing but these units and the targets that they name ------------------------------------------
for target in sysinit basic shutdown network-online multi-user; do
  printf '[Unit]\nDefaultDependencies=no\n' >"/run/targets/$target.target"
done
printf '[Manager]\nDefaultEnvironment=PYTHONDONTWRITEBYTECODE=1\n' >/etc/systemd/system.conf
cat >"$work/boot" <<SH
mount -t proc proc /proc
mount -o bind,ro /proc/sys /proc/sys
export container=coral SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/targets
exec /lib/systemd/systemd --system --unit=multi-user.target --log-target=console --show-status=no
SH
( # unshare waits for the end of systemd, whatever it is told itself
  unshare --mount --pid --fork --kill-child --net --uts --ipc bash "$work/boot" >"$work/systemd.log" 2>&1 &
  echo $! >"$work/unshare.pid"
  trap 'kill -9 $!' TERM
  wait
) &
booted() { systemd_id=$(pgrep -P "$(cat "$work/unshare.pid")" systemd) && within systemctl is-active --quiet multi-user.target; }
within() { nsenter --target "$systemd_id" --mount --pid --net --uts --ipc "$@"; }
until_ok booted
within ip link set lo up
show() { within systemctl show --value --property "$1" "$2"; }
is() { [ "$(show "$1" "$2")" = "$3" ]; }
logs() { # UNIT: what it prints goes to a file, for there is no journal here
  mkdir -p "/etc/systemd/system/$1.d"
  printf '[Service]\n%s\n' "StandardOutput=append:$work/$1.log" "StandardError=append:$work/$1.log" "${@:2}" \
    >"/etc/systemd/system/$1.d/test.conf"
  within systemctl daemon-reload
}
call() { within curl -sS --fail-with-body --max-time 5 "http://127.0.0.1:8080/$1" "${@:2}"; }
server=coral-discovery.service
colony=coral-colony@my-app-prod.service

echo "-- started"
logs $server WatchdogSec=2s
want "it is ready when the start is over" '' within systemctl start $server
want "and says what it does" '^Accepting registrations on port 8080$' show StatusText $server
want "it answers" '"status":"ok"' call health
want "as its own user" '^coral-discovery$' within stat -c %U "/proc/$(show MainPID $server)"
call v1/colony/register -H 'content-type: application/json' -d \
  '{"mesh_id": "kept", "pubkey": "dFWrnF+3QjKjSbgCnHDFxVzrbiKS6T5zWbJ1mwGxpGo=", "endpoints": ["203.0.113.42:41820"]}' >/dev/null
want "the audit log is in its folder" '"mesh_id": "kept"' cat /var/log/coral-discovery/audit.log
want "administrators call by its socket" '"mesh_id": "kept"' within /opt/coral-discovery/bin/coral-discoveryctl colonies list \
  --admin unix:/run/coral-discovery/admin.sock --output json
refuse "there are files enough for all connections" '^$' grep 'limit on open files' "$work/$server.log"

echo "-- reloaded"
mv /var/log/coral-discovery/audit.log /var/log/coral-discovery/audit.log.1
echo 'ttl: 60' >>/etc/coral-discovery/config.yaml
want "a reload" '' within systemctl reload $server
until_ok is StatusText $server 'Accepting registrations on port 8080; not reloaded: settings'
ok "what takes a restart is said"
want "by name" 'restart to change ttl' cat "$work/$server.log"
want "the audit log is opened anew" '' test -e /var/log/coral-discovery/audit.log
want "registrations are kept" '203.0.113.42' call v1/colony/lookup/kept
want "it is not restarted" '^0$' show NRestarts $server

echo "-- watched"
sleep 3
want "it is alive, by the watchdog" '^0$' show NRestarts $server
within kill -STOP "$(show MainPID $server)"
until_ok is NRestarts $server 1
until_ok is ActiveState $server active
ok "a server that hangs is restarted"
within kill -KILL "$(show MainPID $server)"
until_ok is NRestarts $server 2
until_ok is ActiveState $server active
ok "a server that ends is restarted"

echo "-- stopped"
logs $server WatchdogSec=2s TimeoutStopSec=1s Environment=CORAL_DISCOVERY_DRAIN_DELAY=4
echo 'drain_delay: 4.0' >>/etc/coral-discovery/config.yaml
sed -i '/^drain_delay: 0.0/d' /etc/coral-discovery/config.yaml
within systemctl restart $server
want "a drain that is longer than the unit allows" '' within systemctl stop $server
want "is waited for" '^success$' show Result $server
want "to its end" '"event": "stopped"' tail -n 1 "$work/$server.log"

echo "-- a colony"
logs $colony
within systemctl start --no-block $colony
until_ok grep -q 'not registered' "$work/$colony.log"
want "without discovery it is not ready" '^activating$' show ActiveState $colony
want "and says why" 'not registered' show StatusText $colony
within systemctl start $server
until_ok is ActiveState $colony active
want "it is ready once it is registered" '^Registered with discovery' show StatusText $colony
want "it can be found" 'my-app-prod' call v1/colony/lookup/my-app-prod
want "its tunnel is there, without root" 'listening port: 41820' within wg show
want "its key is its own" '^coral:600$' stat -c %U:%a /var/lib/coral/my-app-prod/colony.key
within systemctl stop $colony
want "its stop is clean" '^success$' show Result $colony
refuse "it has left" 'not_found|NOT_REGISTERED' call v1/colony/lookup/my-app-prod
