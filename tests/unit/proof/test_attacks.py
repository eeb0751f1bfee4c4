"""An attacker who sees every proof, has keys of his own and every server's public key, gets nothing accepted."""

from __future__ import annotations

import asyncio
import hmac
import traceback
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from discovery.errors import ProofInvalidError, ProofRequiredError, StoreUnavailableError
from discovery.proof import (
    OLD_PROOF_HEADER,
    PROOF_HEADER,
    Challenge,
    MemorySeenNonces,
    Method,
    Nonce,
    Prover,
    ServerKeys,
    Verifier,
)
from discovery.proof.header import Proof
from discovery.proof.nonces import make_nonce
from discovery.proof.statement import statement
from discovery.proof.tags import tag
from discovery.proof.text import decode, encode
from tests.support import ManualClock, key, shown
from tests.unit.proof.support import (
    CHANGE_NAMES,
    CHANGES,
    FOREIGN_SERVER_PRIVATE,
    FULL,
    LATER_SERVER_PRIVATE,
    OLD_PRIVATE,
    OLD_PUBLIC,
    OTHER_PRIVATE,
    OTHER_PUBLIC,
    PRIVATE,
    PUBLIC,
    SERVER_PRIVATE,
    SMALL_ORDER,
    Rig,
    altered,
)

REFUSED = (ProofInvalidError, ProofRequiredError)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def _parts(header: str) -> list[str]:
    return header.split(" ")


# What is accepted


@pytest.mark.parametrize("method", Method)
async def test_who_holds_the_key_is_believed(rig: Rig, method: Method) -> None:
    assert await rig.verify(rig.prove(method=method), method=method) is None


async def test_metadata_may_come_as_bytes(rig: Rig) -> None:
    await rig.verify({name: value.encode() for name, value in rig.prove().items()})


async def test_metadata_is_ascii_that_every_protocol_carries(rig: Rig) -> None:
    for value in rig.prove(old_private=OLD_PRIVATE).values():
        assert value.isascii()
        assert value.isprintable()


async def test_without_a_proof_the_refusal_tells_how_to_make_one(rig: Rig) -> None:
    with pytest.raises(ProofRequiredError) as refusal:
        await rig.verify({})

    challenge = Challenge(refusal.value.server_key, refusal.value.nonce)
    proved = Prover(PRIVATE).prove(Method.REGISTER_COLONY, FULL, challenge, rig.clock.now())
    await rig.verify(proved)


async def test_a_challenge_serves_at_another_replica(rig: Rig) -> None:
    replica = rig.server(SERVER_PRIVATE)

    await rig.verify(rig.prove(verifier=replica))


# Replay


async def test_a_proof_is_good_once(rig: Rig) -> None:
    proof = rig.prove()
    await rig.verify(proof)

    with pytest.raises(ProofRequiredError, match="used before"):
        await rig.verify(proof)


