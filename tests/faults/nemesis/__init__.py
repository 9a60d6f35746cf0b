"""Seeded random faults under mixed load, with a history that is judged afterwards.

    python -m tests.faults.nemesis --minutes 10 --seed 7

``plan`` draws the schedule of faults from the seed: the same seed gives the same schedule. ``strike`` makes them happen
to a fleet, ``load`` asks meanwhile, ``run`` holds both together and writes the ``history``, a file of JSON lines;
``judge`` reads it and says what was wrong, without a fleet. ``timeline`` shows it to people.
"""
