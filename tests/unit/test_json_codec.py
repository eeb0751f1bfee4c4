"""The JSON codec beside two other implementations, and case by case.

Google's json_format says what a message is in JSON. It reads far too much to say what is a message, so that is said by
Go's protojson, which connect-go uses, as `buf convert` runs it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import betterproto
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from discovery._gen.coral.discovery.v1 import (
    CertificateFingerprint,
    FingerprintAlgorithm,
    HealthRequest,
    HealthResponse,
    LookupColonyResponse,
    NatHint,
    PublicEndpointInfo,
    RegisterColonyRequest,
    RegisterColonyResponse,
    RegistrationState,
    WatchColonyResponse,
)
from discovery.errors import Code, InvalidMessageError
from discovery.transport import codec, json_codec
from discovery.transport.moments import EPOCH
from tests.fuzz.messages import (
    DESCRIPTORS,
    MESSAGE_TYPES,
    PACKAGE,
    Field,
    described,
    odd_documents,
    reference,
    references,
)
from tests.support import examples

SHA256 = FingerprintAlgorithm(FingerprintAlgorithm.SHA256)

each_type = pytest.mark.parametrize("message_type", MESSAGE_TYPES)


def refusal(document: str | bytes, message_type: type[betterproto.Message]) -> str:
    """Return what is said when `document` is refused."""
    data = document if isinstance(document, bytes) else document.encode()
    with pytest.raises(InvalidMessageError) as caught:
        json_codec.decode(data, message_type)
    prefix = f"not a {message_type.__name__}: "
    assert caught.value.message.startswith(prefix)
    return caught.value.message.removeprefix(prefix)


def read(document: str, message_type: type[betterproto.Message]) -> Any:
    return json_codec.decode(document.encode(), message_type)


def shortened(document: str) -> str:
    return document[:60]


# -- Beside Google's json_format ------------------------------------------------------------------


@each_type
@examples(25)
@given(data=st.data())
def test_a_message_is_written_as_json_format_writes_it(
    message_type: type[betterproto.Message], data: st.DataObject
) -> None:
    message = data.draw(references(message_type))
    ours = codec.decode(message.SerializeToString(), message_type)
    written = json_codec.encode(ours)
    assert json.loads(written) == json.loads(json_format.MessageToJson(message))
    assert codec.encode(json_codec.decode(written, message_type)) == codec.encode(ours)


@each_type
@examples(25)
@given(data=st.data(), proto_names=st.booleans(), numbers=st.booleans())
def test_what_json_format_writes_is_read(
    message_type: type[betterproto.Message], data: st.DataObject, proto_names: bool, numbers: bool
) -> None:
    message = data.draw(references(message_type))
    document = json_format.MessageToJson(
        message,
        preserving_proto_field_name=proto_names,
        use_integers_for_enums=numbers,
        always_print_fields_with_no_presence=data.draw(st.booleans()),
        ensure_ascii=data.draw(st.booleans()),
    )
    ours = read(document, message_type)
    assert reference(message_type).FromString(codec.encode(ours)) == message
    assert ours == codec.decode(message.SerializeToString(), message_type)


# -- Beside Go's protojson ------------------------------------------------------------------------


def protojson(document: bytes, message_type: type[betterproto.Message]) -> Message | None:
    """Return what Go's protojson reads in `document`; None if it refuses it."""
    buf = shutil.which("buf", path=sysconfig.get_path("scripts")) or shutil.which("buf")
    if buf is None:
        pytest.skip("no buf here")
    result = subprocess.run(
        (
            *(buf, "convert", str(DESCRIPTORS), f"--type={PACKAGE}.{message_type.__name__}"),
            *("--from=-#format=json", "--to=-#format=binpb"),
        ),
        input=document,
        capture_output=True,
        check=False,
    )
    if result.returncode:
        assert b"--from: json unmarshal" in result.stderr, result.stderr
        return None
    return reference(message_type).FromString(result.stdout)


def ours_read(document: bytes, message_type: type[betterproto.Message]) -> Message | None:
    """Return what the codec reads in `document`, as Google's class; None if it refuses it."""
    try:
        message = json_codec.decode(document, message_type)
    except InvalidMessageError:
        return None
    return reference(message_type).FromString(codec.encode(message))


