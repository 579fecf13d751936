"""Runs inside vLLM's own processes: the only place that imports vLLM, and only inside functions.

``spec``, ``counters`` and ``violations`` import no vLLM, because the agent reads what the guard writes.
"""
