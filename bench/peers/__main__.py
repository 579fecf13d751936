"""``python -m bench.peers install``: the peers, each into an environment of its own.
``python -m bench.peers [--quick]``: only them; ``python -m bench`` measures all."""

import argparse
import subprocess
import sys

from bench.peers.environments import ALL, PeerMissing
from bench.peers.running import peers
from bench.router.load import RequestsFailed, WrkMissing, load
from server.cli import render


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("install",))
    parser.add_argument("--quick", action="store_true", help="one second each")
    given = parser.parse_args()
    try:
        _install() if given.what else _measure(1.0 if given.quick else 5.0)
    except (PeerMissing, RequestsFailed, WrkMissing, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _install() -> None:
    for peer in ALL:
        try:
            render.note(f"{peer.requirement} is in {peer.path.parents[1]}")
        except PeerMissing:
            render.note(f"installing {peer.requirement}")
            peer.install()


def _measure(seconds: float) -> None:
    rows = []
    with peers() as sides:
        for side in sides:
            load(side, clients=8, seconds=1)
            alone = load(side, clients=1, seconds=seconds)
            together = load(side, clients=32, seconds=seconds)
            streams = load(side, clients=32, seconds=seconds, stream=True)
            figures = (alone.p50_ms, together.per_second, streams.per_second)
            rows.append([side.name, *(f"{figure:,.2f}" for figure in figures)])
    render.table(
        "Peers over the stub engine", ["peer", "1 client p50 ms", "32 clients rps", "32 streams/s"], rows
    )


if __name__ == "__main__":
    main()
