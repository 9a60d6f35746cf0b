"""What the control plane does without being asked: publish, rebuild, discover, drain, revoke.

Each task is a class with ``run()``, started in the task group of ``controlplane.app``; any number of replicas may run
the same task. May import ``controlplane.publish``, ``store``, ``ollama``, ``core``, ``errors`` and ``shared``.
"""
