"""The registry at the size that it is promised for: 10,000 tenants and 50,000 versions."""
