"""Addresses and names are the same for everybody who knows mesh id and key, and others for everybody else."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.wireguard import addresses
from discovery.wireguard.addresses import (
    Role,
    framed,
    interface_name,
    mesh_address,
    mesh_interface,
    mesh_prefix,
)
from tests.support import KEY, OTHER_KEY, examples, key

MESH_IDS = st.text("abcXYZ019._-", min_size=1, max_size=20)
KEYS = st.integers(1, 2**255).map(key)
ROLES = st.sampled_from(("colony", "agent"))
ULA = IPv6Network("fd00::/8")


def test_the_addresses_are_those_that_everybody_derives() -> None:
    """Changing one of these cuts every mesh in two: members of the old version and of the new."""
    assert mesh_prefix("my-app-prod") == IPv6Network("fda9:6a43:b0c5::/64")
    assert mesh_address("my-app-prod", KEY) == IPv6Address("fda9:6a43:b0c5:0:7861:8c51:5828:1cd7")
    assert mesh_address("my-app-prod", OTHER_KEY) == IPv6Address(
        "fda9:6a43:b0c5:0:7135:e0ab:5595:e8f2"
    )
    assert str(mesh_interface("my-app-prod", KEY)) == "fda9:6a43:b0c5:0:7861:8c51:5828:1cd7/64"


def test_the_names_are_those_that_the_next_start_looks_for() -> None:
    assert interface_name("colony", "my-app-prod", KEY) == "coral-2e77d4ed"
    assert interface_name("agent", "my-app-prod", KEY) == "coral-28f8dbcc"


@examples(200)
@given(MESH_IDS, KEYS)
def test_an_address_is_a_unique_local_one_within_the_mesh(mesh_id: str, pubkey: str) -> None:
    prefix, address = mesh_prefix(mesh_id), mesh_address(mesh_id, pubkey)

    assert prefix.prefixlen == 64
    assert prefix.subnet_of(ULA)
    assert prefix.network_address.packed[6:8] == b"\0\0"
    assert address in prefix
    assert address != prefix.network_address


@examples(200)
@given(st.sets(st.tuples(MESH_IDS, KEYS), min_size=2, max_size=8))
def test_every_member_of_every_mesh_has_its_own_address(members: set[tuple[str, str]]) -> None:
    assert len({mesh_address(*member) for member in members}) == len(members)
    meshes = {mesh_id for mesh_id, _ in members}
    assert len({mesh_prefix(mesh_id) for mesh_id in meshes}) == len(meshes)


@examples(200)
@given(st.sets(st.tuples(ROLES, MESH_IDS, KEYS), min_size=2, max_size=8))
def test_every_device_has_its_own_short_name(members: set[tuple[Role, str, str]]) -> None:
    names = {interface_name(*member) for member in members}

    assert len(names) == len(members)
    assert all(name.startswith("coral-") and len(name) <= 15 for name in names)


def test_no_member_has_the_anycast_address() -> None:
    assert addresses._interface_id(bytes(32)) == 1
    assert addresses._interface_id(b"\0" * 7 + b"\2" * 25) == 2


def test_what_is_no_key_has_no_address() -> None:
    with pytest.raises(ValueError, match="not a key"):
        mesh_address("m", "nothing")


@examples(100)
@given(st.sets(st.lists(st.binary(max_size=3), max_size=3).map(tuple), min_size=2))
def test_no_two_lists_of_fields_are_framed_alike(lists: set[tuple[bytes, ...]]) -> None:
    assert len({framed("label", *fields) for fields in lists}) == len(lists)
