"""Only who knows the token can make a proof or a preshared key, and each is good for one mesh, agent and key."""

from __future__ import annotations

import shutil
import subprocess
import traceback

import pytest

from discovery.errors import ConfigError
from discovery.wireguard.joining import JoinToken
from discovery.wireguard.keys import decode_key
from tests.support import KEY, OTHER_KEY

SECRET = "correct horse battery staple"
COLONY = KEY
AGENT = OTHER_KEY


@pytest.fixture(scope="module")
def token() -> JoinToken:
    return JoinToken(SECRET, "my-app-prod")


def test_proof_and_preshared_key_are_those_that_everybody_derives(token: JoinToken) -> None:
    """Changing one of these locks out every agent of another version."""
    assert token.proof("api", AGENT) == "ZVo/gsy/emSIIeazT7aOUlQznGXjnLrftxawXWYLLDo="
    assert token.preshared_key(COLONY, AGENT) == "OVUPxcXa9pdrZ/11E1GBDXgpx4YoACqyBg8XrxkJfKw="


def test_a_proof_is_good_for_its_agent_and_key_alone(token: JoinToken) -> None:
    proof = token.proof("api", AGENT)

    assert token.verify("api", AGENT, proof)
    assert not token.verify("apj", AGENT, proof)
    assert not token.verify("api", COLONY, proof)


def test_a_proof_is_good_for_its_mesh_and_token_alone(token: JoinToken) -> None:
    proof = token.proof("api", AGENT)

    assert not JoinToken(SECRET, "my-app-test").verify("api", AGENT, proof)
    assert not JoinToken(f"{SECRET}!", "my-app-prod").verify("api", AGENT, proof)


@pytest.mark.parametrize("proof", ["", "x", "é", "\ud800", "A" * 43 + "=", "PROOF"])
def test_what_is_no_proof_is_refused(token: JoinToken, proof: str) -> None:
    assert not token.verify("api", AGENT, proof)
    assert not token.verify("api", AGENT, token.proof("api", AGENT)[:-1] + proof)


def test_a_preshared_key_is_of_two_keys_in_their_roles(token: JoinToken) -> None:
    keys = {
        token.preshared_key(COLONY, AGENT),
        token.preshared_key(AGENT, COLONY),
        token.preshared_key(COLONY, COLONY),
        JoinToken(SECRET, "other").preshared_key(COLONY, AGENT),
        token.proof("", AGENT),
    }

    assert len(keys) == 5
    assert all(len(decode_key(key)) == 32 for key in keys)


def test_white_space_around_a_token_does_not_count() -> None:
    assert JoinToken(f" {SECRET}\n", "m").proof("a", KEY) == JoinToken(SECRET, "m").proof("a", KEY)


@pytest.mark.parametrize("secret", ["", "hunter2", "x" * 15, " " * 20, "x" * 15 + " \n"])
def test_a_short_token_is_refused_with_how_to_make_one(secret: str) -> None:
    with pytest.raises(ConfigError, match="openssl rand -base64 24") as refusal:
        JoinToken(secret, "m")

    assert "hunter2" not in str(refusal.value)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_what_the_error_proposes_is_taken() -> None:
    proposed = subprocess.check_output(["openssl", "rand", "-base64", "24"], text=True)

    assert JoinToken(proposed, "m").proof("a", KEY)


def test_a_token_of_any_bytes_is_taken() -> None:
    assert JoinToken("\udcff" * 16, "m").proof("a", KEY)


def test_the_secret_is_in_no_repr_and_no_error(token: JoinToken) -> None:
    with pytest.raises(ValueError, match="not a key") as refusal:
        token.proof("a", "no key")

    said = "".join(traceback.format_exception(refusal.value))
    assert SECRET not in f"{token!r} {token} {said}"
