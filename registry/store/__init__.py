"""Rows, SQL and migrations: the only package that knows that there is a database."""
