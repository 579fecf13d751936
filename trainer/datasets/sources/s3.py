"""An object in S3 or whatever speaks its protocol.

Endpoint, region and credentials come from where every AWS client finds them (``AWS_ENDPOINT_URL``,
``AWS_PROFILE``, a role of the machine …): none of it belongs in a recipe.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from trainer.errors import (
    LibrariesMissing,
    SourceInvalid,
    SourceMissing,
    SourceRefused,
    SourceUnreachable,
)

_CHUNK: Final = 1 << 20
_MISSING: Final = frozenset({"NoSuchKey", "NoSuchBucket", "404", "NotFound"})
_REFUSED: Final = frozenset(
    {"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
)


@dataclass(frozen=True, slots=True)
class S3Object:
    bucket: str
    key: str

    @classmethod
    def parse(cls, rest: str) -> "S3Object":
        """What stands behind ``s3://``."""
        bucket, _, key = rest.partition("/")
        if not bucket or not key or key.endswith("/"):
            raise SourceInvalid("write s3://bucket/key of one object", source=f"s3://{rest}")
        return cls(bucket, key)

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @contextmanager
    def opened(self) -> Iterator[Path]:
        # On disk, not in memory: Parquet is read from its end, and data may be larger than memory.
        with tempfile.TemporaryDirectory(prefix="tenon-data-") as folder:
            path = Path(folder) / "object"
            self._fetch(path)
            yield path

    def _fetch(self, path: Path) -> None:
        try:
            from botocore import exceptions as s3
        except ModuleNotFoundError as error:
            raise LibrariesMissing(f"{error.name} is not installed", library=error.name) from None
        where = f"s3://{self.bucket}/{self.key}"
        try:
            body = _client().get_object(Bucket=self.bucket, Key=self.key)["Body"]
            with path.open("wb") as stream:
                for chunk in body.iter_chunks(_CHUNK):
                    stream.write(chunk)
        except s3.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _MISSING:
                raise SourceMissing(f"there is no {where}", source=where) from None
            if code in _REFUSED:
                raise SourceRefused(f"{where} is not yours to read ({code})", source=where) from None
            raise SourceUnreachable(f"the store did not give {where}: {code}", source=where) from None
        except (s3.NoCredentialsError, s3.PartialCredentialsError, s3.ProfileNotFound):
            raise SourceRefused(f"no credentials were found for {where}", source=where) from None
        except s3.ParamValidationError:
            raise SourceInvalid(f"{self.bucket!r} cannot be the name of a bucket", source=where) from None
        except (s3.BotoCoreError, s3.HTTPClientError, ValueError) as error:
            reason = str(error).splitlines()[0][:200]
            raise SourceUnreachable(f"the store of {where} did not answer: {reason}", source=where) from None


def _client() -> Any:
    import boto3
    from botocore.config import Config

    # A region is part of every signature, and stores other than Amazon's do not care which.
    patient: dict[str, Any] = {
        "connect_timeout": 10,
        "read_timeout": 60,
        "retries": {"total_max_attempts": 3, "mode": "standard"},
    }
    session = boto3.Session()
    region = session.region_name or "us-east-1"
    client = session.client("s3", region_name=region, config=Config(**patient))
    host = urlsplit(client.meta.endpoint_url).hostname or ""
    if host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return client
    # MinIO, Ceph and the like rarely have a DNS name for each bucket.
    by_path = Config(**patient, s3={"addressing_style": "path"})
    return session.client("s3", region_name=region, config=by_path)
