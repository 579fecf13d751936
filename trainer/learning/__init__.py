"""Everything that needs torch: the base, adapters, one file per method."""