JUSTIFIED = {
    "a number that ends with its e": ('{"ttl": 1e}', RegisterColonyResponse),
    "a key twice that nobody reads": ('{"x": 1, "x": 2}', HealthRequest),
    "half a surrogate pair where nobody reads it": ('{"x": "\\ud800"}', HealthRequest),
    "a line break in base64": ('{"value": "AQ\\n\\n\\n\\nI="}', CertificateFingerprint),
    "a comma before the fraction": (
        '{"expiresAt": "2024-01-01T00:00:00,5Z"}',
        RegisterColonyResponse,
    ),
    "an hour of one digit": ('{"expiresAt": "2024-01-01T0:00:00Z"}', RegisterColonyResponse),
    "nanoseconds": ('{"expiresAt": "2024-01-01T00:00:00.123456789Z"}', RegisterColonyResponse),
    "the epoch": ('{"expiresAt": "1970-01-01T00:00:00Z"}', RegisterColonyResponse),
}
"""Where ours and protojson differ: RFC 8259 or RFC 3339 is on our side in all but the surrogates, which no message can
hold, and the last two, where it is betterproto that has no more than microseconds and does not keep the epoch."""


@examples(60)
@given(st.sampled_from(MESSAGE_TYPES), st.data())
def test_ours_reads_what_protojson_reads_and_refuses_what_it_refuses(
    message_type: type[betterproto.Message], data: st.DataObject
) -> None:
    document = data.draw(odd_documents(message_type).filter(_is_comparable)).encode()
    assert ours_read(document, message_type) == protojson(document, message_type)


def _is_comparable(document: str) -> bool:
    return not any(odd in document for odd in ("1e}", "1e,", "1e]", "\\ud800", "\\udc00x"))


@pytest.mark.parametrize("document, message_type", JUSTIFIED.values(), ids=JUSTIFIED)
def test_they_differ_only_where_that_is_justified(
    document: str, message_type: type[betterproto.Message]
) -> None:
    data = document.encode()
    assert ours_read(data, message_type) != protojson(data, message_type)


# -- What is written ------------------------------------------------------------------------------


@each_type
def test_an_empty_message_is_an_empty_object(message_type: type[betterproto.Message]) -> None:
    assert json_codec.encode(message_type()) == b"{}"
    assert json_codec.decode(b"{}", message_type) == message_type()
    assert json_codec.decode(bytearray(b" {}\n"), message_type) == message_type()


def test_a_message_is_written_compactly_with_the_names_of_json() -> None:
    message = LookupColonyResponse(
        mesh_id="mésh",
        metadata={"a": "", "": "b"},
        last_seen=datetime(2024, 5, 6, 7, 8, 9, 120_000, tzinfo=timezone(timedelta(hours=2))),
        expires_at=datetime(999, 1, 1, tzinfo=UTC),
        revision=2**64 - 1,
        connect_port=9000,
        public_endpoint=PublicEndpointInfo(
            enabled=True,
            ca_fingerprint=CertificateFingerprint(SHA256, b"\xfb\xff\x00"),
        ),
        nat=NatHint(NatHint.NAT_CONE),
    )
    written = json_codec.encode(message).decode()
    assert written == (
        '{"meshId":"mésh","metadata":{"a":"","":"b"},"lastSeen":"2024-05-06T05:08:09.120Z",'
        '"expiresAt":"0999-01-01T00:00:00Z","revision":"18446744073709551615","connectPort":9000,'
        '"publicEndpoint":{"enabled":true,"caFingerprint":{"algorithm":"FINGERPRINT_ALGORITHM_SHA256",'
        '"value":"+/8A"}},"nat":"NAT_CONE"}'
    )


def test_a_number_that_is_no_enum_value_is_written_as_a_number() -> None:
    message = WatchColonyResponse(RegistrationState.try_value(7))
    assert json_codec.encode(message) == b'{"state":7}'
    assert json_codec.decode(b'{"state":7}', WatchColonyResponse) == message


def test_an_empty_message_that_is_set_is_kept() -> None:
    message = read('{"observedEndpoint": {}}', RegisterColonyRequest)
    assert message.is_set("observed_endpoint")
    assert json_codec.encode(message) == b'{"observedEndpoint":{}}'
    assert codec.encode(message) == b"\x72\x00"


def test_writing_a_message_leaves_it_as_it_was() -> None:
    message = LookupColonyResponse(mesh_id="m")
    json_codec.encode(message)
    assert not message.is_set("public_endpoint")
    assert not message.is_set("last_seen")


