"""The demo: three tenants, one small base, no downloads."""
