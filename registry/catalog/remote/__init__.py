"""The catalog of another machine, over the control plane's HTTP API (docs/reference/http.md)."""
