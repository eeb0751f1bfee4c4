"""The configuration that `coral connect --print-config` prints, for `wg-quick`."""

from __future__ import annotations

import shutil
import subprocess
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from discovery.wireguard.quick import wg_quick_config
from discovery.wireguard.tunnel import Peer
from tests.support import KEY, OTHER_KEY
from tests.unit.wireguard.support import KEYS, settings

NET = IPv6Network("fd00:1::/64")
FULL = Peer(KEY, (NET, IPv6Network("fd01::1")), "hub.example.com:41820", OTHER_KEY, 25)


def test_everything_we_know_is_in_it() -> None:
    given = settings("coral-x")

    assert wg_quick_config(given, [FULL]) == (
        "[Interface]\n"
        f"PrivateKey = {KEYS.private_key}\n"
        f"Address = {given.address}\n"
        "ListenPort = 41820\n"
        "MTU = 1420\n"
        "\n"
        "[Peer]\n"
        f"PublicKey = {KEY}\n"
        f"PresharedKey = {OTHER_KEY}\n"
        "AllowedIPs = fd00:1::/64, fd01::1/128\n"
        "Endpoint = hub.example.com:41820\n"
        "PersistentKeepalive = 25\n"
    )


def test_what_we_do_not_know_is_not_in_it() -> None:
    text = wg_quick_config(settings("coral-x", port=0), [Peer(KEY, (NET,))])

    assert [line.partition(" = ")[0] for line in text.splitlines()] == [
        "[Interface]", "PrivateKey", "Address", "MTU", "", "[Peer]", "PublicKey", "AllowedIPs",
    ]  # fmt: skip


@pytest.mark.skipif(shutil.which("wg-quick") is None, reason="wg-quick is not installed")
@pytest.mark.parametrize("peer", [FULL, Peer(KEY, (NET,), "[2001:db8::1]:1"), Peer(KEY)], ids=repr)
def test_wg_quick_takes_it(tmp_path: Path, peer: Peer) -> None:
    path = tmp_path / "coral-x.conf"
    path.touch(0o600)
    path.write_text(wg_quick_config(settings("coral-x"), [peer]))

    stripped = subprocess.run(
        ["wg-quick", "strip", str(path)], capture_output=True, text=True, check=True
    )

    assert stripped.stderr == ""
    assert f"PublicKey = {KEY}" in stripped.stdout
    assert "Address" not in stripped.stdout
