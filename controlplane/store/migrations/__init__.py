"""Migrations in order of their names; each runs the SQL file of the same name once, and works with the last release."""
