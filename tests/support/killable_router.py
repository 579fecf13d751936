"""Routers to be killed: ``python -m tests.support.killable_router FOLDER ENGINE_URL [--intents]``.

For each line on stdin a router is forked, with everything imported already, so that 200 of them start in the
time of ten processes. The listening socket outlives them: clients wait and are not refused. The first line of
output is the port, a key and the public signing key; then comes the process id of each router.
"""

import os
import socket
import sys
from pathlib import Path

from registry.models import RecordHead
from registry.shipping import KnownHead, genesis
from registry.signing.envelope import Envelope
from registry.signing.keys import Signer
from router import serving
from router.app import create_app
from router.limits import Cadence
from router.testing import FakeFeed, Scene

SEED = b"k" * 32


class HeadFile:
    """A registry that takes every head: what was written once survives the process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def known(self, writer: str) -> KnownHead:
        stored = self._path.read_bytes().splitlines() if self._path.exists() else []
        if not stored:
            return KnownHead(writer=writer, seq=-1, digest=genesis(writer))
        head = RecordHead.parse(Envelope.parse(stored[-1]).body())
        return KnownHead(writer=writer, seq=head.seq, digest=head.digest)

    async def submit(self, envelope: Envelope) -> None:
        with self._path.open("ab") as stream:
            stream.write(envelope.canonical() + b"\n")


def serve(folder: Path, scene: Scene, listener: socket.socket) -> None:
    app = create_app(
        feed=FakeFeed(scene.snapshot()),
        heads=HeadFile(folder / "heads.jsonl"),
        signer=Signer("router", SEED),
        records_dir=folder / "records",
        writer="router-0",
        salt_secret=b"a salt secret of thirty-two bytes",
        cadence=Cadence(head_records=20, head_seconds=0.02, segment_bytes=200_000, receipts=500),
    )
    serving.server(app, app.drain, seconds=5, log_config=None, loop="uvloop").run(sockets=[listener])


def main(folder: Path, engine: str, *, intents: bool = False) -> None:
    scene = Scene()
    scene.engine(url=engine)
    secret = scene.serve("bank_a", intent_durable=intents)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    _tell(f"{listener.getsockname()[1]} {secret}")
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            serve(folder, scene, listener)
            os._exit(0)
        _tell(str(child))
        os.waitpid(child, 0)
        _tell("ended")


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], intents="--intents" in sys.argv)
