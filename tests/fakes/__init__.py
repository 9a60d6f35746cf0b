"""Stand-ins that tests share; each is verified against what it stands for by the tests that use it."""
