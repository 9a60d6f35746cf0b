"""Admission, leases and settlements in Redis: what calls the functions there, which are in ``shared.quota``.

One multiplexed connection per worker (``link``) carries everything. A script takes keys of one shard only, checks
everything before its first write, and says in its head which keys and arguments it takes and what it replies.

May import ``dataplane`` ports, values and errors, ``shared`` and redis.
"""
