"""Tenants with an adapter each, and more versions than one: the demo base, whole stacks, real vLLMs."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from registry.digests import Digest
from registry.fingerprint import Fingerprint
from server.assembly import stack
from server.assembly.catalog import initialise, open_catalog
from server.cli import render
from server.demo.build_base import SHIPPED_BASE
from server.mixup import lora, ours
from server.mixup.starting import free_port
from server.mixup.versions import Known

RANK = 8


@dataclass
class Scene:
    """Everything before any engine runs."""

    stack: ours.Stack
    keys: dict[str, str]
    """By tenant."""
    base: Path
    fingerprints: dict[Digest, Fingerprint] = field(default_factory=dict)
    pushed: int = 0

    def push(self, tenant: str) -> Known:
        """A version that nobody has seen before."""
        self.pushed += 1
        folder = lora.write(
            self.stack.folder / "weights" / str(self.pushed), self.stack.shapes, seed=self.pushed
        )
        known = self.stack.push(tenant, f"{tenant}/{self.pushed}", folder)
        self.fingerprints[known.version] = self.stack.fingerprint(folder)
        return known


@contextmanager
def scene(tenants: int) -> Iterator[Scene]:
    """Each tenant has one version, and that is live."""
    with tempfile.TemporaryDirectory(prefix="tenon-bench-") as scratch:
        root, base = Path(scratch), SHIPPED_BASE.resolve()
        workspace = initialise(root / "workspace")
        catalog = open_catalog(workspace)
        registered, fingerprint = ours.registered(workspace, catalog, base)
        known: dict[Path, Fingerprint] = {}

        def once(folder: Path) -> Fingerprint:
            if folder not in known:
                known[folder] = fingerprint(folder)
            return known[folder]

        made = ours.Stack(workspace, catalog, registered, root, lora.Shapes.of(base), once)
        names = [f"tenant-{at}" for at in range(tenants)]
        keys = {name: ours.admitted(catalog, name).key for name in names}
        found = Scene(made, keys, base)
        render.note(f"{tenants} tenants with an adapter each")
        for name in names:
            made.promote(found.push(name), wait=False)
        yield found


@dataclass(frozen=True, slots=True)
class Served:
    url: str
    """Of the router."""
    engines: tuple[str, ...]
    """URLs of the vLLMs."""
    processes: Mapping[str, int]
    """Role -> process id; of an engine, its agent's."""


@contextmanager
def served(found: Scene, *, engines: int, slots: int) -> Iterator[Served]:
    """The processes of ``tenon up``."""
    pairs = [(free_port(), free_port()) for _ in range(engines)]
    ports = stack.Ports(
        router=free_port(), control=free_port(), agent=pairs[0][0], vllm=pairs[0][1], more=tuple(pairs[1:])
    )
    options = stack.EngineOptions(
        base=str(found.base), base_name=found.stack.base.name, max_loras=slots, max_lora_rank=RANK
    )
    running = stack.start(
        found.stack.workspace,
        engine=options,
        ports=ports,
        tied=True,
        progress=lambda role, doing: render.note(f"{role}: {doing}"),
    )
    try:
        yield Served(
            running.url("router"),
            tuple(f"http://127.0.0.1:{vllm}" for _, vllm in pairs),
            {process.role: process.pid for process in running.processes},
        )
    finally:
        stack.stop(found.stack.workspace)
