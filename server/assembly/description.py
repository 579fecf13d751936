"""The control API's description, for whoever wants it as a file."""

import json
import tempfile
from pathlib import Path

from registry.blobs.memory import InMemoryBlobs, InMemoryShelf
from registry.blobs.uploads import Uploads
from registry.catalog.local.catalog import LocalCatalog
from registry.clock import SystemClock
from registry.signing.keys import Signer
from registry.store.database import Database, upgrade
from server.api.app import create_app
from server.api.control import Control


def described() -> str:
    """OpenAPI as JSON. Endpoints are made for a registry, so an empty one is made for the moment."""
    with tempfile.TemporaryDirectory(prefix="tenon-description-") as folder:
        blobs = InMemoryBlobs()
        with Database(Path(folder) / "registry.db") as database:
            upgrade(database)
            catalog = LocalCatalog(
                database=database, blobs=blobs, signer=Signer.generate("log"), clock=SystemClock()
            )
            uploads = Uploads(InMemoryShelf(), blobs)
            app = create_app(Control(catalog=catalog, blobs=blobs, uploads=uploads, service_token="-" * 32))
            return json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"
