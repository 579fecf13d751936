"""The ``tenon`` command: one file per noun or verb; heavy imports live inside the commands."""
