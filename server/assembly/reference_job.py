"""``python -m server.assembly.reference_job``: the confined part of :mod:`server.assembly.referencing`.

Reads ``job.json``, leaves ``fingerprint.json`` or ``refused.json`` beside it. Runs nothing out of an upload:
its weights are safetensors, its configuration is JSON, and both are inspected before a library sees them.
"""

from pathlib import Path
from typing import Final

from registry.canonical import Document
from registry.digests import Digest
from registry.errors import TenonError
from registry.fingerprint import Fingerprint
from registry.models import Base
from server.assembly.confinement import Limits, confine
from server.errors import Unconfined

JOB: Final = "job.json"
FINGERPRINT: Final = "fingerprint.json"
REFUSED: Final = "refused.json"


class Job(Document):
    base: Base
    base_folder: str
    adapter: str
    probes: str | None
    siblings: dict[Digest, Fingerprint]
    max_rank: int
    seconds: float
    cpu_seconds: int
    memory: int
    walled: bool = True
    """Refuse to go on where the kernel has no walls."""


class Refusal(Document):
    code: str
    message: str


def main(folder: Path) -> None:
    job = Job.parse((folder / JOB).read_bytes())
    read = [Path(path) for path in (job.base_folder, job.adapter, job.probes) if path is not None]
    walls = confine(Limits(job.seconds, job.cpu_seconds, job.memory), read=read, change=folder)
    if job.walled and not walls.stand:
        _refuse(folder, Unconfined("the kernel lets nothing keep the job from files and the network"))
        return

    from server.assembly.uploads import fingerprint

    try:
        made = fingerprint(
            Path(job.adapter),
            job.base.identity(),
            job.base,
            Path(job.base_folder),
            Path(job.probes) if job.probes is not None else None,
            siblings=job.siblings,
            max_rank=job.max_rank,
        )
    except TenonError as error:
        _refuse(folder, error)
    else:
        (folder / FINGERPRINT).write_bytes(made.canonical())


def _refuse(folder: Path, error: TenonError) -> None:
    (folder / REFUSED).write_bytes(Refusal(code=error.code, message=error.message).canonical())


if __name__ == "__main__":
    main(Path.cwd())
