"""The catalog: what exists, who may use it, where aliases point. Every change is an entry of the log first.

``projection.apply`` is the only code that changes tables, and it does so from an entry alone: so the state is
always what a replay of the log gives, and ``audit`` can check exactly that.
"""
