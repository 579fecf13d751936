"""Base models: found in a folder or on the hub, described, registered under a name."""

import re
from pathlib import Path
from typing import Final

from registry.bases import describe
from registry.catalog.local.catalog import LocalCatalog
from registry.digests import Digest
from registry.errors import BaseNotFound
from registry.models import Base
from server.demo.build_base import SHIPPED_BASE, SHIPPED_STUDENT
from server.errors import DependencyMissing
from server.workspace import Workspace

_SHIPPED: Final = {"demo": SHIPPED_BASE, "demo-student": SHIPPED_STUDENT}


def locate(source: str, revision: str | None = None) -> Path:
    """The folder of a base: ``source`` itself, or a snapshot of that hub repository (network, cached).

    ``demo`` is the base that ships with Tenon, ``demo-student`` the smaller one to distil it into.
    """
    if source in _SHIPPED:
        return _SHIPPED[source]
    folder = Path(source)
    if folder.is_dir():
        return folder.resolve()
    if source.startswith((".", "/")) or source.count("/") != 1:
        raise BaseNotFound(f"no folder {source}, and not a hub name", hint="give a folder or owner/name")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise DependencyMissing("fetching from the hub needs the package huggingface_hub") from None
    wanted = ["*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.txt", "*.model"]
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BaseNotFound(
            f"could not fetch {source}: {type(error).__name__}",
            hint="check the name, the network and HF_TOKEN; or download it and give the folder",
        ) from None


def register(
    workspace: Workspace, catalog: LocalCatalog, *, name: str, source: str, revision: str | None, actor: str
) -> tuple[Digest, Base]:
    """Describe the base at ``source``, write its contract, register both; idempotent for the same bytes."""
    from trainer.learning.contract import make_contract

    folder = locate(source, revision)
    base = describe(folder, name=name, revision=revision or "local")
    digest = catalog.register_base(base, make_contract(base.identity(), folder), actor=actor)
    link = workspace.bases / name
    link.unlink(missing_ok=True)
    link.symlink_to(folder, target_is_directory=True)
    return digest, base


def folder_of(workspace: Workspace, name: str) -> Path:
    """Where the registered base's files are on this machine."""
    link = workspace.bases / name
    if not link.is_dir():
        raise BaseNotFound(f"the files of base {name!r} are not on this machine", hint="tenon base add again")
    return link.resolve()


def only_one(workspace: Workspace) -> str:
    """The name of the registered base, when there is no choice. Raises BaseNotFound."""
    names = sorted(link.name for link in workspace.bases.iterdir()) if workspace.bases.is_dir() else []
    if len(names) != 1:
        known = f"registered are {', '.join(names)}" if names else "none is registered"
        raise BaseNotFound(f"which base? {known}", hint="name one with --base, or add one: tenon base add")
    return names[0]


def tool_call_parser(folder: Path) -> str | None:
    """How the base writes calls of tools, where its chat template shows it; None where it does not.

    Only the form of Hermes and Qwen (JSON in ``<tool_call>``) is recognised; Qwen3-Coder's has the same tag
    around XML.
    """
    texts = [
        file.read_text(encoding="utf-8", errors="replace")
        for file in (folder / "chat_template.jinja", folder / "tokenizer_config.json")
        if file.is_file()
    ]
    written = "".join(texts)
    return "hermes" if "<tool_call>" in written and "<function=" not in written else None


def ensure_registered(workspace: Workspace, catalog: LocalCatalog, base: str) -> tuple[str, Path]:
    """(registered name, folder) for what a person typed: a registered name, a folder or a hub name."""
    if (workspace.bases / base).is_dir() and "/" not in base:
        return base, folder_of(workspace, base)
    name = re.sub(r"[^a-z0-9_-]+", "-", Path(base).name.lower()).strip("-_") or "base"
    register(workspace, catalog, name=name, source=base, revision=None, actor="tenon up")
    return name, folder_of(workspace, name)
