"""The references in the documents, made from the code that they describe: ``python -m deploy.references``.

Each document has marked sections (``sections``), and each section is made by one function from its one source: routes
and bodies of the data plane (``endpoints``, ``fields``), its errors and headers (``refusals``, ``headers``), settings
of every process (``configuration``), descriptors of the gRPC services and who may call them (``rpcs``), keys in Redis
(``keyspace``). What code cannot say, words beside it do; a thing without words fails here, and so fails the suite.
May import both planes, like everything that deploys them.
"""
