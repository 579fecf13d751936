"""Publish a version from afar. The registry inspects it; what it stored is checked against what was sent."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from registry.catalog.remote.errors import AnswerInvalid
from registry.catalog.remote.uploads import Uploads, read_as
from registry.catalog.remote.versions import Versions
from registry.catalog.remote.wire import member, read
from registry.digests import Digest
from registry.fingerprint import Fingerprint
from registry.intake import adapter_files
from registry.manifests import Manifest, Provenance
from registry.names import AdapterName

AT_ONCE: Final = 4 << 20
"""Bytes that go along with the version they are of: requests of their own, and what the registry must keep of
them until the version comes, would cost more than base64 does."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (bytes at the registry, bytes in all)."""


class Pushes(Uploads, Versions):
    def push(
        self,
        name: AdapterName,
        folder: Path,
        *,
        base: Digest,
        fingerprint: Fingerprint | None,
        provenance: Provenance,
        actor: str,
        progress: Progress | None = None,
    ) -> Digest:
        """Idempotent; only bytes that the registry lacks travel, and an interrupted push goes on.

        Raises what :meth:`registry.catalog.local.catalog.LocalCatalog.push` raises, FileChanged, Unreachable.
        """
        paths = adapter_files(folder)
        digests = {file: Digest.of_file(path) for file, path in paths.items()}
        missing = self.missing(name.tenant, digests.values())
        sizes = {file: path.stat().st_size for file, path in paths.items()}
        total = sum(sizes.values())
        arrived = sum(size for file, size in sizes.items() if digests[file] not in missing)

        def moved(count: int) -> None:
            nonlocal arrived
            arrived += count
            if progress is not None:
                progress(arrived, total)

        moved(0)
        contents: dict[str, bytes] = {}
        for file in sorted(paths, key=sizes.__getitem__):
            if digests[file] not in missing:
                continue
            if sizes[file] + sum(map(len, contents.values())) <= AT_ONCE:
                contents[file] = read_as(paths[file], digests[file])
            else:
                self.upload(name.tenant, paths[file], digests[file], moved=moved)
        version = self.publish(
            name,
            digests,
            base=base,
            fingerprint=fingerprint,
            provenance=provenance,
            actor=actor,
            contents=contents,
        )
        moved(sum(map(len, contents.values())))
        return version

    def publish(
        self,
        name: AdapterName,
        files: Mapping[str, Digest],
        *,
        base: Digest,
        fingerprint: Fingerprint | None,
        provenance: Provenance,
        actor: str,
        contents: Mapping[str, bytes] | None = None,
    ) -> Digest:
        """A version of files that the registry has, or that are sent along as ``contents``.

        Raises BlobNotFound, the leaves of IntakeRefused.
        """
        body = {
            "base": base,
            "files": dict(sorted(files.items())),
            "contents": {file: b64encode(data).decode() for file, data in (contents or {}).items()},
            "fingerprint": None if fingerprint is None else fingerprint.model_dump(mode="json"),
            "provenance": provenance.model_dump(mode="json"),
        }
        answer = self._wire.post(self._at(name, "versions"), body)
        version = read(Digest, member(answer, "version"))
        manifest = read(Manifest, member(answer, "manifest"))
        if manifest.identity() != version or not _is_ours(
            manifest, name, files, base, fingerprint, provenance
        ):
            raise AnswerInvalid("the version that the registry stored is not the one that was pushed")
        self._homes.versions[version] = name
        return version


def _is_ours(
    manifest: Manifest,
    name: AdapterName,
    files: Mapping[str, Digest],
    base: Digest,
    fingerprint: Fingerprint | None,
    provenance: Provenance,
) -> bool:
    stored = manifest.fingerprint
    return (
        (manifest.tenant, manifest.adapter) == (name.tenant, name.adapter)
        and manifest.base == base
        and {file.path: file.digest for file in manifest.files} == dict(files)
        and (stored.digest if stored else None) == (fingerprint.identity() if fingerprint else None)
        and manifest.provenance == provenance
    )
