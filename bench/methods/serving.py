"""The last proof: a real engine loads every version and shows its fingerprint."""

import asyncio
import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from registry.catalog.local.catalog import LocalCatalog
from registry.digests import Digest
from registry.names import engine_name
from server.assembly import bases
from server.engines.attest import judge_together, observe
from server.engines.client import VllmClient
from server.engines.command import command
from server.engines.process import EngineProcess
from server.engines.spec import EngineSpec
from server.workspace import Workspace
from trainer.trained import TrainedRun

_SLOTS: Final = 4
_START: Final = 400.0


def attest_all(
    workspace: Workspace, catalog: LocalCatalog, runs: Mapping[Digest, TrainedRun]
) -> dict[Digest, str]:
    """Version -> what its slot showed, in words. One engine a base, after the other."""
    found: dict[Digest, str] = {}
    for base in dict.fromkeys(run.plan.base_name for run in runs.values()):
        mine = [version for version, run in runs.items() if run.plan.base_name == base]
        found |= asyncio.run(_attest(workspace, catalog, base, mine, runs))
    return found


async def _attest(
    workspace: Workspace,
    catalog: LocalCatalog,
    base: str,
    versions: Sequence[Digest],
    runs: Mapping[Digest, TrainedRun],
) -> dict[Digest, str]:
    with tempfile.TemporaryDirectory(prefix="tenon-methods-") as home, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
        free.close()
        spec = EngineSpec(
            engine="engine-0",
            model=str(bases.folder_of(workspace, base)),
            base_name=base,
            dtype="float32",
            device="cpu",
            port=port,
            max_loras=_SLOTS,
            max_lora_rank=16,
            max_cpu_loras=4 * _SLOTS,
        )
        argv, environment = command(spec, {"PATH": os.environ.get("PATH", os.defpath), "HOME": home})
        engine = EngineProcess(argv=argv, environment=environment, log=Path(home) / "vllm.log")
        engine.start()
        try:
            async with VllmClient(spec.url) as client:
                await engine.wait_ready(client.answers, limit=_START)
                found: dict[Digest, str] = {}
                for start in range(0, len(versions), _SLOTS):
                    found |= await _together(client, catalog, versions[start : start + _SLOTS], runs, home)
                return found
        finally:
            await engine.stop()


async def _together(
    client: VllmClient,
    catalog: LocalCatalog,
    versions: Sequence[Digest],
    runs: Mapping[Digest, TrainedRun],
    home: str,
) -> dict[Digest, str]:
    seen = []
    for version in versions:
        folder = Path(home) / version.hex
        manifest = catalog.export(version, folder)
        await client.load(engine_name(version), folder)
        seen.append(
            await observe(
                client,
                version=version,
                fingerprint=runs[version].fingerprint,
                files=manifest.files,
                salt=f"methods-{version.hex[:16]}",
            )
        )
    findings = judge_together(seen, dtype="float32")
    for version in versions:
        await client.unload(engine_name(version))
    return {
        version: f"{finding.strength}, own distance {finding.own_distance:.1e}"
        if finding.passed
        else f"FAILED: {finding.reason}"
        for version, finding in findings.items()
    }
