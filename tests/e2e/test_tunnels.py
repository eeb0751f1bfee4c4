"""From two commands to a ping through WireGuard, between hosts that know nothing of each other but the mesh's name."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import MESH, World, mesh_address, public_key, wait_for_ping
from tests.e2e.network import Host
from tests.e2e.programs import Program, until

pytestmark = pytest.mark.usefixtures("server")


def assert_joined(colony: Host, agent: Host) -> None:
    """Ping through the tunnel, both ways."""
    wait_for_ping(agent, mesh_address(colony))
    wait_for_ping(colony, mesh_address(agent))


def test_a_colony_and_an_agent_reach_each_other_by_the_rfds_commands(world: World) -> None:
    home, away = world.host(42, v6=False), world.host(77, v6=False)
    colony = world.start_colony(home)
    agent = world.connect(away)
    agent.wait_for("Connected successfully")

    assert colony.lines[:4] == [
        "Colony started",
        "Registered with discovery service via gRPC",
        f"Mesh ID: {MESH}",
        "Endpoints: [203.0.113.42:41820]",
    ]
    assert agent.lines == [
        f"Looking up colony {MESH}...",
        "Found colony at 203.0.113.42:41820",
        "Connecting...",
        "Connected successfully",
    ]
    assert_joined(home, away)


@pytest.mark.parametrize("v4, v6", [(True, False), (False, True), (True, True)])
def test_ipv4_ipv6_and_both(world: World, v4: bool, v6: bool) -> None:
    if not v4:
        world.url = "http://[2001:db8::10]:8080"
    home, away = world.host(42, v4=v4, v6=v6), world.host(77, v4=v4, v6=v6)
    colony = world.start_colony(home)
    world.connect(away).wait_for("Connected successfully")

    endpoints = ["203.0.113.42:41820"] * v4 + ["[2001:db8::42]:41820"] * v6
    assert colony.lines[3] == f"Endpoints: [{', '.join(endpoints)}]"
    assert_joined(home, away)


def test_the_second_endpoint_serves_where_the_first_is_dead(world: World) -> None:
    home, away = world.host(42), world.host(77)
    world.start_colony(home, "--endpoint", "203.0.113.99", "--endpoint", "203.0.113.42:41820")
    agent = world.connect(away, "--output", "json")
    connected = agent.wait_for('{"event": "connected"')

    assert '"endpoint": "203.0.113.42:41820"' in connected
    assert_joined(home, away)


def test_a_colony_that_moves_is_followed_within_two_seconds(world: World) -> None:
    home, away = world.host(42, v6=False), world.host(77, v6=False)
    world.start_colony(home)
    agent = world.connect(away)
    agent.wait_for("Connected successfully")
    assert_joined(home, away)

    home.drop_address("203.0.113.42/24")
    home.add_address("203.0.113.43/24")

    assert wait_for_ping(away, mesh_address(home)) < 2.5
    agent.wait_for("Connected again at 203.0.113.43:41820")


def test_a_server_that_loses_its_memory_costs_no_tunnel(world: World, server: Program) -> None:
    home, away = world.host(42), world.host(77)
    world.start_colony(home)
    agent = world.connect(away)
    agent.wait_for("Connected successfully")
    assert_joined(home, away)
    pings = world.programs.start_other(away, "ping", "-i", "0.2", mesh_address(home))

    server.stop(signal.SIGKILL)
    world.start_server()
    late = world.host(78)
    until(lambda: world.connect(late, "--once", "--timeout", "3s", name="late").ended() == 0)

    pings.stop(signal.SIGINT)
    assert " 0% packet loss" in pings.said()
    assert not [line for line in agent.lines if line.startswith("Connected again")]
    assert not [line for line in agent.errors if "connecting again" in line]


def test_a_lease_that_ran_out_is_found_again_when_the_colony_is_back(world: World) -> None:
    home, away = world.host(42), world.host(77)
    colony = world.start_colony(home)
    colony.stop(signal.SIGKILL)
    names = (f"new-{number}" for number in itertools.count())  # nothing is known to a new one
    until(lambda: world.connect(away, "--once", "--timeout", "1s", name=next(names)).ended() == 3)

    world.start_colony(home)
    world.connect(away).wait_for("Connected successfully")
    assert_joined(home, away)


def test_two_meshes_live_side_by_side(world: World) -> None:
    first, second, away = world.host(42), world.host(43), world.host(77)
    for host, mesh_id in ((first, "mesh-1"), (second, "mesh-2")):
        world.start_colony(host, mesh_id=mesh_id)
        world.connect(away, mesh_id=mesh_id).wait_for("Connected successfully")

    assert mesh_address(first) != mesh_address(second)
    for host in (first, second):
        wait_for_ping(away, mesh_address(host))
    assert not first.pings(mesh_address(second))


def test_a_colony_behind_a_nat_with_a_forwarded_port(world: World) -> None:
    net, away = world.network, world.host(77)
    house = net.switch()
    router = net.nat(world.internet, house, "203.0.113.50/24", "192.0.2.1/24")
    home = net.on(house, "192.0.2.42/24")
    home.route("192.0.2.1")
    net.forward(router, 41820, "192.0.2.42")
    colony = world.start_colony(home)
    agent = world.connect(away, "--output", "json")

    assert '"endpoint": "203.0.113.50:41820"' in agent.wait_for('{"event": "connected"')
    assert colony.lines[3] == "Endpoints: [203.0.113.50:41820, 192.0.2.42:41820]"
    assert_joined(home, away)


def test_an_agent_behind_a_nat(world: World) -> None:
    net, home = world.network, world.host(42)
    house = net.switch()
    net.nat(world.internet, house, "203.0.113.50/24", "192.0.2.1/24")
    away = net.on(house, "192.0.2.77/24")
    away.route("192.0.2.1")
    world.start_colony(home)
    world.connect(away).wait_for("Connected successfully")

    assert_joined(home, away)


def test_without_discovery_the_last_known_colony_is_connected_to(
    world: World, server: Program
) -> None:
    home, away = world.host(42), world.host(77)
    world.start_colony(home)
    agent = world.connect(away)
    agent.wait_for("Connected successfully")
    agent.stop()
    server.stop(signal.SIGKILL)

    again = world.connect(away)
    again.wait_for("Connected successfully")
    assert again.lines[1] == "Found colony at 203.0.113.42:41820"
    assert any("using what was last known" in line for line in again.errors)
    assert_joined(home, away)


def test_without_discovery_a_colony_that_is_given_is_connected_to(
    world: World, server: Program
) -> None:
    home, away = world.host(42), world.host(77)
    world.start_colony(home)
    world.connect(away, "--once").ended()
    server.stop(signal.SIGKILL)

    where = "--colony-endpoint", "203.0.113.42:41820", "--colony-pubkey", public_key(home)
    agent = world.connect(away, *where)
    agent.wait_for("Connected successfully")
    assert_joined(home, away)


def test_without_discovery_and_with_nothing_known_it_says_so(world: World, server: Program) -> None:
    server.stop(signal.SIGKILL)
    agent = world.connect(world.host(77), "--timeout", "1s")
    assert agent.ended() == 4
    assert agent.lines == [f"Looking up colony {MESH}..."]


TOKEN = "a secret that both know"


def test_who_knows_the_join_token_joins_and_nobody_else(world: World) -> None:
    home, away, stranger = world.host(42), world.host(77), world.host(78)
    colony = world.start_colony(home, "--join-token", TOKEN, accepting=False)
    world.connect(away, "--join-token", TOKEN).wait_for("Connected successfully")
    without = world.connect(stranger, "--timeout", "3s", name="stranger")
    wrong = world.connect(stranger, "--timeout", "3s", "--join-token", TOKEN[::-1], name="wrong")

    assert (without.ended(), wrong.ended()) == (5, 5), (without.said(), wrong.said())
    assert len([line for line in colony.errors if "is not admitted" in line]) == 2
    assert_joined(home, away)


def test_a_clean_stop_leaves_nothing_behind(world: World) -> None:
    home, away = world.host(42), world.host(77)
    colony = world.start_colony(home)
    agent = world.connect(away)
    agent.wait_for("Connected successfully")
    assert home.devices()
    assert away.devices()

    assert (agent.stop(), colony.stop()) == (0, 0)
    assert (home.devices(), away.devices()) == (set(), set())
    assert world.connect(away, "--once", "--timeout", "1s", name="new").ended() == 3


def test_without_privileges_it_registers_and_prints_a_configuration_but_makes_no_tunnel(
    world: World, tmp_path: Path
) -> None:
    home, away = world.host(42), world.host(77)
    powerless = "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"
    colony = world.start_colony(home, run_by=powerless)
    assert colony.lines[0] == "Colony started"
    assert any("no tunnel, only the registration" in line for line in colony.errors)

    agent = world.connect(away, run_by=powerless)
    assert agent.ended() == 6
    assert "needs root" in agent.errors[-1]

    printing = world.connect(away, "--print-config", run_by=powerless)
    assert printing.ended() == 0
    config = tmp_path / "coral.conf"
    config.write_text("".join(f"{line}\n" for line in printing.lines))
    assert "Endpoint = 203.0.113.42:41820" in away.run("wg-quick", "strip", str(config))


def test_where_proofs_are_asked_for_nobody_has_to_know(world: World, server: Program) -> None:
    server.stop()
    world.start_server("--ttl", "5", "--ownership", "proof")
    home, away = world.host(42), world.host(77)
    colony = world.start_colony(home)
    world.connect(away).wait_for("Connected successfully")

    assert_joined(home, away)
    assert colony.errors == []


def test_a_colony_moves_to_a_new_key_where_proofs_are_asked_for(
    world: World, server: Program, tmp_path: Path
) -> None:
    server.stop()
    world.start_server("--ttl", "5", "--ownership", "proof")
    home, away = world.host(42), world.host(77)
    old, new = tmp_path / "old.key", tmp_path / "new.key"
    world.start_colony(home, "--key-file", str(old)).stop(signal.SIGKILL)
    agent = world.connect(away)

    world.start_colony(home, "--key-file", str(new), "--old-key-file", str(old))
    agent.wait_for("Connected successfully")
    assert_joined(home, away)
