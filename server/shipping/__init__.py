"""Request records, copied in batches to where they can be queried."""
