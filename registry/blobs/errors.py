"""What can go wrong with bytes that are stored, or on their way to be."""

from registry.errors import Conflict, InvalidInput, NotFound, TenonError


class BlobsUnavailable(TenonError):
    """The store did not answer, not in time, or not as itself; nothing is known to be lost."""

    code, status = "blobs_unavailable", 503
    hint = "try again; if it stays, check the blob store's endpoint, bucket, credentials and free space"


class BlobTooLarge(InvalidInput):
    code, status = "blob_too_large", 413
    hint = "no adapter that an engine can hold is this large"


class UploadNotFound(NotFound):
    """Never begun, finished, or abandoned for so long that it was removed."""

    code = "upload_not_found"
    hint = "begin the upload again"


class UploadMisplaced(Conflict):
    """``facts['offset']`` is where the next byte belongs."""

    code = "upload_misplaced"
    hint = "go on from the offset that the registry names"


class UploadOverrun(InvalidInput):
    code = "upload_overrun"
    hint = "the file changed since the upload began: begin again with its digest and size of now"


class UploadMismatch(InvalidInput):
    """All bytes came and are not the digest's; none of them was kept."""

    code, status = "upload_mismatch", 422
    hint = "the file changed while it was sent, or was damaged on the way: send it again from the start"


class UploadFragmented(InvalidInput):
    code = "upload_fragmented"
    hint = "send chunks of 8 MiB, from the start"


class TooManyUploads(TenonError):
    code, status = "too_many_uploads", 429
    hint = "finish uploads that were begun before, or wait until they expire"
