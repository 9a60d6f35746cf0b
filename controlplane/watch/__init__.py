"""What the workers of the data plane are told, and what is known of them; nothing here knows how it travels to them.

May import ``controlplane.publish``, ``controlplane.core``, ``controlplane.errors``, ``controlplane.metrics`` and
``shared``.
"""
