"""Many trainers push at once, to a control plane on PostgreSQL and S3: is everything there, and how fast?

The control plane is a process of its own (``tenon serve control``), and so are PostgreSQL and the S3 server;
the trainers are threads of this process, each with a key of its tenant and the client of the command line.
All of them share this machine with what they measure, so only the ratio to the plain upload means anything.
"""

import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import httpx

from registry.blobs.bucket import S3Credentials, S3Patience, S3Place, connected
from registry.catalog.local.catalog import LocalCatalog
from registry.catalog.remote.catalog import RemoteCatalog
from registry.catalog.remote.wire import Patience, Wire
from registry.digests import Digest
from registry.manifests import Provenance
from registry.models import Base, Role, Tenant
from registry.names import AdapterName, Ref
from server.assembly import stack
from server.assembly.catalog import initialise, open_catalog
from server.settings import RegistrySettings, inherited_environment
from server.workspace import Workspace
from tests.support.adapters import tiny_base, tiny_fingerprint, write_adapter

TENANTS = 20
_PLAIN_THREADS = 32
"""More do not make the plain upload faster here."""
_WIDE, _RANK = 976, 8
"""Eight square layers of this width at this rank are an adapter of 500 kB."""


@dataclass(frozen=True, slots=True)
class Trainer:
    catalog: RemoteCatalog
    tenant: str


def measure(database_url: str, *, count: int = 1000) -> dict[str, float]:
    """Pushes of ``count`` adapters at the same time, and the plain upload of the same bytes before them."""
    with ExitStack() as stack_:
        folder = Path(stack_.enter_context(tempfile.TemporaryDirectory(prefix="tenon-bench-")))
        place = replace(stack_.enter_context(_s3()), prefix="registry/")
        base = _base()
        adapters = [
            write_adapter(folder / "adapters" / str(number), base, rank=_RANK, seed=number)
            for number in range(count)
        ]
        sizes = [(path / "adapter_model.safetensors").stat().st_size for path in adapters]
        plain = _plain(place, adapters)
        workspace, catalog = _registry(folder, database_url)
        url = stack_.enter_context(_control(folder, workspace, place))
        trainers = [stack_.enter_context(_trainer(catalog, url, number)) for number in range(TENANTS)]
        pushed, seconds = _push(trainers, adapters, base)
        lost = count - sum(
            catalog.version_count(AdapterName(trainer.tenant, "assistant")) for trainer in trainers
        )
        damaged = _damaged(trainers[0], adapters, pushed, folder / "pulled")
        megabytes = sum(sizes) / 1e6
        return {
            "pushes": float(count),
            "kB each": megabytes * 1e3 / count,
            "lost": float(lost),
            "damaged": float(damaged),
            "pushes per s": count / seconds,
            "MB per s pushed": megabytes / seconds,
            "MB per s plain": megabytes / plain,
            "ratio": seconds / plain,
        }


def _push(trainers: list[Trainer], adapters: list[Path], base: Base) -> tuple[list[Digest], float]:
    digest = base.identity()

    def push(number: int) -> Digest:
        trainer = trainers[number % len(trainers)]
        return trainer.catalog.push(
            AdapterName(trainer.tenant, "assistant"),
            adapters[number],
            base=digest,
            fingerprint=tiny_fingerprint(digest, seed=number),
            provenance=Provenance(method="upload"),
            actor="trainer",
        )

    with ThreadPoolExecutor(len(adapters)) as pool:
        began = time.perf_counter()
        pushed = list(pool.map(push, range(len(adapters))))
        return pushed, time.perf_counter() - began


def _plain(place: S3Place, adapters: list[Path]) -> float:
    """Seconds to put the same files into the same bucket with S3's own client, and nothing else."""
    client = connected(place, S3Patience())

    def put(number: int) -> None:
        for file in sorted(adapters[number].iterdir()):
            client.put_object(Bucket=place.bucket, Key=f"plain/{number}/{file.name}", Body=file.read_bytes())

    with ThreadPoolExecutor(_PLAIN_THREADS) as pool:
        began = time.perf_counter()
        list(pool.map(put, range(len(adapters))))
        return time.perf_counter() - began


def _damaged(trainer: Trainer, adapters: list[Path], pushed: list[Digest], folder: Path) -> int:
    """How many of one tenant's versions do not come back as exactly the bytes that were pushed."""
    wrong = 0
    for number in range(0, len(adapters), TENANTS):
        pulled = folder / str(number)
        trainer.catalog.resolve(Ref(AdapterName(trainer.tenant, "assistant"), version=pushed[number]))
        trainer.catalog.export(pushed[number], pulled)
        sent = {file.name: file.read_bytes() for file in adapters[number].iterdir()}
        wrong += sent != {file.name: file.read_bytes() for file in pulled.iterdir()}
    return wrong


def _base() -> Base:
    tiny, _ = tiny_base("wide")
    layers = {f"model.layers.{n}.self_attn.{kind}_proj": (_WIDE, _WIDE) for n in range(4) for kind in "qv"}
    return tiny.model_copy(update={"modules": layers})


def _registry(folder: Path, database_url: str) -> tuple[Workspace, LocalCatalog]:
    address = folder / "database-url"
    address.write_text(database_url)
    address.chmod(0o600)
    workspace = initialise(folder / "workspace", database_url_file=address)
    catalog = open_catalog(workspace, RegistrySettings(database_url_file=address))
    base = _base()
    _, contract = tiny_base("wide")
    catalog.register_base(base, contract.model_copy(update={"base": base.identity()}), actor="bench")
    return workspace, catalog


@contextmanager
def _trainer(catalog: LocalCatalog, url: str, number: int) -> Iterator[Trainer]:
    tenant = f"tenant-{number}"
    catalog.create_tenant(Tenant(id=tenant, display_name=tenant), actor="bench")
    _, secret = catalog.issue_key(tenant, role=Role.TRAINER, actor="bench")
    with RemoteCatalog(Wire(url, secret, patience=Patience(attempts=10, connect=60, answer=600))) as remote:
        yield Trainer(remote, tenant)


@contextmanager
def _control(folder: Path, workspace: Workspace, place: S3Place) -> Iterator[str]:
    credentials = folder / "credentials"
    credentials.write_text("[default]\naws_access_key_id = test\naws_secret_access_key = test-secret\n")
    credentials.chmod(0o600)
    port = stack.Ports.free().control
    settings = {
        "workspace": workspace.root,
        "control_port": port,
        "service_token_file": workspace.service_token,
        "s3_bucket": place.bucket,
        "s3_prefix": place.prefix,
        "s3_endpoint": place.endpoint,
        "s3_path_style": True,
        "s3_credentials_file": credentials,
    }
    environment = {f"TENON_{name.upper()}": str(value) for name, value in settings.items()}
    with (folder / "control.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "server.cli.main", "serve", "control"],
            env=inherited_environment() | environment,
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        while not _answers(url):
            if process.poll() is not None:
                raise RuntimeError((folder / "control.log").read_text())
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def _s3() -> Iterator[S3Place]:
    """moto in a process of its own; it keeps everything in memory."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve_s3, args=(there,))
    process.start()
    try:
        place = S3Place(
            bucket="bench",
            endpoint=here.recv(),
            path_style=True,
            credentials=S3Credentials("test", "test-secret"),
        )
        connected(place, S3Patience()).create_bucket(Bucket=place.bucket)
        yield place
    finally:
        here.send("stop")
        process.join(30)


def _serve_s3(pipe: Connection) -> None:
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    pipe.send(f"http://{host}:{port}")
    pipe.recv()
    server.stop()
