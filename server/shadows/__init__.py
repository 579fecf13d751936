"""Comparing shadow versions with what answered in their place."""
