"""Which engines there should be, and where: from a list that somebody wrote, or from Kubernetes."""
