"""Which servers live: what a layer knows of that, on one machine by locks on files, on many through Redis."""
import logging
import os
import re
import tempfile
import time

try:
    import fcntl
except ImportError:
    # Windows, where nobody is found dead.
    fcntl = None

logger = logging.getLogger('sockets')

# A server says each half second that it lives; who has said nothing for two is suspected. Only who stays silent for
# another second and a half, while Redis is there to hear it, is dead: when Redis or the machine was stopped, everybody
# is late. Who has never been heard of, as after a restart of Redis, has ten seconds to speak.
SIGN_OF_LIFE = 0.5
_LEASE = 2
_SUSPICION = 1.5
_GRACE = 10

# Seconds in which a server that was found dead may come back and hear of it.
_MARK_KEPT = 86400

# Seconds that the file of a dead server is kept for somebody to find.
_KEPT = 7 * 86400


class FileLeases:
    """The leases of the servers in this process, and a look at those of others on this machine.

    Each server holds a lock on a file of its name, which the kernel takes from the dead. Of a server whose file is not
    there, nothing is known: it may see another directory for temporary files than we do.
    """

    def __init__(self, directory=None):
        self.directory = directory
        self._held = {}
        # Whom we have found dead, and nobody has told us to forget.
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
            # A file that nobody can lock would say that it is dead.
            self.forget(server)
            logger.warning('%s has no lease, so if it is killed, its rows are only found by their silence: %s',
                           server, error)
        else:
            self._held[server] = file

    def dead(self, servers=None):
        """Return those of ``servers`` that had a lease on this machine and hold it no more.

        Without ``servers``, those of whom that was said before.
        """
        servers = self._dead if servers is None else servers
        self._dead = [server for server in servers if server not in self._held and self._is_dead(server)]
        return list(self._dead)

    def alive(self, servers):
        """Return those of ``servers`` that hold a lease on this machine."""
        return [server for server in servers if self._is_locked(server)]

    def elsewhere(self, servers):
        """Return those of ``servers`` that hold a lease on this machine, and are not of this process."""
        return [server for server in self.alive(servers) if server not in self._held]

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
        directory = self.directory or os.path.join(tempfile.gettempdir(), 'sockets-{}'.format(os.getuid()))
        return os.path.join(directory, re.sub(r'[^\w.-]', '_', server))


class RedisLeases:
    """The leases of all servers on a Redis, or on several.

    ``run(script, index, args)`` runs a script on one of ``count`` shards, ``shard_of(server)`` says on which. On a shard
    that is away nobody is dead.
    """

    def __init__(self, run, shard_of, count, prefix):
        self.run = run
        self.shard_of = shard_of
        self.count = count
        self.prefix = prefix
        # Seconds that a sign of life is good for.
        self.lease = _LEASE
        # The servers of this process.
        self.held = set()
        # Whether a Redis that we asked has forgotten everything, and nobody has told it of the servers that have rows.
        self.is_new = False

    def hold(self, server):
        """Have ``server`` be one of those to ``renew`` from now on."""
        self.held.add(server)

    def renew(self, server):
        """Say that ``server`` lives; return what Redis knows of it (``scripts.FINE`` ...)."""
        return self.run('alive', self.shard_of(server), [self.prefix, int(self.lease * 1000), server])

    def dead(self, servers=None):
        """Return all that are dead of those that have ever been heard of, and hear of ``servers`` from now on.

        No shard takes a frame of theirs any more. ``servers`` are all that have rows, or ``None``.
        """
        by_shard = {index: [] for index in range(self.count)}
        for server in servers or ():
            by_shard[self.shard_of(server)].append(server)
        is_new, dead = False, []
        for index, names in by_shard.items():
            # Nobody is dead just because we cannot ask, and nobody lives because somebody else's shard is away.
            reply = self.run('dead', index, [
                self.prefix, int(_SUSPICION * 1000), int(_GRACE * 1000), _MARK_KEPT, int(servers is not None), *names])
            is_new_here, *found = reply or [0]
            is_new = is_new or bool(is_new_here)
            dead += [server.decode() for server in found]
        self.is_new = is_new
        for server in dead:
            self._on_other_shards('mark_dead', server, _MARK_KEPT)
        return dead

    def unmark_dead(self, server):
        """Have ``server`` live again, which was found dead, has ended all that it had, and has no row any more."""
        # First, and all of them: a mark that stayed would refuse what is on that shard.
        self._on_other_shards('unmark_dead', server)
        self.run('unmark_dead', self.shard_of(server), [self.prefix, server])

    def alive(self, servers=()):
        """Return all whose sign of life is good, whether they are among ``servers`` or not."""
        return [server.decode() for index in range(self.count) for server in self.run('living', index, [self.prefix])]

    def gone(self, servers):
        """Return those of ``servers`` that are dead, for who only wants to know: nobody is found dead by this."""
        return {gone.decode() for server in servers for gone in self.run(
            'gone', self.shard_of(server), [self.prefix, int(_SUSPICION * 1000), server])}

    def forget(self, server):
        """Forget a dead server."""
        self.run('forget', self.shard_of(server), [self.prefix, server, _MARK_KEPT])

    def _on_other_shards(self, script, server, *args):
        for index in range(self.count):
            if index != self.shard_of(server):
                self.run(script, index, [self.prefix, server, *args])
