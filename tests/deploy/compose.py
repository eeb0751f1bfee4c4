"""deploy/docker/compose.yaml for real, without Docker: replicas, their store, the balancer and Prometheus.

    python -m tests.deploy.compose --image /var/lib/image/root

`--image` is the root file system of the server's image. The other services are this machine's haproxy, prometheus and
redis-server, with the very files and flags that the compose file gives to theirs. Grafana is not here.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import yaml

from tests.deploy.containers import Engine, Image
from tests.e2e.network import Host, Network, network
from tests.e2e.programs import Program, Programs, until

DOCKER = Path(__file__).parents[2] / "deploy" / "docker"
REPLICAS = 3
BALANCER, PROMETHEUS, VALKEY = "10.141.0.2", "10.141.0.3", "10.142.0.4"
FRONT = [f"10.141.0.{11 + number}" for number in range(REPLICAS)]
STORE = [f"10.142.0.{11 + number}" for number in range(REPLICAS)]
# The balancer asks each second, and Prometheus each 15 seconds.
PATIENCE = 60.0


def images(discovery: str) -> dict[str, Image]:
    """Return what stands for each image; the users are the images' own."""
    path = "/opt/coral/bin:/usr/local/bin:/bin"
    return {
        "discovery": Image(
            root=discovery,
            variables={"PATH": path, "LD_LIBRARY_PATH": "/usr/local/lib"},
            user=65532,
            entrypoint=["coral-discovery"],
        ),
        "valkey": Image(),
        "balancer": Image(user=99, command=["haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]),
        "prometheus": Image(entrypoint=["prometheus"]),
    }


@dataclass
class World:
    """All that runs, and a host beside it."""

    programs: Programs
    client: Host
    replicas: list[Program]
    balancer: Program
    valkey: Program

    def get(self, url: str) -> str:
        """Return what is answered, or nothing at all if that is an error."""
        done = subprocess.run(
            self.client.command("curl", "--silent", "--fail", "--max-time", "5", url),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout

    def query(self, promql: str) -> list[float]:
        """Return the values that Prometheus has for a query."""
        said = self.get(f"http://{PROMETHEUS}:9090/api/v1/query?query={quote(promql)}")
        return (
            [float(one["value"][1]) for one in json.loads(said)["data"]["result"]] if said else []
        )

    def ready(self) -> int:
        """Return how many replicas the balancer sends calls to."""
        metrics = self.get(f"http://{BALANCER}:8404/metrics")
        return len(_READY.findall(metrics))


# Not by who is up: until the first check, a server of haproxy's is taken to be.
_READY = re.compile(
    r'^haproxy_server_check_status\{proxy="ready",server="\w+",state="L7OK"\} 1$', re.MULTILINE
)


@contextmanager
def running(image: str) -> Iterator[World]:
    """Start everything, in no order that matters."""
    text = (DOCKER / "compose.yaml").read_text()
    services = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))["services"]
    services["valkey"]["command"] = services["valkey"]["command"].replace("valkey-", "redis-", 1)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        net = stack.enter_context(network())
        programs = Programs(scratch)
        stack.callback(programs.end)
        engine = Engine(programs, DOCKER, scratch, _secrets(scratch))
        known = images(image)

        def start(name: str, host: Host) -> Program:
            return engine.start(host, name, services[name], known[name])

        yield _start(net, engine, start)


def _start(net: Network, engine: Engine, start: Callable[[str, Host], Program]) -> World:
    front, store = net.switch(), net.switch()
    replicas = []
    for outer, inner in zip(FRONT, STORE, strict=True):
        host = net.on(front, f"{outer}/24")
        net.attach(host, store, f"{inner}/24", device="eth1")
        engine.name_server(host, {"valkey": [VALKEY]})
        replicas.append(start("discovery", host))
    balancer, _ = (
        start(name, _beside(net, engine, front, address))
        for name, address in (("balancer", BALANCER), ("prometheus", PROMETHEUS))
    )
    valkey = start("valkey", net.on(store, f"{VALKEY}/24"))
    client = net.on(front, "10.141.0.9/24")
    return World(engine.programs, client, replicas, balancer, valkey)


def _beside(net: Network, engine: Engine, front: Host, address: str) -> Host:
    """Return a new host that knows the replicas and the balancer by name."""
    host = net.on(front, f"{address}/24")
    engine.name_server(host, {"discovery": FRONT, "balancer": [BALANCER]})
    return host


def _secrets(scratch: Path) -> Path:
    """Return the passwords, made as an operator makes them."""
    script = shutil.copy(DOCKER / "make-secrets.sh", scratch)
    subprocess.run(["sh", script], check=True, capture_output=True)
    return scratch / "secrets"


def check(world: World) -> None:
    """Raise AssertionError unless it works as a whole, and goes on when a replica is gone."""
    until(lambda: world.ready() == REPLICAS, PATIENCE)
    say("the balancer found three replicas by their name, and they are ready: Valkey let them in")
    callers = world.programs.start_other(
        world.client, sys.executable, "-m", "tests.deploy.callers", f"{BALANCER}:8080"
    )
    callers.wait_for("calling")
    _has_seen(world, "up", [1.0] * (REPLICAS + 1))
    say("Prometheus found all four by name")
    world.replicas[0].stop(signal.SIGKILL)
    until(lambda: world.ready() == REPLICAS - 1)
    world.replicas[1].stop(signal.SIGTERM)
    until(lambda: world.ready() == REPLICAS - 2)
    say("one replica was killed, and one stopped")
    _has_seen(world, "up == 0", [0.0, 0.0])
    callers.stop()
    tallies = json.loads(callers.lines[-1])
    for way, tally in tallies.items():
        assert set(tally) == {"answered"}, f"{way}: {tally}"
        assert tally["answered"] > 100, f"{way}: {tally}"
    say(f"no lookup failed: {tallies}")
    world.valkey.stop(signal.SIGKILL)
    until(lambda: world.ready() == 0)
    url = f"http://{BALANCER}:8080/v1/colony/lookup/mesh-1"
    until(lambda: '"pubkey"' in world.get(url))
    say("without a store, the last replica answers by what it has read")


def _has_seen(world: World, promql: str, values: list[float]) -> None:
    until(lambda: world.query(promql) == values, PATIENCE)


def say(line: str) -> None:
    sys.stdout.write(f"ok   {line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--image", required=True, help="root file system of the server's image")
    with running(parser.parse_args().image) as world:
        try:
            check(world)
        except AssertionError:
            for program in (*world.replicas, world.balancer, world.valkey):
                sys.stderr.write(f"{program.lines[-20:]} {program.errors[-20:]}\n")
            raise


if __name__ == "__main__":
    main()
