"""``python -m controlplane.cli`` is the same as ``neuronetz-gateway``."""

import sys

from controlplane.cli.entry import main

sys.exit(main())
