"""Regenerates the committed gRPC stubs beside their ``.proto`` files: ``uv run python proto/generate.py``.

The folder of a file is its protobuf package and its Python package. ``--check DIR`` writes into another folder, which
is how the test suite compares what is committed with what would be generated.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
PACKAGES = ("neuronetz", "neuronetz/admin", "neuronetz/admin/v1", "neuronetz/state", "neuronetz/state/v1")


def proto_files() -> list[str]:
    """Every ``.proto`` of the tree, relative to this folder, in a stable order."""
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("neuronetz/**/*.proto"))


def generate(target: Path) -> None:
    """Writes stubs (messages, services, types of both) below ``target``; raises ``RuntimeError`` if protoc fails."""
    include = str(Path(protoc.__file__).parent / "_proto")
    outputs = [f"--{kind}_out={target}" for kind in ("python", "mypy", "grpc_python", "mypy_grpc")]
    descriptors = [f"--descriptor_set_out={target / 'neuronetz' / 'descriptors.binpb'}", "--include_source_info"]
    for package in PACKAGES:
        (target / package).mkdir(parents=True, exist_ok=True)
        (target / package / "__init__.py").write_text(f'"""Generated stubs of ``{package.replace("/", ".")}``."""\n')
    arguments = ["protoc", f"-I{ROOT}", f"-I{include}", *outputs, *descriptors, "--include_imports", *proto_files()]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed; its message is above")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", type=Path, metavar="DIR", help="write below DIR instead of beside the .proto files")
    options = parser.parse_args()
    generate(options.check or ROOT)
    sys.exit(0)
