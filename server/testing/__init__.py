"""Fakes of what the server needs from outside, shipped so that others can test against them too."""
