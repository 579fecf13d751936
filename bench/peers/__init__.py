"""Other people's routers, in environments of their own, asked the same by the same load generator."""
