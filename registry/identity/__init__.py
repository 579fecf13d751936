"""Tokens of an identity provider (OpenID Connect), as both planes verify them. No network in here."""
