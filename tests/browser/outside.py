"""Stands for the world outside the machine: answers nobody and writes down who asked."""

import socket
import threading


class Outside:
    """A proxy that refuses; `asked` holds the first line of every request, and `address` is where it listens."""

    def __init__(self):
        self.asked: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._refuse, daemon=True).start()

    def _refuse(self) -> None:
        while True:
            try:
                caller, _ = self._socket.accept()
            except OSError:  # closed
                return
            with caller:
                caller.settimeout(10)
                try:
                    line = caller.recv(4096).split(b"\r\n")[0].decode(errors="replace")
                except OSError:
                    line = "a connection without a word"
                self.asked.append(line)

    def close(self) -> None:
        self._socket.close()
