"""How the gateway is run: the embedded stack, the mock Ollama, and what images, units and compose files need.

Nothing here is imported by the planes. `deploy.local` may import the admin stubs; it starts the planes as processes and
knows them by their environment variables, their ports and their exit statuses only. `deploy.environment` and
`deploy.references` read what the planes declare, and write it down for people.
"""
