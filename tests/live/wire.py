"""A TCP line to a port of this machine that can be cut: what is sent meanwhile is on its way until it is mended."""

import contextlib
import socket
import threading


class Wire:
    """Listens on ``port`` and passes on to ``target``, in both directions, while it is whole."""

    def __init__(self, target):
        self.target = target
        self.whole = threading.Event()
        self.whole.set()
        self.sockets = []
        self.listener = socket.socket()
        self.listener.bind(('127.0.0.1', 0))
        self.listener.listen(50)
        self.port = self.listener.getsockname()[1]
        self._run(self._accept)

    def cut(self):
        self.whole.clear()

    def mend(self):
        self.whole.set()

    def close(self):
        self.mend()
        for end in [self.listener, *self.sockets]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def note(self, data):
        """Called with all that comes, in either direction."""

    def _run(self, function, *args):
        threading.Thread(target=function, args=args, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(('127.0.0.1', self.target))
                self.sockets += [near, far]
                self._run(self._pass_on, near, far)
                self._run(self._pass_on, far, near)

    def _pass_on(self, source, target):
        with contextlib.suppress(OSError):
            while True:
                data = source.recv(65536)
                self.note(data)
                self.whole.wait()
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)
