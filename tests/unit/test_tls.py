from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from structlog.testing import LogCapture
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from discovery.errors import ConfigError
from discovery.transport.accept import Acceptor
from discovery.transport.binding import bind
from discovery.transport.limits import ConnectionLimits
from discovery.transport.tls import ServerTls
from discovery.transport.tls_files import TlsFiles
from tests.support import ManualClock

PATIENCE = 30.0
LOOPBACK = "127.0.0.1"
NAME = "localhost"


# -- Certificates, and servers that have them -----------------------------------------------------


class Log(LogCapture):
    """What was logged, and a way to wait for it from the loop while another thread logs."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__()
        self.written = asyncio.Event()
        self._loop = loop

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> Any:
        self.entries.append({**event, "log_level": method})
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.written.set)
        raise structlog.DropEvent

    def logger(self) -> FilteringBoundLogger:
        logger: FilteringBoundLogger = structlog.wrap_logger(
            None, processors=[self], wrapper_class=structlog.make_filtering_bound_logger(0)
        )
        return logger

    def events(self) -> list[str]:
        return [entry["event"] for entry in self.entries]


class Certificates:
    """A CA, and the files that a server has from it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = trustme.CA()
        self.files = TlsFiles(directory / "tls.crt", directory / "tls.key")

    def issue(self, **options: Any) -> trustme.LeafCert:
        return self.ca.issue_cert(NAME, **options)

    def write(self, leaf: trustme.LeafCert | None = None, files: TlsFiles | None = None) -> int:
        """Write a certificate and its key, and return its serial number."""
        leaf, files = leaf or self.issue(), files or self.files
        files.cert.write_bytes(chain(leaf))
        files.key.write_bytes(leaf.private_key_pem.bytes())
        return serial(leaf)

    def demand_clients_of(self, *issuers: trustme.CA) -> trustme.CA:
        """Write a file of client CAs, and return the last of them."""
        files = TlsFiles(self.files.cert, self.files.key, self.directory / "clients.crt")
        assert files.client_ca is not None
        files.client_ca.write_bytes(b"".join(issuer.cert_pem.bytes() for issuer in issuers))
        self.files = files
        return issuers[-1]

    def server_tls(self, log: Log | None = None, clock: ManualClock | None = None) -> ServerTls:
        return ServerTls(self.files, (log or Log()).logger(), clock or now_clock())

    def client(self, *protocols: str, issuer: trustme.CA | None = None) -> ssl.SSLContext:
        """Return what a client needs, with a certificate of its own if there is an `issuer`."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if protocols:
            context.set_alpn_protocols(protocols)
        if issuer is not None:
            issuer.issue_cert("colony@example.org").configure_cert(context)
        return context


def chain(leaf: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in leaf.cert_chain_pems)


def serial(leaf: trustme.LeafCert) -> int:
    return x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).serial_number


def now_clock() -> ManualClock:
    return ManualClock(unix_us=int(datetime.now(UTC).timestamp()) * 1_000_000)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    made = Certificates(tmp_path)
    made.write()
    return made


class Echo(asyncio.Protocol):
    """Sends back what it receives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class Client:
    """A client's connection to an Echo."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.ssl: ssl.SSLObject = writer.get_extra_info("ssl_object")

    @property
    def serial(self) -> int:
        """The serial number of the certificate that the server showed."""
        shown = self.ssl.getpeercert()
        assert shown
        return int(str(shown["serialNumber"]), 16)

    async def echo(self) -> bytes:
        """Return what comes back, which proves that both sides are content."""
        self.writer.write(b"hello")
        return await self._reader.readexactly(5)


@asynccontextmanager
async def serving(tls: ServerTls) -> AsyncIterator[int]:
    """Serve Echo over TLS, and yield the port."""
    limits = ConnectionLimits(0, 0)
    acceptor = Acceptor(Echo, limits, Log().logger(), tls=tls)
    listening = bind(LOOPBACK, 0)
    acceptor.start(listening)
    try:
        yield listening.getsockname()[1]
    finally:
        await acceptor.close()


@asynccontextmanager
async def connected(port: int, context: ssl.SSLContext) -> AsyncIterator[Client]:
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(
            LOOPBACK, port, ssl=context, server_hostname=NAME
        )
        try:
            yield Client(reader, writer)
        finally:
            writer.close()
            # A client that is refused has a test about that; here it is only to be gone.
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


async def shown_serial(port: int, context: ssl.SSLContext) -> int:
    async with connected(port, context) as client:
        assert await client.echo() == b"hello"
        return client.serial


async def is_refused(port: int, context: ssl.SSLContext) -> bool:
    """Tell whether the server ends the connection; in TLS 1.3 a client learns of it only when it reads."""
    try:
        async with connected(port, context) as client:
            await client.echo()
    except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
        return True
    return False


# -- What is spoken -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "offered,chosen",
    [
        (["h2"], "h2"),
        (["http/1.1"], "http/1.1"),
        (["http/1.1", "h2"], "h2"),
        (["spdy/1"], None),
        ([], None),
    ],
)
async def test_alpn_offers_both_protocols(
    certificates: Certificates, offered: list[str], chosen: str | None
) -> None:
    context = certificates.client(*offered)
    async with serving(certificates.server_tls()) as port, connected(port, context) as client:
        assert await client.echo() == b"hello"
        assert client.ssl.selected_alpn_protocol() == chosen


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_are_spoken(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    context = certificates.client()
    context.minimum_version = context.maximum_version = version
    async with serving(certificates.server_tls()) as port, connected(port, context) as client:
        assert await client.echo() == b"hello"
        assert client.ssl.version() == version.name.replace("v1_", "v1.")


def test_older_versions_are_not_spoken(certificates: Certificates) -> None:
    assert certificates.server_tls().context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_ciphers_are_those_that_http_2_allows(certificates: Certificates) -> None:
    ciphers = certificates.server_tls().context.get_ciphers()
    assert all(cipher["aead"] and cipher["kea"] in {"kx-ecdhe", "kx-any"} for cipher in ciphers)


async def test_the_cipher_that_http_2_demands_is_there(certificates: Certificates) -> None:
    certificates.write(certificates.issue(key_type=trustme.KeyType.RSA))
    context = certificates.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")  # RFC 9113 section 9.2.2
    async with serving(certificates.server_tls()) as port:
        assert not await is_refused(port, context)


# -- Client certificates --------------------------------------------------------------------------


async def test_a_client_must_show_a_certificate_of_the_client_ca(
    certificates: Certificates,
) -> None:
    issuer = certificates.demand_clients_of(trustme.CA())
    async with serving(certificates.server_tls()) as port:
        assert not await is_refused(port, certificates.client(issuer=issuer))
        assert await is_refused(port, certificates.client())
        assert await is_refused(port, certificates.client(issuer=trustme.CA()))


async def test_an_intermediate_client_ca_can_be_given_alone(certificates: Certificates) -> None:
    root = trustme.CA()
    issuer = certificates.demand_clients_of(root.create_child_ca())
    async with serving(certificates.server_tls()) as port:
        assert not await is_refused(port, certificates.client(issuer=issuer))
        assert await is_refused(port, certificates.client(issuer=root))


# -- Files that cannot be used, at the start ------------------------------------------------------


def spoil(certificates: Certificates, name: str, content: bytes | None) -> None:
    path = certificates.directory / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def no_key_of_it(certificates: Certificates) -> bytes:
    return certificates.issue().private_key_pem.bytes()


def rsa_key(certificates: Certificates) -> bytes:
    return certificates.issue(key_type=trustme.KeyType.RSA).private_key_pem.bytes()


def encrypted(
    form: PrivateFormat = PrivateFormat.PKCS8,
) -> Callable[[Certificates], bytes]:
    def encrypt(certificates: Certificates) -> bytes:
        key = load_pem_private_key(certificates.files.key.read_bytes(), None)
        return key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret"))

    return encrypt


def damaged(name: str) -> Callable[[Certificates], bytes]:
    return lambda certificates: (certificates.directory / name).read_bytes()[:90]


def ca_first(certificates: Certificates) -> bytes:
    return certificates.ca.cert_pem.bytes() + certificates.files.cert.read_bytes()


@pytest.mark.parametrize(
    "name,content,complaint",
    [
        ("tls.crt", None, r"cannot read .*tls\.crt: No such file .* with --tls-cert"),
        ("tls.key", None, r"cannot read .*tls\.key: No such file .* with --tls-key"),
        ("clients.crt", None, r"cannot read .*clients\.crt: No such file .* with --tls-client-ca"),
        ("tls.crt", b"", r"tls\.crt holds no certificate in PEM form; .* --tls-cert"),
        ("tls.key", b"\x30\x82", r"tls\.key holds no private key in PEM form; .* --tls-key"),
        ("clients.crt", b"x", r"clients\.crt holds no certificate in PEM form; .* --tls-client-ca"),
        ("tls.key", no_key_of_it, r"tls\.key is not the key of the first certificate in"),
        ("tls.key", rsa_key, r"tls\.key is not the key of the first certificate in"),
        ("tls.crt", ca_first, r"tls\.key is not the key of the first certificate in"),
        ("tls.key", encrypted(), r"tls\.key is encrypted.* `openssl pkey -in "),
        ("tls.key", encrypted(PrivateFormat.TraditionalOpenSSL), r"tls\.key is encrypted"),
        ("tls.crt", damaged("tls.crt"), r"cannot use .*tls\.crt with .*tls\.key: "),
        ("tls.key", damaged("tls.key"), r"cannot use .*tls\.crt with .*tls\.key: "),
        ("clients.crt", damaged("clients.crt"), r"clients\.crt is damaged; .* --tls-client-ca"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_on_one_line_with_its_flag(
    certificates: Certificates,
    name: str,
    content: bytes | Callable[[Certificates], bytes] | None,
    complaint: str,
) -> None:
    certificates.demand_clients_of(trustme.CA())
    spoil(certificates, name, content(certificates) if callable(content) else content)
    with pytest.raises(ConfigError, match=complaint) as caught:
        certificates.server_tls()
    assert "\n" not in str(caught.value)


def test_one_file_may_hold_certificate_and_key(certificates: Certificates) -> None:
    both = certificates.directory / "both.pem"
    both.write_bytes(certificates.files.key.read_bytes() + certificates.files.cert.read_bytes())
    tls = ServerTls(TlsFiles(both, both), Log().logger(), now_clock())
    assert tls.not_after is not None


# -- Dates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "before,after,warning",
    [
        (timedelta(days=-1), timedelta(days=90), None),
        (timedelta(days=-90), timedelta(days=-1), "TLS certificate has expired"),
        (timedelta(days=-90), timedelta(days=6), "TLS certificate expires soon"),
        (timedelta(days=1), timedelta(days=90), "TLS certificate is not valid yet"),
    ],
)
def test_dates_that_clients_will_not_like_are_a_warning(
    certificates: Certificates, before: timedelta, after: timedelta, warning: str | None
) -> None:
    now, log = datetime.now(UTC), Log()
    certificates.write(certificates.issue(not_before=now + before, not_after=now + after))
    tls = certificates.server_tls(log)
    assert log.events() == ([warning] if warning else [])
    assert tls.not_after == int((now + after).timestamp())


def test_each_trouble_is_told_once_as_its_time_comes(certificates: Certificates) -> None:
    log, clock, now = Log(), now_clock(), datetime.now(UTC)
    certificates.write(certificates.issue(not_after=now + timedelta(days=30)))
    tls = certificates.server_tls(log, clock)
    for _ in range(31):
        clock.advance(24 * 3600)
        assert not tls.reload_if_changed()
    assert log.events() == ["TLS certificate expires soon", "TLS certificate has expired"]
    assert {entry["log_level"] for entry in log.entries} == {"warning"}


def test_a_certificate_that_is_not_for_servers_is_a_warning(certificates: Certificates) -> None:
    log = Log()
    purpose = [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    leaf = issue_for(certificates.ca, purpose)
    certificates.files.cert.write_bytes(leaf[0])
    certificates.files.key.write_bytes(leaf[1])
    tls = certificates.server_tls(log)
    assert log.events() == ["TLS certificate may be refused by clients"]
    assert "purpose" in log.entries[0]["why"]
    assert tls.not_after is None


def issue_for(ca: trustme.CA, purposes: list[x509.ObjectIdentifier]) -> tuple[bytes, bytes]:
    """Return a certificate for other purposes than trustme's are, and its key."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import NoEncryption

    model = ca.issue_cert(NAME)
    key = load_pem_private_key(model.private_key_pem.bytes(), None)
    issuer_key = load_pem_private_key(ca.private_key_pem.bytes(), None)
    like = x509.load_pem_x509_certificate(model.cert_chain_pems[0].bytes())
    made = (
        x509.CertificateBuilder()
        .subject_name(like.subject)
        .issuer_name(like.issuer)
        .public_key(like.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(like.not_valid_before_utc)
        .not_valid_after(like.not_valid_after_utc)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .sign(issuer_key, hashes.SHA256())  # type: ignore[arg-type] # trustme's keys are EC
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.public_bytes(Encoding.PEM), pem


# -- Renewal --------------------------------------------------------------------------------------


async def test_a_renewed_certificate_is_taken_up_and_no_connection_is_dropped(
    certificates: Certificates,
) -> None:
    before, tls = certificates.write(), certificates.server_tls()
    context = certificates.client("h2")
    async with serving(tls) as port, connected(port, context) as old:
        assert await old.echo() == b"hello"
        after = certificates.write()
        assert tls.reload_if_changed()
        async with connected(port, context) as new:
            assert await new.echo() == b"hello"
            assert new.ssl.selected_alpn_protocol() == "h2"
            assert (old.serial, new.serial) == (before, after)
        assert await old.echo() == b"hello"


async def test_a_handshake_that_goes_on_ends_with_the_certificate_it_began_with(
    certificates: Certificates,
) -> None:
    before, tls = certificates.write(), certificates.server_tls()
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = certificates.client().wrap_bio(to_client, to_server, server_hostname=NAME)
    async with serving(tls) as port:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        await shown_serial(
            port, certificates.client()
        )  # by then the server has begun with the first
        after = certificates.write()
        assert tls.reload_if_changed()
        async with asyncio.timeout(PATIENCE):
            while not shaken(client):
                writer.write(to_server.read())
                to_client.write(await reader.read(65536))
        shown = client.getpeercert()
        assert shown
        assert int(str(shown["serialNumber"]), 16) == before
        assert await shown_serial(port, certificates.client()) == after
        writer.close()


def shaken(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def test_nothing_is_done_while_nothing_changes(certificates: Certificates) -> None:
    log = Log()
    tls = certificates.server_tls(log)
    context = tls.context
    certificates.files.cert.touch()
    assert not tls.reload_if_changed()
    assert tls.context is context
    assert log.entries == []


def test_a_renewal_is_logged_with_its_end(certificates: Certificates) -> None:
    log = Log()
    tls = certificates.server_tls(log)
    end = datetime(2035, 1, 2, 3, 4, 5, tzinfo=UTC)
    certificates.write(certificates.issue(not_after=end))
    assert tls.reload_if_changed()
    assert log.entries == [
        {
            "event": "TLS certificate renewed",
            "log_level": "info",
            "path": str(certificates.files.cert),
            "not_after": "2035-01-02T03:04:05+00:00",
        }
    ]


async def test_a_kubernetes_secret_is_swapped_through_its_links(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    serials = []
    for version in ("..2027_01", "..2027_02"):
        (tmp_path / version).mkdir()
        inside = TlsFiles(tmp_path / version / "tls.crt", tmp_path / version / "tls.key")
        serials.append(certificates.write(files=inside))
    (tmp_path / "..data").symlink_to("..2027_01")
    for file in (certificates.files.cert, certificates.files.key):
        file.symlink_to(Path("..data") / file.name)
    tls = certificates.server_tls()
    async with serving(tls) as port:
        assert await shown_serial(port, certificates.client()) == serials[0]
        (tmp_path / "..data_tmp").symlink_to("..2027_02")
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")
        assert tls.reload_if_changed()
        assert await shown_serial(port, certificates.client()) == serials[1]


@pytest.mark.parametrize("key_first", [False, True])
async def test_files_that_are_replaced_one_after_the_other_count_once_they_fit(
    certificates: Certificates, key_first: bool
) -> None:
    before, tls = certificates.write(), certificates.server_tls()
    leaf = certificates.issue()
    cert, key = certificates.files.cert, certificates.files.key
    steps = [
        (cert, chain(leaf)[:100]),
        (cert, chain(leaf)),
        (key, leaf.private_key_pem.bytes()),
    ]
    *first, last = reversed(steps[1:]) if key_first else steps
    async with serving(tls) as port:
        for path, content in first:
            path.write_bytes(content)
            assert not tls.reload_if_changed()
            assert await shown_serial(port, certificates.client()) == before
        last[0].write_bytes(last[1])
        assert tls.reload_if_changed()
        assert await shown_serial(port, certificates.client()) == serial(leaf)


async def test_a_broken_file_is_logged_once_for_each_change_and_the_old_one_stays(
    certificates: Certificates,
) -> None:
    log, before = Log(), certificates.write()
    tls = certificates.server_tls(log)
    good = certificates.files.key.read_bytes()
    async with serving(tls) as port:
        for content in (b"broken", no_key_of_it(certificates), no_key_of_it(certificates), None):
            spoil(certificates, "tls.key", content)
            for _ in range(3):
                assert not tls.reload_if_changed()
            assert await shown_serial(port, certificates.client()) == before
        assert log.events() == ["TLS files cannot be used; the old ones stay in force"] * 4
        assert "No such file" in log.entries[-1]["error"]
        certificates.files.key.write_bytes(good)
        assert not tls.reload_if_changed(), "it is as it was"
        spoil(certificates, "tls.key", None)
        assert not tls.reload_if_changed()
    assert len(log.entries) == 5, "what is broken again is told again"


async def test_a_file_that_is_broken_is_tried_again_until_it_is_not(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, tls = Log(), certificates.server_tls()
    after = certificates.write()
    load = TlsFiles.load

    def fail(_files: TlsFiles) -> ssl.SSLContext:
        raise ConfigError("it changed while it was read")

    monkeypatch.setattr(TlsFiles, "load", fail)
    assert not tls.reload_if_changed()
    monkeypatch.setattr(TlsFiles, "load", load)
    assert tls.reload_if_changed(), "though the files are as they were the last time"
    async with serving(tls) as port:
        assert await shown_serial(port, certificates.client()) == after
    assert log.entries == []


async def test_a_renewed_client_ca_counts_for_new_connections_only(
    certificates: Certificates,
) -> None:
    old = certificates.demand_clients_of(trustme.CA())
    tls = certificates.server_tls()
    async with serving(tls) as port, connected(port, certificates.client(issuer=old)) as client:
        assert await client.echo() == b"hello"
        new = certificates.demand_clients_of(trustme.CA())
        assert tls.reload_if_changed()
        assert await is_refused(port, certificates.client(issuer=old))
        assert not await is_refused(port, certificates.client(issuer=new))
        assert await client.echo() == b"hello"
        certificates.demand_clients_of(old, new)
        assert tls.reload_if_changed()
        assert not await is_refused(port, certificates.client(issuer=old))
        assert not await is_refused(port, certificates.client(issuer=new))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_whose_ca_was_taken_away_is_not_let_in_by_its_old_session(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    old = certificates.demand_clients_of(trustme.CA())
    tls = certificates.server_tls()
    context = certificates.client(issuer=old)
    context.maximum_version = version
    first = in_memory(tls, context)
    assert in_memory(tls, context, session=first.session).session_reused
    certificates.demand_clients_of(trustme.CA())
    assert tls.reload_if_changed()
    with pytest.raises(ssl.SSLCertVerificationError):
        in_memory(tls, context, session=first.session)


def in_memory(
    tls: ServerTls, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLObject:
    """Return a client that has shaken hands with the server, both of which let the other in."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=NAME, session=session)
    server = tls.context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server, client):
        shaken(side)
    server.write(b"x")
    assert client.read(1) == b"x"
    return client


# -- Watching the files ---------------------------------------------------------------------------


async def test_watching_takes_up_what_changes_until_it_is_stopped(
    certificates: Certificates,
) -> None:
    log = Log(asyncio.get_running_loop())
    tls = certificates.server_tls(log)
    watching = asyncio.create_task(tls.watch(interval=0.001))
    async with serving(tls) as port, asyncio.timeout(PATIENCE):
        certificates.files.key.write_bytes(no_key_of_it(certificates))
        await log.written.wait()
        log.written.clear()
        after = certificates.write()
        while "TLS certificate renewed" not in log.events():
            await log.written.wait()
            log.written.clear()
        assert await shown_serial(port, certificates.client()) == after
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
