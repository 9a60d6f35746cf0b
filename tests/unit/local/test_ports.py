import socket

import pytest

from deploy.local.errors import StackError
from deploy.local.ports import HOST, PortBook, free_port, is_free


@pytest.fixture
def listener():
    with socket.create_server((HOST, 0)) as server:
        yield server


def test_a_port_with_a_listener_is_not_free(listener):
    assert not is_free(listener.getsockname()[1])


def test_a_found_port_is_free():
    assert is_free(free_port())


def test_the_same_name_gets_the_same_port_at_the_next_start(tmp_path):
    port = PortBook(tmp_path / "ports.json").assign("redis")
    assert PortBook(tmp_path / "ports.json").assign("redis") == port


def test_a_preferred_port_that_is_taken_is_replaced_by_another(tmp_path, listener):
    taken = listener.getsockname()[1]
    assert PortBook(tmp_path / "ports.json").assign("dataplane-1", preferred=taken) != taken


def test_a_required_port_that_is_taken_is_an_error_that_names_it(tmp_path, listener):
    taken = listener.getsockname()[1]
    with pytest.raises(StackError, match=str(taken)):
        PortBook(tmp_path / "ports.json").assign("dataplane-1", required=taken)


def test_two_names_never_share_a_port(tmp_path):
    book = PortBook(tmp_path / "ports.json")
    first = book.assign("dataplane-1")
    assert book.assign("dataplane-2", preferred=first) != first
    with pytest.raises(StackError):
        book.assign("dataplane-3", required=first)