def test_a_field_that_was_looked_at_is_not_written() -> None:
    message = LookupColonyResponse(mesh_id="m")
    assert not message.public_endpoint.enabled
    assert message.last_seen == EPOCH
    assert json_codec.encode(message) == b'{"meshId":"m"}'


# -- What is read ---------------------------------------------------------------------------------

READ = {
    '{"mesh_id": "a"}': RegisterColonyRequest(mesh_id="a"),
    '{"meshId": "a"}': RegisterColonyRequest(mesh_id="a"),
    '{"mesh\\u0049d": "\\ud83d\\ude00"}': RegisterColonyRequest(mesh_id="\U0001f600"),
    '{"meshid": "a", "MESH_ID": "a", "x": {"y": [1e999, {}]}}': RegisterColonyRequest(),
    '{"meshId": null, "metadata": null, "endpoints": null, "publicEndpoint": null}': (
        RegisterColonyRequest()
    ),
    '{"connectPort": "443"}': RegisterColonyRequest(connect_port=443),
    '{"connectPort": 4.43e2}': RegisterColonyRequest(connect_port=443),
    '{"connectPort": 44300000E-5}': RegisterColonyRequest(connect_port=443),
    '{"connectPort": 443.000}': RegisterColonyRequest(connect_port=443),
    '{"connectPort": 0e99999}': RegisterColonyRequest(),
    '{"ttl": -2147483648}': RegisterColonyResponse(ttl=-(2**31)),
    '{"revision": 18446744073709551615}': RegisterColonyResponse(revision=2**64 - 1),
    '{"revision": "18446744073709551615"}': RegisterColonyResponse(revision=2**64 - 1),
    '{"revision": 18446744073709551615.0}': RegisterColonyResponse(revision=2**64 - 1),
    '{"uptimeSeconds": "-9223372036854775808"}': HealthResponse(uptime_seconds=-(2**63)),
    '{"value": "-_8"}': CertificateFingerprint(value=b"\xfb\xff"),
    '{"value": "+/8="}': CertificateFingerprint(value=b"\xfb\xff"),
    '{"value": ""}': CertificateFingerprint(),
    '{"algorithm": "FINGERPRINT_ALGORITHM_SHA256"}': CertificateFingerprint(SHA256),
    '{"algorithm": 1}': CertificateFingerprint(SHA256),
    '{"algorithm": "SHA256"}': CertificateFingerprint(),
    '{"algorithm": "FROM_A_LATER_VERSION", "value": "AQ=="}': CertificateFingerprint(value=b"\x01"),
    '{"expiresAt": "2024-01-01T01:00:00.5+01:30"}': RegisterColonyResponse(
        expires_at=datetime(2023, 12, 31, 23, 30, 0, 500_000, tzinfo=UTC)
    ),
    '{"expiresAt": "2024-01-01T00:00:00.999999999Z"}': RegisterColonyResponse(
        expires_at=datetime(2024, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC)
    ),
    '{"expiresAt": "0001-01-01T00:00:00Z"}': RegisterColonyResponse(
        expires_at=datetime(1, 1, 1, tzinfo=UTC)
    ),
}


@pytest.mark.parametrize("document", READ, ids=shortened)
def test_it_is_read(document: str) -> None:
    expected = READ[document]
    assert read(document, type(expected)) == expected


# -- What is refused, and what is said ------------------------------------------------------------

