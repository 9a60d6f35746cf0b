"""What a rehearsal of the runbooks needs: a stage (a gateway with all that can break) and a shell to type into.

For `deploy.rehearse`. May import `deploy.local` and `shared`.
"""
