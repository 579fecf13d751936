"""Ed25519 keys and DSSE envelopes: bytes are signed and verified, never a re-serialised model."""
