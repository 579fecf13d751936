"""A file of a data set on the Hugging Face hub.

Endpoint, token, cache and offline mode are the client's own standard settings (``HF_ENDPOINT``, ``HF_TOKEN``,
``HF_HOME``, ``HF_HUB_OFFLINE``); a file that is cached is fetched again only when the hub has another one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import (
    LibrariesMissing,
    SourceInvalid,
    SourceMissing,
    SourceRefused,
    SourceUnreachable,
)

_PARTS = 4
"""``datasets``, owner, name and at least one part of a path."""


@dataclass(frozen=True, slots=True)
class HubFile:
    repository: str
    path: str
    revision: str | None = None

    @classmethod
    def parse(cls, rest: str) -> "HubFile":
        """What stands behind ``hf://``; the revision follows the file or, as fsspec writes it, the name."""
        parts = rest.split("/")
        if len(parts) < _PARTS or parts[0] != "datasets" or not all(parts):
            raise SourceInvalid("write hf://datasets/owner/name/file", source=f"hf://{rest}")
        owner, (name, _, early) = parts[1], parts[2].partition("@")
        path, _, late = "/".join(parts[3:]).partition("@")
        if not name or not path or (early and late) or rest.endswith("@"):
            raise SourceInvalid("write one revision: hf://datasets/owner/name/file@revision", source=rest)
        return cls(f"{owner}/{name}", path, early or late or None)

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @contextmanager
    def opened(self) -> Iterator[Path]:
        yield self._fetch()

    def _fetch(self) -> Path:
        try:
            from huggingface_hub import errors as hub
            from huggingface_hub import hf_hub_download
            from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined] # of its HTTP client
            from huggingface_hub.utils.tqdm import (
                are_progress_bars_disabled,
                disable_progress_bars,
                enable_progress_bars,
            )
        except ModuleNotFoundError as error:
            raise LibrariesMissing(f"{error.name} is not installed", library=error.name) from None
        quiet = are_progress_bars_disabled()
        disable_progress_bars()
        try:
            return Path(
                hf_hub_download(self.repository, self.path, repo_type="dataset", revision=self.revision)
            )
        except hub.HFValidationError:
            raise SourceInvalid(f"{self.repository!r} is not a name that the hub allows") from None
        except hub.GatedRepoError:
            raise SourceRefused(f"{self.repository} is gated: its owner must let you in") from None
        except hub.RepositoryNotFoundError:
            # The hub answers the same for what is private: a token may be what is missing.
            raise SourceMissing(
                f"the hub shows no data set {self.repository} to you",
                hint="check its name; for a private one set HF_TOKEN",
            ) from None
        except hub.RevisionNotFoundError:
            raise SourceMissing(f"{self.repository} has no revision {self.revision!r}") from None
        except hub.LocalEntryNotFoundError:
            raise SourceUnreachable(
                f"the hub cannot be reached, and {self.name} of {self.repository} is not in its cache"
            ) from None
        except hub.EntryNotFoundError:
            raise SourceMissing(f"{self.repository} has no file {self.path}") from None
        except (hub.HfHubHTTPError, HTTPError, hub.OfflineModeIsEnabled) as error:
            raise SourceUnreachable(f"the hub did not give {self.name}: {_first_line(error)}") from None
        finally:
            if not quiet:
                enable_progress_bars()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
