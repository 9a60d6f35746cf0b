"""How tests choose the ports of the stacks that they start."""

from __future__ import annotations

from deploy.local import ports
from tests.e2e import harness
from tests.fakes import own_ports


def test_data_planes_keep_clear_of_what_was_chosen_for_the_rest(monkeypatch, tmp_path):
    chosen = own_ports.choose_for(tmp_path / "state")
    assert len(chosen) == 14
    assert own_ports.choose_for(tmp_path / "state") == chosen
    free = next(port for port in range(20_000, 30_000) if ports.is_free(port) and ports.is_free(port + 1))
    # The first of the two is chosen from these, and only one of them is not taken.
    monkeypatch.setattr(ports, "POOL", range(free - 3, free + 1))
    assert harness._free_ports(2, taken={free - 3, free - 2, free - 1, *chosen} - {free, free + 1}) == free