async def test_of_two_at_once_one_is_refused(rig: Rig) -> None:
    proof = rig.prove()

    outcomes = await asyncio.gather(rig.verify(proof), rig.verify(proof), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [type(None), ProofRequiredError]


async def test_a_proof_is_not_good_at_another_replica_again(rig: Rig) -> None:
    proof = rig.prove()
    await rig.verify(proof)

    with pytest.raises(ProofRequiredError, match="used before"):
        await rig.server(SERVER_PRIVATE).verify(Method.REGISTER_COLONY, FULL, proof)


async def test_a_proof_is_not_good_again_after_a_restart(rig: Rig) -> None:
    proof = rig.prove()
    await rig.verify(proof)
    rig.clock.advance(0.001)
    restarted = rig.server(SERVER_PRIVATE, seen=MemorySeenNonces(rig.clock))

    with pytest.raises(ProofRequiredError):
        await restarted.verify(Method.REGISTER_COLONY, FULL, proof)
    await restarted.verify(Method.REGISTER_COLONY, FULL, rig.prove(verifier=restarted))


@pytest.mark.parametrize("seconds", range(0, 300, 7))
async def test_a_proof_is_never_good_again(rig: Rig, seconds: int) -> None:
    proof = rig.prove()
    await rig.verify(proof)
    rig.clock.advance(seconds)

    with pytest.raises(REFUSED):
        await rig.verify(proof)


async def test_one_nonce_serves_one_of_two_proofs(rig: Rig) -> None:
    challenge, now = rig.verifier.challenge(), rig.clock.now()
    mine = Prover(PRIVATE).prove(Method.REGISTER_COLONY, FULL, challenge, now)
    theirs = replace(FULL, pubkey=OTHER_PUBLIC)
    other = Prover(OTHER_PRIVATE).prove(Method.REGISTER_COLONY, theirs, challenge, now)
    await rig.verify(mine)

    with pytest.raises(ProofRequiredError, match="used before"):
        await rig.verify(other, theirs)


async def test_only_a_valid_proof_uses_a_nonce_up(rig: Rig) -> None:
    proof = rig.prove()
    forged = Proof(Proof.read(proof[PROOF_HEADER]).occasion, bytes(32)).header()
    with pytest.raises(ProofInvalidError):
        await rig.verify({PROOF_HEADER: forged})
    with pytest.raises(ProofInvalidError):
        await rig.verify(proof, replace(FULL, mesh_id="mesh-2"))

    await rig.verify(proof)


async def test_when_it_cannot_tell_whether_a_proof_was_used_it_says_so(rig: Rig) -> None:
    class Away:
        async def use(self, nonce: Nonce) -> bool:
            raise StoreUnavailableError("away")

    with pytest.raises(StoreUnavailableError):
        await rig.server(SERVER_PRIVATE, seen=Away()).verify(
            Method.REGISTER_COLONY, FULL, rig.prove()
        )


# Altered


async def test_no_beginning_and_no_flipped_bit_of_a_proof_is_accepted(rig: Rig) -> None:
    proof = rig.prove()

    for header in altered(proof[PROOF_HEADER]):
        with pytest.raises(REFUSED):
            await rig.verify({PROOF_HEADER: header})
    await rig.verify(proof)


async def test_no_beginning_and_no_flipped_bit_of_an_old_keys_proof_is_accepted(rig: Rig) -> None:
    proof = rig.prove(old_private=OLD_PRIVATE)

    for header in altered(proof[OLD_PROOF_HEADER]):
        with pytest.raises(ProofInvalidError):
            await rig.verify({**proof, OLD_PROOF_HEADER: header})
    await rig.verify(proof)


@pytest.mark.parametrize(
    "form",
    [
        "v1 {key} {time} {nonce} {tag} ",
        " v1 {key} {time} {nonce} {tag}",
        "v1  {key} {time} {nonce} {tag}",
        "v1\t{key}\t{time}\t{nonce}\t{tag}",
        "v1 {key} {time} {nonce} {tag}\n",
        "v1 {key} {time} {nonce} {tag}, v1 {key} {time} {nonce} {tag}",
        "v1 {key} {time} {nonce} {tag} {tag}",
        "v2 {key} {time} {nonce} {tag}",
        "V1 {key} {time} {nonce} {tag}",
        "{key} {time} {nonce} {tag}",
        "v1 {key} {time} {nonce}",
        "v1 {key} {time} {nonce} =",
        "v1 {key} 0{time} {nonce} {tag}",
        "v1 {key} +{time} {nonce} {tag}",
        "v1 {key} -{time} {nonce} {tag}",
        "v1 {key} {time}.0 {nonce} {tag}",
        "v1 {key} {time}000 {nonce} {tag}",
        "v1 {key} \u0661800000000000 {nonce} {tag}",
        "v1 {key}  {nonce} {tag}",
        "v1",
        "v1    ",
        "",
        "v1 " * 100_000,
    ],
    ids=shown,
)
async def test_a_proof_has_one_form(rig: Rig, form: str) -> None:
    _version, key_, time, nonce, tag_ = _parts(rig.prove()[PROOF_HEADER])
    header = form.format(key=key_, time=time, nonce=nonce, tag=tag_)

    with pytest.raises(ProofInvalidError, match="not in its form"):
        await rig.verify({PROOF_HEADER: header})


async def test_metadata_that_is_not_ascii_is_no_proof(rig: Rig) -> None:
    with pytest.raises(ProofInvalidError):
        await rig.verify({PROOF_HEADER: b"\xff"})


# Moved


@pytest.mark.parametrize("change", CHANGES, ids=CHANGE_NAMES)
async def test_a_proof_is_not_good_for_another_message(rig: Rig, change: Mapping[str, Any]) -> None:
    with pytest.raises(ProofInvalidError, match="does not hold"):
        await rig.verify(rig.prove(), replace(FULL, **change))


@pytest.mark.parametrize("method", sorted(set(Method) - {Method.REGISTER_COLONY}))
async def test_a_proof_is_not_good_for_another_method(rig: Rig, method: Method) -> None:
    with pytest.raises(ProofInvalidError, match="does not hold"):
        await rig.verify(rig.prove(), method=method)


async def test_a_proof_is_not_good_for_another_key(rig: Rig) -> None:
    with pytest.raises(ProofInvalidError, match="does not hold"):
        await rig.verify(rig.prove(private=OTHER_PRIVATE))
    with pytest.raises(ProofInvalidError, match="does not hold"):
        await rig.verify(rig.prove(), replace(FULL, pubkey=OTHER_PUBLIC))


async def test_a_proof_is_not_good_at_another_server(rig: Rig) -> None:
    elsewhere = rig.server(FOREIGN_SERVER_PRIVATE)

    with pytest.raises(ProofRequiredError, match="another server") as refusal:
        await elsewhere.verify(Method.REGISTER_COLONY, FULL, rig.prove())

    assert refusal.value.server_key == elsewhere.challenge().server_key


async def test_a_proof_is_not_good_for_another_of_a_servers_keys(rig: Rig) -> None:
    rig.verifier = rig.server(SERVER_PRIVATE, LATER_SERVER_PRIVATE)
    version, _server_key, *rest = _parts(rig.prove()[PROOF_HEADER])
    later = rig.server(LATER_SERVER_PRIVATE).challenge().server_key

    with pytest.raises(ProofInvalidError):
        await rig.verify({PROOF_HEADER: " ".join((version, later, *rest))})


# Nonces


async def test_a_nonce_of_another_server_is_refused(rig: Rig) -> None:
    theirs = rig.server(FOREIGN_SERVER_PRIVATE).challenge()
    challenge = replace(rig.verifier.challenge(), nonce=theirs.nonce)
    proof = Prover(PRIVATE).prove(Method.REGISTER_COLONY, FULL, challenge, rig.clock.now())

    with pytest.raises(ProofInvalidError, match="nonce"):
        await rig.verify(proof)


@pytest.mark.parametrize("at", range(40))
async def test_a_forged_nonce_is_refused(rig: Rig, at: int) -> None:
    challenge = rig.verifier.challenge()
    forged = bytearray(decode(challenge.nonce, 40))
    forged[at] ^= 1
    challenge = replace(challenge, nonce=encode(bytes(forged)))
    proof = Prover(PRIVATE).prove(Method.REGISTER_COLONY, FULL, challenge, rig.clock.now())

    with pytest.raises(ProofInvalidError, match="nonce"):
        await rig.verify(proof)


async def test_a_challenge_is_good_for_two_minutes(rig: Rig) -> None:
    prover = Prover(PRIVATE)
    in_time, late = rig.verifier.challenge(), rig.verifier.challenge()
    rig.clock.advance(119.999)
    await rig.verify(prover.prove(Method.REGISTER_COLONY, FULL, in_time, rig.clock.now()))
    rig.clock.advance(0.001)

    with pytest.raises(ProofRequiredError, match="expired"):
        await rig.verify(prover.prove(Method.REGISTER_COLONY, FULL, late, rig.clock.now()))


@pytest.mark.parametrize("ahead, good", [(60, True), (60.001, False)])
async def test_a_replicas_clock_may_be_a_minute_ahead(rig: Rig, ahead: float, good: bool) -> None:
    theirs = ManualClock(unix_us=rig.clock.now().unix_us + round(ahead * 1e6))
    replica = Verifier(ServerKeys.from_text(SERVER_PRIVATE), rig.seen, theirs)
    proof = rig.prove(verifier=replica)

    if good:
        await rig.verify(proof)
    else:
        with pytest.raises(ProofRequiredError):
            await rig.verify(proof)


async def test_no_two_challenges_are_the_same(rig: Rig) -> None:
    assert len({rig.verifier.challenge() for _ in range(100)}) == 100


# Clocks


@pytest.mark.parametrize("seconds", [-60, 60])
async def test_clocks_may_differ_by_a_minute(rig: Rig, seconds: int) -> None:
    challenge = rig.verifier.challenge()
    theirs = ManualClock(unix_us=rig.clock.now().unix_us + seconds * 1_000_000)

    await rig.verify(Prover(PRIVATE).prove(Method.REGISTER_COLONY, FULL, challenge, theirs.now()))


@pytest.mark.parametrize(
    "seconds, said",
    [
        (-61, "61.0 s behind this server's"),
        (61, "61.0 s ahead of this server's"),
        (-60.001, "60.0 s behind"),
        (60.001, "60.0 s ahead"),
        (3600, "3600.0 s ahead"),
    ],
)
async def test_clocks_that_differ_by_more_are_refused_with_the_difference(
    rig: Rig, seconds: float, said: str
) -> None:
    challenge = rig.verifier.challenge()
    theirs = ManualClock(unix_us=rig.clock.now().unix_us + round(seconds * 1e6))
    proof = Prover(PRIVATE).prove(Method.REGISTER_COLONY, FULL, challenge, theirs.now())

    with pytest.raises(ProofInvalidError, match=said):
        await rig.verify(proof)


async def test_a_proof_that_was_held_back_is_not_good_a_minute_later(rig: Rig) -> None:
    proof = rig.prove()
    rig.clock.advance(60.001)

    with pytest.raises(ProofInvalidError, match="behind"):
        await rig.verify(proof)


# Keys that are none


@pytest.mark.parametrize("point", SMALL_ORDER, ids=bytes.hex)
async def test_a_public_key_of_small_order_proves_nothing(rig: Rig, point: bytes) -> None:
    said = replace(FULL, pubkey=encode(point))
    occasion = rig.verifier.challenge().occasion(rig.clock.now().unix_us // 1000)
    # What X25519 comes to with every private key.
    forged = tag(
        bytes(32),
        registrant=point,
        server=occasion.server_key,
        statement=statement(Method.REGISTER_COLONY, said, occasion),
    )

    with pytest.raises(ProofInvalidError, match="nobody can hold"):
        await rig.verify({PROOF_HEADER: Proof(occasion, forged).header()}, said)


@pytest.mark.parametrize("point", SMALL_ORDER, ids=bytes.hex)
def test_nothing_is_proved_to_a_server_whose_key_is_of_small_order(rig: Rig, point: bytes) -> None:
    challenge = replace(rig.verifier.challenge(), server_key=encode(point))

    with pytest.raises(ValueError, match=r".+"):
        Prover(PRIVATE).prove(Method.REGISTER_COLONY, FULL, challenge, rig.clock.now())


@pytest.mark.parametrize("pubkey", ["", "x", "A" * 43, "A" * 42 + "B=", "é" * 44], ids=shown)
async def test_what_is_no_public_key_proves_nothing(rig: Rig, pubkey: str) -> None:
    said = replace(FULL, pubkey=pubkey)

    with pytest.raises(ProofInvalidError):
        await rig.verify(rig.prove(said), said)


async def test_the_other_name_of_a_key_is_another_key(rig: Rig) -> None:
    # X25519 ignores the highest bit, so that two texts stand for one public key; the tag tells them apart.
    raw = bytearray(decode(PUBLIC, 32))
    raw[31] ^= 128
    said = replace(FULL, pubkey=encode(bytes(raw)))

    with pytest.raises(ProofInvalidError, match="does not hold"):
        await rig.verify(rig.prove(said), said)


# Rotation of the server's keys


async def test_during_a_rotation_both_keys_are_accepted_at_old_and_new_replicas(rig: Rig) -> None:
    old = rig.server(SERVER_PRIVATE, LATER_SERVER_PRIVATE)
    new = rig.server(LATER_SERVER_PRIVATE, SERVER_PRIVATE)

    for giver in (old, new):
        for taker in (old, new):
            await taker.verify(Method.REGISTER_COLONY, FULL, rig.prove(verifier=giver))


async def test_after_a_rotation_the_old_key_is_answered_with_the_new(rig: Rig) -> None:
    rotated = rig.server(LATER_SERVER_PRIVATE)

    with pytest.raises(ProofRequiredError) as refusal:
        await rotated.verify(Method.REGISTER_COLONY, FULL, rig.prove())

    challenge = Challenge(refusal.value.server_key, refusal.value.nonce)
    proved = Prover(PRIVATE).prove(Method.REGISTER_COLONY, FULL, challenge, rig.clock.now())
    await rotated.verify(Method.REGISTER_COLONY, FULL, proved)


# From one of the registrant's keys to another


async def test_the_old_keys_holder_says_the_same(rig: Rig) -> None:
    assert await rig.verify(rig.prove(old_private=OLD_PRIVATE)) == OLD_PUBLIC


async def test_an_old_key_alone_proves_nothing(rig: Rig) -> None:
    old = rig.prove(old_private=OLD_PRIVATE)[OLD_PROOF_HEADER]

    with pytest.raises(ProofRequiredError):
        await rig.verify({OLD_PROOF_HEADER: old})


async def test_nobody_else_can_say_that_the_old_key_agrees(rig: Rig) -> None:
    proof = rig.prove(old_private=OTHER_PRIVATE)
    version, _pubkey, tag_ = _parts(proof[OLD_PROOF_HEADER])

    with pytest.raises(ProofInvalidError):
        await rig.verify({**proof, OLD_PROOF_HEADER: f"{version} {OLD_PUBLIC} {tag_}"})


async def test_what_the_old_key_said_for_itself_is_no_agreement_to_another_key(rig: Rig) -> None:
    """The thief has his own key, and every proof that the owner made for the owner's key."""
    challenge, now = rig.verifier.challenge(), rig.clock.now()
    owners = Prover(OLD_PRIVATE).prove(
        Method.REGISTER_COLONY, replace(FULL, pubkey=OLD_PUBLIC), challenge, now
    )
    thiefs = Prover(PRIVATE).prove(Method.REGISTER_COLONY, FULL, challenge, now)
    agreed = f"v1 {OLD_PUBLIC} {_parts(owners[PROOF_HEADER])[-1]}"

    with pytest.raises(ProofInvalidError):
        await rig.verify({**thiefs, OLD_PROOF_HEADER: agreed})


async def test_an_agreement_is_good_for_one_new_key_and_mesh(rig: Rig) -> None:
    agreed = rig.prove(old_private=OLD_PRIVATE)[OLD_PROOF_HEADER]
    thief = replace(FULL, pubkey=OTHER_PUBLIC)

    with pytest.raises(ProofInvalidError):
        await rig.verify(
            {**rig.prove(thief, private=OTHER_PRIVATE), OLD_PROOF_HEADER: agreed}, thief
        )
    with pytest.raises(ProofInvalidError):
        await rig.verify({**rig.prove(), OLD_PROOF_HEADER: agreed})


async def test_an_old_key_of_small_order_agrees_to_nothing(rig: Rig) -> None:
    proof = rig.prove()
    occasion = Proof.read(proof[PROOF_HEADER]).occasion
    said = statement(Method.REGISTER_COLONY, FULL, occasion)
    forged = tag(bytes(32), registrant=bytes(32), server=occasion.server_key, statement=said)

    with pytest.raises(ProofInvalidError):
        await rig.verify({**proof, OLD_PROOF_HEADER: f"v1 {encode(bytes(32))} {encode(forged)}"})


# Secrets


async def test_secrets_are_in_no_error(rig: Rig) -> None:
    secret = "B" * 43 + "="  # stray bits: it is not canonical
    for make in (Prover, ServerKeys.from_text):
        with pytest.raises(ValueError, match="not the base64 of 32 bytes") as refusal:
            make(secret)
        assert secret not in "".join(traceback.format_exception(refusal.value))


async def test_tags_are_compared_in_constant_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(len(one))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    await rig.verify(rig.prove(old_private=OLD_PRIVATE))

    assert compared == [16, 32, 32]


def test_a_nonce_says_nothing_of_the_key_it_is_made_with() -> None:
    nonces = {make_nonce(key(n).encode(), bytes(16), 1)[24:] for n in (1, 2)}

    assert len(nonces) == 2
