"""Deployment files, judged by the tools that will read them and by rules of our own."""
