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
from server.assembly import no_network
from server.assembly.confinement import Limits, confine
from server.errors import ReferenceFailed

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


class Refusal(Document):
    code: str
    message: str


def main(folder: Path) -> None:
    job = Job.parse((folder / JOB).read_bytes())
    alone = confine(Limits(job.seconds, job.cpu_seconds, job.memory))
    if not alone and not no_network.forbid():
        refusal = Refusal(code=ReferenceFailed.code, message="it cannot be cut off from the network here")
        (folder / REFUSED).write_bytes(refusal.canonical())
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
        refusal = Refusal(code=error.code, message=error.message)
        (folder / REFUSED).write_bytes(refusal.canonical())
    else:
        (folder / FINGERPRINT).write_bytes(made.canonical())


if __name__ == "__main__":
    main(Path.cwd())
