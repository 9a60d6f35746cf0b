"""Frames field by field, and what the real packages of both dialects send and accept."""
