"""What a tunnel asks of `ip` and `wg`: in which order, with no secret in the open, and nothing left when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from ipaddress import IPv6Network

import pytest

from discovery.wireguard.devices import KernelDevice
from discovery.wireguard.errors import PermissionNeededError, TunnelError
from discovery.wireguard.tunnel import Peer, PeerStatus, TunnelSettings
from discovery.wireguard.wg import WgTunnel
from tests.support import KEY, OTHER_KEY
from tests.unit.wireguard.support import KEYS, Answer, ScriptedRunner, links, refused, settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tunnels need Linux")

NET = IPv6Network("fd00::/64")


def _rig(
    given: TunnelSettings | None = None, served: Sequence[bool] = (), **answers: Answer
) -> tuple[WgTunnel, ScriptedRunner, str]:
    given = given or settings()
    script: dict[str, Answer] = {f"wg show {given.name} listen-port": "41820\n"}
    script |= {command.replace("_", " "): answer for command, answer in answers.items()}
    runner = ScriptedRunner(script)
    look = iter(served)
    tunnel = WgTunnel(given, KernelDevice(runner), runner, lambda _name: next(look, False))
    return tunnel, runner, given.name


# Opening


async def test_a_device_is_made_addressed_set_up_and_then_given_its_port() -> None:
    tunnel, runner, name = _rig()

    await tunnel.open()

    assert runner.ran == [
        "ip -json -details link show",
        f"ip link add dev {name} type wireguard",
        f"ip address add {settings().address} dev {name}",
        f"ip link set dev {name} mtu 1420 up",
        f"wg show {name} listen-port",
        f"wg setconf {name} /dev/stdin",
        f"wg show {name} listen-port",
    ]
    assert tunnel.port == 41820
    await tunnel.close()


async def test_the_private_key_goes_through_stdin_alone() -> None:
    tunnel, runner, _ = _rig()

    await tunnel.open()

    assert KEYS.private_key not in " ".join(runner.ran)
    assert [text for text in runner.stdin if text] == [
        f"[Interface]\nPrivateKey = {KEYS.private_key}\nListenPort = 41820\n"
    ]
    await tunnel.close()


async def test_a_port_of_zero_is_the_kernels_choice() -> None:
    tunnel, runner, name = _rig(settings(port=0))
    runner.answers[f"wg show {name} listen-port"] = ["0", "50000", "50001"]

    await tunnel.open()

    assert "ListenPort" not in "".join(runner.stdin)
    assert tunnel.port == 50001
    await tunnel.close()


@pytest.mark.parametrize("kind", ["wireguard", "tun"])
async def test_what_a_killed_process_left_is_removed(kind: str) -> None:
    tunnel, runner, name = _rig(served=[True, True, False])
    runner.answers["ip -json"] = links(("eth0", "veth"), (name, kind))

    await tunnel.open()

    assert runner.ran[1:3] == [
        f"ip link delete dev {name}",
        f"ip link add dev {name} type wireguard",
    ]
    await tunnel.close()


async def test_a_device_that_another_program_serves_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("discovery.wireguard.wg._UP_LIMIT", 0.05)
    tunnel, runner, _ = _rig(served=[True] * 1000)

    with pytest.raises(TunnelError, match="another program serves it"):
        await tunnel.open()

    assert runner.ran == ["ip -json -details link show"]


async def test_what_is_gone_by_itself_meanwhile_is_no_trouble() -> None:
    tunnel, runner, name = _rig()
    runner.answers["ip -json"] = links((name, "tun"))
    runner.answers["ip link delete"] = refused(f'Cannot find device "{name}"')

    await tunnel.open()

    assert f"ip link add dev {name} type wireguard" in runner.ran
    await tunnel.close()


@pytest.mark.parametrize("name, kind", [(None, "bridge"), ("wg0", "wireguard")])
async def test_a_device_that_is_not_ours_is_left_alone(name: str | None, kind: str) -> None:
    tunnel, runner, name = _rig(settings(name))
    runner.answers["ip -json"] = links((name, kind))

    with pytest.raises(TunnelError, match=f"ip link delete {name}"):
        await tunnel.open()

    assert runner.ran == ["ip -json -details link show"]


async def test_a_device_that_a_living_tunnel_has_is_left_alone() -> None:
    given = settings()
    first, _, _ = _rig(given)
    second, runner, name = _rig(given)
    await first.open()

    with pytest.raises(TunnelError, match=f"another process has the device {name}"):
        await second.open()

    assert runner.ran == []
    await first.close()
    await second.open()
    await second.close()


async def test_a_port_that_another_program_has_is_named() -> None:
    tunnel, runner, name = _rig(
        wg_setconf=refused("Unable to modify interface: Address already in use")
    )

    with pytest.raises(TunnelError, match="UDP port 41820 is in use"):
        await tunnel.open()

    assert runner.ran[-1] == f"ip link delete dev {name}"


async def test_what_else_wg_refuses_is_handed_on() -> None:
    tunnel, runner, name = _rig(wg_setconf=refused("Unable to modify interface: Out of memory"))

    with pytest.raises(TunnelError, match="Out of memory"):
        await tunnel.open()

    assert runner.ran[-1] == f"ip link delete dev {name}"


@pytest.mark.parametrize(
    "error", [refused("Error: ipv6: IPv6 is disabled on this device."), PermissionNeededError("ip")]
)
async def test_a_network_without_ipv6_is_named(error: Exception) -> None:
    tunnel, runner, name = _rig(ip_address_add=error)

    with pytest.raises(TunnelError, match="disable_ipv6=0"):
        await tunnel.open()

    assert runner.ran[-1] == f"ip link delete dev {name}"


async def test_without_the_right_to_make_one_nothing_is_removed_either() -> None:
    tunnel, runner, name = _rig(ip_link_add=PermissionNeededError("`ip link add`"))
    runner.answers["ip link delete"] = refused(f'Cannot find device "{name}"')

    with pytest.raises(PermissionNeededError, match="CAP_NET_ADMIN"):
        await tunnel.open()

    await tunnel.close()


@pytest.mark.parametrize("step", range(7))
async def test_a_half_made_device_is_removed_when_opening_is_cancelled(step: int) -> None:
    tunnel, runner, name = _rig()
    runner.blocked_at = step
    opening = asyncio.create_task(tunnel.open())
    while len(runner.ran) <= step:  # noqa: ASYNC110
        await asyncio.sleep(0)

    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    made = f"ip link add dev {name} type wireguard" in runner.ran
    assert (runner.ran[-1] == f"ip link delete dev {name}") == made
    again, _, _ = _rig(settings(name))
    await again.open()
    await again.close()


@pytest.mark.parametrize("step", range(7))
async def test_a_half_made_device_is_removed_when_a_step_fails(step: int) -> None:
    tunnel, runner, name = _rig()
    await tunnel.open()
    failing, count = runner.ran[step], runner.ran[: step + 1].count(runner.ran[step])
    await tunnel.close()
    tunnel, runner, _ = _rig(settings(name))
    good = runner._answer(failing)
    runner.answers[failing] = [
        *[good] * (count - 1),
        refused("no"),
        refused(f'Cannot find device "{name}"'),
    ]

    with pytest.raises(TunnelError):
        await tunnel.open()

    made = step > runner.ran.index(f"ip link add dev {name} type wireguard") if step else False
    assert (runner.ran[-1] == f"ip link delete dev {name}") == made


# Closing


async def test_closing_twice_removes_the_device_once() -> None:
    tunnel, runner, name = _rig()
    await tunnel.close()
    await tunnel.open()

    await tunnel.close()
    await tunnel.close()

    assert runner.ran.count(f"ip link delete dev {name}") == 1


async def test_a_closed_tunnel_can_be_opened_again() -> None:
    tunnel, runner, name = _rig()

    for _ in range(2):
        await tunnel.open()
        await tunnel.close()

    assert runner.ran.count(f"ip link add dev {name} type wireguard") == 2


async def test_the_name_is_free_again_when_removing_fails() -> None:
    tunnel, runner, _ = _rig()
    await tunnel.open()
    runner.answers["ip link delete"] = refused("Device or resource busy")

    with pytest.raises(TunnelError, match="busy"):
        await tunnel.close()

    del runner.answers["ip link delete"]
    await tunnel.open()
    await tunnel.close()


async def test_a_device_of_the_kernel_is_not_lost() -> None:
    tunnel, _, _ = _rig()
    await tunnel.open()
    waiting = asyncio.create_task(tunnel.lost())
    await asyncio.sleep(0)

    assert not waiting.done()
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    await tunnel.close()


# Peers


async def test_a_peer_is_set_with_its_preshared_key_through_stdin() -> None:
    tunnel, runner, name = _rig()

    await tunnel.set_peer(
        Peer(KEY, (NET, IPv6Network("fd01::1")), "[2001:db8::1]:41820", OTHER_KEY, 25)
    )

    words = "endpoint [2001:db8::1]:41820 persistent-keepalive 25 allowed-ips fd00::/64,fd01::1/128"
    assert runner.ran == [f"wg set {name} peer {KEY} preshared-key /dev/stdin {words}"]
    assert runner.stdin == [f"{OTHER_KEY}\n"]


async def test_a_peer_without_anything_has_everything_taken_from_it() -> None:
    tunnel, runner, name = _rig()

    await tunnel.set_peer(Peer(KEY))

    assert runner.ran == [
        f"wg set {name} peer {KEY} preshared-key /dev/stdin persistent-keepalive off allowed-ips "
    ]
    assert runner.stdin == [""]


async def test_replacing_removes_and_adds_in_one_command() -> None:
    tunnel, runner, name = _rig()

    await tunnel.replace_peer(Peer(KEY, (NET,), "192.0.2.1:1"))

    assert len(runner.ran) == 1
    assert runner.ran[0].startswith(f"wg set {name} peer {KEY} remove peer {KEY} preshared-key ")


async def test_a_host_name_is_resolved_before_wg_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(endpoint: str) -> list[str]:
        assert endpoint == "hub.example.com:41820"
        return ["192.0.2.9:41820", "192.0.2.10:41820"]

    monkeypatch.setattr("discovery.wireguard.wg.resolve_endpoint", resolve)
    tunnel, runner, _ = _rig()

    await tunnel.set_peer(Peer(KEY, (NET,), "hub.example.com:41820"))

    assert " endpoint 192.0.2.9:41820 " in runner.ran[0]


async def test_a_peer_is_removed_by_its_key() -> None:
    tunnel, runner, name = _rig()

    await tunnel.remove_peer(KEY)

    assert runner.ran == [f"wg set {name} peer {KEY} remove"]


async def test_peers_are_read_from_the_dump() -> None:
    tunnel, runner, name = _rig()
    runner.answers[f"wg show {name} dump"] = (
        f"{KEYS.private_key}\t{KEYS.public_key}\t41820\toff\n"
        f"{KEY}\t(none)\t192.0.2.1:5\tfd00::/64\t1700000000\t148\t92\t25\n"
        f"{OTHER_KEY}\t{KEY}\t(none)\t(none)\t0\t0\t0\toff\n"
    )

    assert await tunnel.peers() == {
        KEY: PeerStatus("192.0.2.1:5", 1_700_000_000, 148, 92),
        OTHER_KEY: PeerStatus(None, None, 0, 0),
    }


async def test_a_device_without_peers_has_none() -> None:
    tunnel, runner, name = _rig()
    runner.answers[f"wg show {name} dump"] = "a\tb\t41820\toff\n"

    assert await tunnel.peers() == {}


@pytest.mark.parametrize(
    "endpoint",
    [
        "", "host", "host:", ":1", "1.2.3.4:1\nPostUp = reboot", "host:1 allowed-ips ::/0", "::1:1", "[::1%eth0]:1",
        "h#:1", "h=:1", "host:123456", "[::1]:1\n",
    ],
)  # fmt: skip
def test_what_is_no_endpoint_makes_no_peer(endpoint: str) -> None:
    with pytest.raises(ValueError, match="not an endpoint"):
        Peer(KEY, endpoint=endpoint)


def test_what_is_no_key_makes_no_peer() -> None:
    with pytest.raises(ValueError, match="not a key"):
        Peer(f"{KEY}\nPostUp = reboot")
    with pytest.raises(ValueError, match="not a key"):
        Peer(KEY, preshared_key="secret")


def test_a_peers_preshared_key_is_in_no_repr() -> None:
    assert OTHER_KEY not in repr(Peer(KEY, preshared_key=OTHER_KEY))
