"""One class a noun: kernel documents in and out, SQL inside. Rules live in ``registry.catalog``, not here."""
