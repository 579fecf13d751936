"""The shared kernel: nouns, digests, catalog, blobs, log, signatures, gates.

Imports none of the other packages; synchronous; has no HTTP server.
"""
