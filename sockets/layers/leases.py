"""Which servers of one machine are alive, by locks on files. For many machines, see redis_leases.py."""

import logging
import os
import re
import tempfile
import time

try:
    import fcntl
except ImportError:
    # Windows, where no server is found dead.
    fcntl = None

logger = logging.getLogger('sockets')

# Seconds that the file of a dead server is kept, so that it is found.
_KEPT = 7 * 86400


class FileLeases:
    """The leases of the servers in this process, and a look at those of others on this machine.

    Each server holds a lock on a file of its name, which the kernel releases when the process ends. Of a server without
    a file nothing is known: it may have another directory for temporary files.
    """

    def __init__(self, directory=None):
        self.directory = directory
        self._held = {}
        # Servers that were found dead and not forgotten yet.
        self._dead = []

    def hold(self, server):
        """Hold a lease for ``server`` until this process ends."""
        if fcntl is None or server in self._held:
            return
        path = self._path(server)
        self._held[server] = None
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            self._sweep(os.path.dirname(path))
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # A file without a lock would mean that the server is dead.
            self.forget(server)
            logger.warning(
                '%s has no lease, so if it is killed, its rows are only found by their silence: %s', server, error
            )
        else:
            self._held[server] = file

    def dead(self, servers=None):
        """Return those of ``servers`` that had a lease on this machine and hold it no more.

        Without ``servers``, of those that were found dead before.
        """
        servers = self._dead if servers is None else servers
        self._dead = [server for server in servers if server not in self._held and self._is_dead(server)]
        return list(self._dead)

    def alive(self, servers):
        """Return those of ``servers`` that hold a lease on this machine."""
        return [server for server in servers if self._is_locked(server)]

    def forget(self, server):
        """Forget a dead server."""
        try:
            os.unlink(self._path(server))
        except OSError:
            pass

    def _sweep(self, directory):
        """Remove the files of the long dead, whose rows are not in the database of anybody who looked."""
        for name in os.listdir(directory):
            try:
                if os.stat(os.path.join(directory, name)).st_mtime < time.time() - _KEPT and self._is_dead(name):
                    os.unlink(os.path.join(directory, name))
            except FileNotFoundError:
                pass

    def _is_dead(self, server):
        return self._is_locked(server) is False

    def _is_locked(self, server):
        """Return whether anybody holds the lock of ``server``; ``None`` if there is none."""
        if fcntl is None:
            return None
        try:
            file = os.open(self._path(server), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            # Not there, or another user's.
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
        finally:
            os.close(file)
        return False

    def _path(self, server):
        directory = self.directory or os.path.join(tempfile.gettempdir(), f'sockets-{os.getuid()}')
        return os.path.join(directory, re.sub(r'[^\w.-]', '_', server))
