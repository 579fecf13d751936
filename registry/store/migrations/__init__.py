"""Alembic scripts. A test keeps this list, the scripts and the rows equal.

New revision: write ``versions/<number>_<what>.py`` by hand (SQLite needs batch operations) and add it here.
"""

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009")
"""Oldest first."""
REVISION = REVISIONS[-1]