RANGE32 = "must be an integer from 0 to 4294967295"
TIME = "must be a time like 2006-01-02T15:04:05.678Z"
REFUSED: dict[str, tuple[type[betterproto.Message], str]] = {
    "": (HealthRequest, "the body is empty, and an empty message is {}"),
    " ": (HealthRequest, "no JSON: Expecting value, character 1"),
    "\ufeff{}": (HealthRequest, "no JSON: Expecting value, character 0"),
    "{}{}": (HealthRequest, "no JSON: Extra data, character 2"),
    "[]": (HealthRequest, "must be an object, not an array"),
    "null": (HealthRequest, "must be an object, not null"),
    "5": (HealthRequest, "must be an object, not a number"),
    '"x"': (HealthRequest, "must be an object, not a string"),
    "true": (HealthRequest, "must be an object, not a boolean"),
    '{"x": NaN}': (HealthRequest, "no JSON: NaN is no number"),
    '{"x": -Infinity}': (HealthRequest, "no JSON: -Infinity is no number"),
    '{"x": "\n"}': (HealthRequest, "no JSON: Invalid control character at, character 7"),
    '{"meshId": 5}': (RegisterColonyRequest, "mesh_id must be a string, not a number"),
    '{"meshId": "\\ud800"}': (RegisterColonyRequest, "mesh_id holds half of a surrogate pair"),
    '{"meshId": "\\udc00\\ud800"}': (
        RegisterColonyRequest,
        "mesh_id holds half of a surrogate pair",
    ),
    '{"meshId": "a", "meshId": "a"}': (
        RegisterColonyRequest,
        "the key 'meshId' comes twice in one object",
    ),
    '{"meshId": "a", "mesh_id": "a"}': (
        RegisterColonyRequest,
        "mesh_id comes twice, once as meshId",
    ),
    '{"publicEndpoint": {"ca_cert": "", "caCert": ""}}': (
        RegisterColonyRequest,
        "public_endpoint ca_cert comes twice, once as caCert",
    ),
    '{"endpoints": "a"}': (RegisterColonyRequest, "endpoints must be an array, not a string"),
    '{"endpoints": ["a", null]}': (
        RegisterColonyRequest,
        "endpoints[1] must be a string, not null",
    ),
    '{"metadata": []}': (RegisterColonyRequest, "metadata must be an object, not an array"),
    '{"metadata": {"k": 1}}': (
        RegisterColonyRequest,
        "metadata['k'] must be a string, not a number",
    ),
    '{"metadata": {"\\ud800\\n": ""}}': (
        RegisterColonyRequest,
        r"metadata['\ud800\n'] holds half of a surrogate pair",
    ),
    '{"observedEndpoint": []}': (
        RegisterColonyRequest,
        "observed_endpoint must be an object, not an array",
    ),
    '{"observedEndpoint": {"port": -1}}': (
        RegisterColonyRequest,
        f"observed_endpoint.port {RANGE32}",
    ),
    '{"observedEndpoints": [{}, {"viaRelay": 1}]}': (
        LookupColonyResponse,
        "observed_endpoints[1].via_relay must be true or false, not a number",
    ),
    '{"connectPort": true}': (
        RegisterColonyRequest,
        "connect_port must be an integer, not a boolean",
    ),
    '{"connectPort": 4294967296}': (RegisterColonyRequest, f"connect_port {RANGE32}"),
    '{"connectPort": 1.5}': (RegisterColonyRequest, f"connect_port {RANGE32}"),
    '{"connectPort": 1e400}': (RegisterColonyRequest, f"connect_port {RANGE32}"),
    '{"connectPort": 1e99999999999999999999}': (RegisterColonyRequest, f"connect_port {RANGE32}"),
    f'{{"connectPort": {"9" * 10_000}}}': (RegisterColonyRequest, f"connect_port {RANGE32}"),
    f'{{"connectPort": "{"9" * 10_000}"}}': (RegisterColonyRequest, f"connect_port {RANGE32}"),
    '{"connectPort": "NaN"}': (RegisterColonyRequest, f"connect_port {RANGE32}"),
    '{"connectPort": "1_000"}': (RegisterColonyRequest, f"connect_port {RANGE32}"),
    '{"connectPort": "٣"}': (RegisterColonyRequest, f"connect_port {RANGE32}"),
    '{"connectPort": "1\\n"}': (RegisterColonyRequest, f"connect_port {RANGE32}"),
    '{"revision": "18446744073709551616"}': (
        RegisterColonyResponse,
        "revision must be an integer from 0 to 18446744073709551615",
    ),
    '{"value": "AQ="}': (CertificateFingerprint, "value must be base64"),
    '{"value": "A"}': (CertificateFingerprint, "value must be base64"),
    '{"value": "!AQ=="}': (CertificateFingerprint, "value must be base64"),
    '{"value": "+_8="}': (CertificateFingerprint, "value must be base64"),
    '{"value": "é"}': (CertificateFingerprint, "value must be base64"),
    '{"value": []}': (CertificateFingerprint, "value must be a string, not an array"),
    '{"algorithm": true}': (CertificateFingerprint, "algorithm must be an integer, not a boolean"),
    '{"algorithm": 1.7}': (
        CertificateFingerprint,
        "algorithm must be an integer from -2147483648 to 2147483647",
    ),
    '{"algorithm": 2147483648}': (
        CertificateFingerprint,
        "algorithm must be an integer from -2147483648 to 2147483647",
    ),
    '{"expiresAt": 5}': (RegisterColonyResponse, "expires_at must be a string, not a number"),
    '{"expiresAt": "2024-01-01T00:00:00"}': (RegisterColonyResponse, f"expires_at {TIME}"),
    '{"expiresAt": "2024-1-1T0:0:0Z"}': (RegisterColonyResponse, f"expires_at {TIME}"),
    '{"expiresAt": "2024-01-01T00:00:00+ 1:-5"}': (RegisterColonyResponse, f"expires_at {TIME}"),
    '{"expiresAt": "2024-01-01T00:00:60Z"}': (RegisterColonyResponse, f"expires_at {TIME}"),
    '{"expiresAt": "2024-01-01T24:00:00Z"}': (RegisterColonyResponse, f"expires_at {TIME}"),
    '{"expiresAt": "2024-01-01T00:00:00.1234567890Z"}': (
        RegisterColonyResponse,
        f"expires_at {TIME}",
    ),
    '{"expiresAt": "2023-02-29T00:00:00Z"}': (
        RegisterColonyResponse,
        "expires_at is a time that does not exist",
    ),
    '{"expiresAt": "0000-01-01T00:00:00Z"}': (
        RegisterColonyResponse,
        "expires_at is a time that does not exist",
    ),
    '{"expiresAt": "9999-12-31T23:59:59-00:01"}': (
        RegisterColonyResponse,
        "expires_at is a time that does not exist",
    ),
}


