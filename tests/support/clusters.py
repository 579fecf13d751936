"""A Kubernetes API server, a service account for it, and a source that follows it."""

import asyncio
import contextlib
import datetime
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from server.engines.discovery.kubernetes import ApiServer, Kubernetes
from server.engines.discovery.sighting import Listed
from server.testing.fake_kubernetes import FakeKubernetes

SERVICES = ("tenon-engine", "tenon-engine-large")


@dataclass
class Cluster:
    api: FakeKubernetes
    account: Path
    source: Kubernetes
    pauses: list[float]
    """Seconds of every pause after a failure, none of which was waited."""

    @property
    def listed(self) -> dict[str, Listed]:
        return dict(self.source.look().engines)

    async def until(self, holds: Callable[[], bool]) -> None:
        await until(holds)

    @property
    def watches(self) -> int:
        return sum("watch" in query for query in self.api.asked)

    @property
    def lists(self) -> int:
        return sum("watch" not in query and "continue" not in query for query in self.api.asked)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 (of another task's or thread's doing)
            await asyncio.sleep(0.002)


def service_account(folder: Path, *, token: str = "token-1", ca: bytes = b"") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text(token + "\n")
    (folder / "namespace").write_text("prod")
    (folder / "ca.crt").write_bytes(ca)
    return folder


def source_of(
    url: str, account: Path, pauses: list[float], *, ticks: Callable[[], float] = time.monotonic
) -> Kubernetes:
    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0.001)  # the server has a turn

    server = ApiServer(url=url, namespace="prod", services=SERVICES, account=account)
    return Kubernetes(server, ticks=ticks, pause=pause, chance=lambda: 1.0)


@contextlib.asynccontextmanager
async def cluster(folder: Path, *, page: int = 500) -> AsyncIterator[Cluster]:
    """Followed from the beginning."""
    api, pauses = FakeKubernetes(page=page), list[float]()
    account = service_account(folder / "account")
    async with api.serving() as url:
        made = Cluster(api, account, source_of(url, account, pauses), pauses)
        async with following(made.source):
            yield made


@contextlib.asynccontextmanager
async def following(source: Kubernetes) -> AsyncIterator[None]:
    task = asyncio.create_task(source.follow())
    try:
        yield
    finally:
        assert not task.done(), task.exception()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def certified(folder: Path) -> tuple[bytes, ssl.SSLContext]:
    """A test CA (PEM), and a server for 127.0.0.1 that it vouches for."""
    today = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])

    def blank(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(today - datetime.timedelta(days=1))
            .not_valid_after(today + datetime.timedelta(days=1))
        )

    authority = (
        blank(issuer, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(ca_key, SHA256())
    )
    here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    leaf = blank(subject, key.public_key()).add_extension(here, critical=False).sign(ca_key, SHA256())
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + leaf.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return authority.public_bytes(Encoding.PEM), context
