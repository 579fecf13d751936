"""The fingerprint of a version that was pushed without one: measured here, signed, filed."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry.digests import Digest
from registry.errors import AlreadyExists, IntakeRefused, InvalidDocument, InvalidInput, TenonError
from registry.fingerprint import Fingerprint
from registry.names import Ref
from registry.references import Reference
from registry.signing.types import REFERENCE
from server.assembly import confinement, siblings
from server.assembly.confinement import Limits
from server.assembly.place import Place
from server.assembly.pushing import ACTOR, base_folder_of, trainer_key
from server.assembly.reference_job import FINGERPRINT, JOB, REFUSED, Job, Refusal
from server.errors import ReferenceFailed, Unconfined

_LARGEST: Final = 4 << 20
"""Bytes of a fingerprint that is believed to be one."""
_MEMORY: Final = 16 << 30
"""Address space beside the base: torch reserves several GiB that it never touches."""


@dataclass(frozen=True, slots=True)
class Referenced:
    version: Digest
    fingerprint: Fingerprint
    signed_by: str


def reference(
    place: Place,
    ref: Ref,
    *,
    base_folder: Path | None,
    probes: Path | None,
    key_file: Path | None,
    seconds: float,
    walled: bool = True,
) -> Referenced:
    """``walled`` off: also where the kernel has nothing to keep the job from other files and the network.

    Raises AlreadyExists for a version that has a fingerprint; IntakeRefused and the trainer's ZeroEffect for
    one that shall not get any; Unconfined, ReferenceFailed; and what the catalog raises when it is filed."""
    key = trainer_key(place, key_file)
    if key is None:
        raise InvalidInput("a reference is signed by a trainer's key", hint="name one with --key-file")
    catalog = place.catalog
    version = catalog.resolve(ref)
    manifest = catalog.manifest(version)
    if catalog.fingerprint_digest(version) is not None:
        raise AlreadyExists(f"{version} has a fingerprint, and keeps it")
    _, base, _ = catalog.base(manifest.base)
    folder = base_folder_of(place, base, base_folder)
    if folder is None:
        raise ReferenceFailed(f"the files of {base.name} are not here", hint="name them with --base-folder")
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    with tempfile.TemporaryDirectory(prefix="tenon-reference-") as private:
        adapter = Path(private) / "adapter"
        catalog.export(version, adapter)
        job = Job(
            base=base,
            base_folder=str(folder.resolve()),
            adapter=str(adapter),
            probes=str(probes.resolve()) if probes else None,
            siblings=siblings.of(catalog, ref.name, beside=version),
            max_rank=manifest.lora.rank,
            seconds=seconds,
            cpu_seconds=int(seconds * 2) + 1,
            memory=_MEMORY + 6 * size,
            walled=walled,
        )
        fingerprint = measured(job, Path(private))
    said = Reference(
        tenant=manifest.tenant,
        adapter=manifest.adapter,
        version=version,
        base=manifest.base,
        fingerprint=fingerprint.identity(),
    )
    catalog.file_reference(key.sign(REFERENCE, said.canonical()), fingerprint, actor=ACTOR)
    return Referenced(version, fingerprint, key.public.id)


def measured(job: Job, folder: Path) -> Fingerprint:
    """In a confined process that works in ``folder``. Raises ReferenceFailed, and what the adapter was
    refused for."""
    adapter = Path(job.adapter)
    for path in adapter.iterdir():
        path.chmod(0o444)
    (folder / JOB).write_bytes(job.canonical())
    limits = Limits(job.seconds, job.cpu_seconds, job.memory)
    confinement.run("server.assembly.reference_job", (), folder=folder, limits=limits)
    if (refused := _read(folder / REFUSED)) is not None:
        raise _refusal(Refusal.parse(refused))
    if (made := _read(folder / FINGERPRINT)) is None:
        raise ReferenceFailed("it ended without a fingerprint")
    try:
        return Fingerprint.parse(made)
    except InvalidDocument as error:
        raise ReferenceFailed(error.message) from None


def _read(path: Path) -> bytes | None:
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as stream:
        data = stream.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise ReferenceFailed(f"{path.name} is larger than any fingerprint")
    return data


def _refusal(said: Refusal) -> TenonError:
    from trainer.errors import LibrariesMissing, ZeroEffect

    known: tuple[type[TenonError], ...] = (*_leaves(IntakeRefused), ZeroEffect, LibrariesMissing, Unconfined)
    for kind in known:
        if kind.code == said.code:
            return kind(said.message)
    return ReferenceFailed(f"{said.code[:60]}: {said.message[:300]}")


def _leaves(kind: type[TenonError]) -> tuple[type[TenonError], ...]:
    below = kind.__subclasses__()
    return tuple(leaf for each in below for leaf in _leaves(each)) if below else (kind,)