@pytest.mark.parametrize("document", REFUSED, ids=shortened)
def test_it_is_refused(document: str) -> None:
    message_type, expected = REFUSED[document]
    assert refusal(document, message_type) == expected


@pytest.mark.parametrize(
    "data, start",
    [
        (b"\xff{}", 0),
        ("{}".encode("utf-16-le"), None),
        (b'{"x": "\xed\xa0\x80"}', 7),
        (b'{"\xc0\xaf"', 2),
    ],
)
def test_what_is_not_utf_8_is_refused(data: bytes, start: int | None) -> None:
    message = refusal(data, HealthRequest)
    assert message == f"byte {start} is not UTF-8" if start is not None else "no JSON" in message


def test_a_refusal_is_the_callers_fault() -> None:
    with pytest.raises(InvalidMessageError) as caught:
        json_codec.decode(b"[]", HealthRequest)
    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, "MALFORMED_MESSAGE")


@pytest.mark.parametrize("text", ["x" * 60_000, "\n" * 60_000, "\U0001f600" * 10_000, "é" * 41])
def test_a_refusal_quotes_little(text: str) -> None:
    quoted = json.dumps(text)
    for document in (
        f'{{"metadata": {{{quoted}: 5}}}}',
        f"{{{quoted}: 1, {quoted}: 1}}",
        f'{{"connectPort": {quoted}}}',
        f"{{{quoted}",
    ):
        message = refusal(document, RegisterColonyRequest)
        assert len(message) < 100
        assert message.isascii()
        assert message.isprintable()


def test_a_document_that_is_too_deep_is_refused() -> None:
    assert refusal('{"x": ' + "[" * 200_000, HealthRequest) == "nested too deeply"


# -- What the codec takes for granted -------------------------------------------------------------


def test_the_protocol_has_only_what_the_codec_can_map() -> None:
    for name, message in described().items():
        assert not message.oneof_decl, f"{name}: teach the codec presence"
        if message.options.map_entry:
            assert message.field[0].type == Field.TYPE_STRING, f"{name}: teach it such keys"


def test_no_message_holds_its_own_type() -> None:
    """Depth is bounded by the schema, so the codec may recurse."""
    for name in described():
        assert name not in _held_by(name)


def _held_by(name: str) -> set[str]:
    message = described().get(name)
    fields = [] if message is None else message.field
    direct = {field.type_name for field in fields if field.type == Field.TYPE_MESSAGE}
    return direct.union(*(_held_by(held) for held in direct))


def test_importing_it_needs_no_second_protobuf() -> None:
    program = (
        "import sys, discovery.transport.json_codec as c; from discovery._gen.coral.discovery import v1;"
        "c.decode(c.encode(v1.LookupColonyResponse('a')), v1.LookupColonyResponse);"
        "sys.exit('google.protobuf' in sys.modules)"
    )
    subprocess.run((sys.executable, "-c", program), check=True)


def test_every_type_is_there() -> None:
    assert {f".{PACKAGE}.{kind.__name__}" for kind in MESSAGE_TYPES} == {
        name for name, message in described().items() if not message.options.map_entry
    }
