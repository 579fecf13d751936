"""The data plane: tenant metadata and a public model name in, one attested adapter's answer out."""
