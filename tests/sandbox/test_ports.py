# SPDX-License-Identifier: GPL-3.0-or-later
import socket

import pytest

from sandbox import ports


@pytest.fixture
def taken():
    with socket.socket() as listener:
        listener.bind((ports.HOST, 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_listening_port_is_not_free(taken):
    assert not ports.is_free(taken)


def test_port_is_free_again_although_a_connection_lingers():
    with socket.create_server((ports.HOST, 0)) as server:
        number = server.getsockname()[1]
        with socket.create_connection((ports.HOST, number)):
            accepted, _ = server.accept()
            accepted.close()  # the side that closes first holds TIME_WAIT
    assert ports.is_free(number)


def test_taken_port_is_replaced_and_free_one_kept(taken):
    free = next(p for p in ports.RANGE if ports.is_free(p))
    chosen = ports.choose({"a": taken, "b": free})
    assert chosen["b"] == free
    assert chosen["a"] != taken
    assert chosen["a"] in ports.RANGE


def test_zero_means_any_and_all_answers_differ():
    chosen = ports.choose(dict.fromkeys("abcdefgh", 0))
    assert len(set(chosen.values())) == 8


def test_no_free_port_says_what_was_tried(monkeypatch):
    monkeypatch.setattr(ports, "is_free", lambda port: False)
    with pytest.raises(ports.PortError, match=r"api: found no free port among 200 tried in 20000-31999 of 127\.0\.0\.1; end programs"):
        ports.choose({"api": 16443})
