"""Several server processes behind one listening socket. Standard library only."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time

logger = logging.getLogger('sockets')


def address(addrport):
    """Return host and port of a text such as ``'127.0.0.1:8000'``, ``'[::1]:8000'`` or ``'8000'``, or raise ``ValueError``."""
    host, _, port = addrport.rpartition(':')
    if not port.isdecimal() or int(port) > 65535:
        raise ValueError(f'{addrport!r} is not an ADDR:PORT; write 127.0.0.1:8000 or 8000.')
    return host.strip('[]') or '127.0.0.1', int(port)


def listen(host, port):
    """Return a socket that listens at ``port`` of ``host``, or raise ``OSError``."""
    listening = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    listening.listen(1024)
    return listening


def program():
    """Return the arguments with which Python runs this program again."""
    return (['-m', 'django'] if sys.argv[0].endswith('__main__.py') else sys.argv[:1]) + sys.argv[1:]


class Processes:
    """Several server processes behind one listening socket, each replaced when it dies."""

    def __init__(self, count, listening, arguments):
        self.count = count
        self.listening = listening
        self.arguments = arguments
        self.children = []
        self.terminated = []
        self.stopping = False

    def run(self):
        """Keep the processes running until SIGTERM or SIGINT, and return when the last one has ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        while True:
            while len(self.children) < self.count and not self.stopping:
                self.children.append(self.start())
            # A child may have been started while the signal came.
            for child in self.children if self.stopping else ():
                if child not in self.terminated and child.poll() is None:
                    self.terminated.append(child)
                    child.terminate()
            for child in [child for child in self.children if child.poll() is not None]:
                self.children.remove(child)
                if not self.stopping:
                    logger.error('Process %d ended with %d and is replaced', child.pid, child.returncode)
                    # So that a child which dies at once is not restarted without pause.
                    time.sleep(0.5)
            if self.stopping and not self.children:
                return
            time.sleep(0.1)

    def start(self):
        number = self.listening.fileno()
        return subprocess.Popen(
            [sys.executable, *self.arguments, '--fd', str(number), '--parent', str(os.getpid())], pass_fds=[number]
        )

    def stop(self, *args):
        self.stopping = True
