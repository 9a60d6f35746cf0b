"""What both planes must agree on to the byte: keys, records, names, settings, logs.

A module belongs here only when both planes use it (a test checks that). Nothing here may import a plane, a database
driver, a web framework or Argon2.
"""
