"""The backends: one HTTP attempt, what is believed of its reply, the circuit breaker, and the meter.

May import ports, values, native, errors and ``shared``; httpx and httptools are imported here and nowhere else in the
data plane.
"""
