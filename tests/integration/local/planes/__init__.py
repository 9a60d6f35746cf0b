"""Stand-ins for the planes, put in front of the real ones by PYTHONPATH."""
