"""Rules of usage queries and corrections."""
