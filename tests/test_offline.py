"""Nothing that tests or reports start contacts another machine: a planted request is caught, wherever it is made."""

import socket
import subprocess
import sys
import threading
import urllib.request

import pytest
from offline import asked, nobody_asked

PLANTED = "import urllib.request; urllib.request.urlopen('http://192.0.2.1/', timeout=1)"
QUIET = f"try: {PLANTED.partition('; ')[2]}\nexcept OSError: pass"


def test_a_request_of_this_process_is_caught():
    for address in ("http://192.0.2.1/", "http://example.invalid/"):
        with pytest.raises(OSError, match="outside this machine"):
            urllib.request.urlopen(address, timeout=1)
        assert len(asked()) == 1


def test_a_datagram_is_caught():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, pytest.raises(ConnectionRefusedError):
        sender.sendto(b"", ("192.0.2.1", 9))
    assert asked()[0].startswith("socket.sendto")


def test_a_request_that_somebody_swallows_is_caught():
    with pytest.raises(AssertionError, match=r"asked outside this machine: .*192\.0\.2\.1"), nobody_asked():
        thread = threading.Thread(target=exec, args=(f"import urllib.request\n{QUIET}",))
        thread.start()
        thread.join()


def test_a_request_of_a_child_is_caught():
    done = subprocess.run([sys.executable, "-c", PLANTED], capture_output=True, text=True)
    assert done.returncode and "outside this machine" in done.stderr and len(asked()) == 1


def test_what_stays_on_this_machine_is_let_through():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1])).close()
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path := "\0fsslib-test-offline")
        server.listen()
        client.connect(path)
    assert not asked()
