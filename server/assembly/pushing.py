"""Push an adapter that was trained elsewhere, into a workspace or to a URL."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from registry.catalog.local.catalog import LocalCatalog
from registry.digests import Digest
from registry.errors import InvalidInput
from registry.fingerprint import Fingerprint
from registry.intake import adapter_files, inspect
from registry.manifests import Provenance
from registry.models import Base
from registry.names import AdapterName
from registry.signing.keys import Signer
from registry.signing.types import MANIFEST
from server.assembly import bases, siblings, sources
from server.assembly.catalog import signer
from server.assembly.place import Catalog, Place

ACTOR = "cli"
_SECONDS = 900.0
"""As much as `tenon adapter reference` takes unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Pushed:
    version: Digest
    fingerprint: Fingerprint | None
    signed_by: str | None
    """The key's id."""


def push(
    place: Place,
    source: str,
    name: AdapterName,
    *,
    base: str,
    base_folder: Path | None,
    probes: Path | None,
    key_file: Path | None,
    progress: Callable[[int, int], None],
    note: Callable[[str], None],
    walled: bool = True,
) -> Pushed:
    """``walled``: as in :func:`server.assembly.referencing.reference`. Raises what the catalog's push
    raises, and what fetching ``source`` raises."""
    key = trainer_key(place, key_file)
    with sources.opened(source, note=note) as found:
        digest, document, _ = place.catalog.base(base)
        _check_permission(place, name, found.folder)
        folder = base_folder_of(place, document, base_folder)
        if folder is None:
            note(f"The files of {document.name} are not here, so it is pushed without a fingerprint")
            fingerprint = None
        else:
            fingerprint = _measured(place, name, found.folder, document, folder, probes, walled=walled)
        provenance = Provenance(method=found.method)
        if place.remote is not None:
            version = place.remote.push(
                name,
                found.folder,
                base=digest,
                fingerprint=fingerprint,
                provenance=provenance,
                actor=ACTOR,
                progress=progress,
            )
        else:
            version = place.catalog.push(
                name,
                found.folder,
                base=digest,
                fingerprint=fingerprint,
                provenance=provenance,
                actor=ACTOR,
            )
    if key is not None:
        sign(place.catalog, version, key, actor=ACTOR)
    return Pushed(version, fingerprint, key.public.id if key else None)


def _measured(
    place: Place,
    name: AdapterName,
    adapter: Path,
    base: Base,
    base_folder: Path,
    probes: Path | None,
    *,
    walled: bool,
) -> Fingerprint:
    """Of a copy, in a process that can do little else: whose weights these are, nobody has checked."""
    from server.assembly.referencing import job_of, measured

    # A registry behind a URL knows its bound itself. The whole folder: not all of it is copied.
    bound = place.catalog.max_rank if isinstance(place.catalog, LocalCatalog) else None
    shape, _ = inspect(adapter, base=base, max_rank=bound)
    with tempfile.TemporaryDirectory(prefix="tenon-push-") as private:
        copy = Path(private) / "adapter"
        copy.mkdir()
        for file, path in adapter_files(adapter).items():
            shutil.copyfile(path, copy / file)
        job = job_of(
            base,
            base_folder,
            copy,
            probes=probes,
            siblings=dict(siblings.of(place.catalog, name)),
            max_rank=shape.rank,
            seconds=_SECONDS,
            walled=walled,
        )
        return measured(job, Path(private))


def sign(catalog: Catalog, version: Digest, key: Signer, *, actor: str) -> None:
    """A trainer's word for the version: whoever pulls it can check who made it. Signing twice is harmless."""
    manifest = catalog.manifest(version)
    catalog.sign_version(version, key.sign(MANIFEST, manifest.canonical()), actor=actor)


def trainer_key(place: Place, key_file: Path | None) -> Signer | None:
    """Read first: a missing key must not be found after minutes of work."""
    if key_file is None:
        return signer(place.workspace, "trainer") if place.workspace else None
    key = Signer.load(key_file)
    if key.role != "trainer":
        raise InvalidInput(f"a version is signed by a trainer's key, and this is a {key.role} key")
    return key


def _check_permission(place: Place, name: AdapterName, folder: Path) -> None:
    """May this be pushed at all? Asked before a minute goes into the fingerprint."""
    files = adapter_files(folder)
    if place.remote is not None:
        place.remote.missing(name.tenant, [Digest.of_file(path) for path in files.values()])
    else:
        place.catalog.tenant(name.tenant)


def base_folder_of(place: Place, base: Base, given: Path | None) -> Path | None:
    """Where the base's files are on this machine, checked to be that base; None when they are not here."""
    if given is None and place.workspace is not None:
        return bases.folder_of(place.workspace, base.name)
    folder = given or Path(".tenon") / "bases" / base.name
    if given is None and not folder.is_dir():
        return None

    from trainer.errors import BaseDiffers
    from trainer.plan import check_base

    try:
        check_base(base, folder)
    except BaseDiffers:
        if given is not None:
            raise
        return None  # another base of the same name is no reason to fail, only no help
    return folder.resolve()
