"""Looks at a deployment from where it runs and says what to do: the command ``neuronetz-gateway doctor``.

It changes nothing. ``examine`` is the way in; ``examination`` says what is looked at, ``checks`` how (at once, each
within a deadline, whatever raises becomes a finding), and each further module looks at one thing.

May import ``controlplane.config``, ``errors``, ``core``, ``ollama``, ``publish`` and ``store``, and ``shared``. Never
``rpc``, ``tasks``, ``watch`` or the command line.
"""

from controlplane.doctor.checks import Check
from controlplane.doctor.deployment import Deployment
from controlplane.doctor.examination import examine
from controlplane.doctor.findings import Finding, Report, Status

__all__ = ["Check", "Deployment", "Finding", "Report", "Status", "examine"]
