"""llama.cpp's server on a free port of the loopback: ``python -m tests.contract.llama_cpp FOLDER``.

Writes the model into the folder, prints the server's address and serves until its standard input ends, which it also
does when the parent dies.
"""

from __future__ import annotations

import sys
from pathlib import Path

import xllamacpp  # type: ignore[import-untyped]  # a compiled module without stubs

from tests.contract.llama_cpp.model import CONTEXT_LENGTH, write_model
from tests.contract.llama_cpp.tiny import MODEL


def main(folder: Path) -> None:
    """Serves until standard input ends."""
    path = folder / f"{MODEL}.gguf"
    write_model(path)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = CONTEXT_LENGTH
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.warmup = False
    params.offline = True
    params.ui = False
    # Do not probe the machine's memory for a better fit, keep no prompts, print errors only.
    params.fit_params = False
    params.cache_ram_mib = 0
    params.verbosity = 1
    # One server for everything: with a pooling type it embeds as well as it completes.
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
