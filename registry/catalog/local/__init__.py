"""The catalog that holds everything itself: rows, blobs beside them, a signed log over both."""
