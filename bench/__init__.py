"""Measurements. ``make bench`` runs them all and writes bench/results; nothing here asserts a time."""
