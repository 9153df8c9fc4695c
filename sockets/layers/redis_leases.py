"""Which servers live: what those of many machines tell each other of that through Redis."""
from .errors import AWAY

# A server sends a heartbeat each half second; who has sent none for two is suspected. Only who stays silent for
# another second and a half, while Redis is there to hear it, is dead: when Redis or the machine was stopped, everybody
# is late. Who has never been heard of, as after a restart of Redis, has ten seconds to speak.
_LEASE = 2
_SUSPICION = 1.5
_GRACE = 10

# Seconds in which a server that was found dead may come back and hear of it.
_MARK_KEPT = 86400


class RedisLeases:
    """The leases of all servers on a Redis, or on several.

    On a shard that is away nobody is dead.
    """

    def __init__(self, ring):
        self.ring = ring
        # Seconds that a heartbeat is good for.
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
        return self._ask('alive', self.ring.shard_of(server), [int(self.lease * 1000), server])

    def dead(self, servers=None):
        """Return all that are dead of those that have ever been heard of, and hear of ``servers`` from now on.

        No shard takes a frame of theirs any more. ``servers`` are all that have rows, or ``None``.
        """
        by_shard = {index: [] for index in range(self.ring.size)}
        for server in servers or ():
            by_shard[self.ring.shard_of(server)].append(server)
        is_new, dead = False, []
        for index, names in by_shard.items():
            # Nobody is dead just because we cannot ask, and nobody lives because somebody else's shard is away.
            reply = self._ask('dead', index, [
                int(_SUSPICION * 1000), int(_GRACE * 1000), _MARK_KEPT, int(servers is not None), *names])
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
        self._ask('unmark_dead', self.ring.shard_of(server), [server])

    def alive(self, servers=()):
        """Return all whose last heartbeat is good, whether they are among ``servers`` or not."""
        return [server.decode() for index in range(self.ring.size) for server in self._ask('living', index, [])]

    def gone(self, servers):
        """Return those of ``servers`` that are dead, for who only wants to know: nobody is found dead by this."""
        return {gone.decode() for server in servers for gone in self.ring.run(
            'gone', self.ring.shard_of(server), [int(_SUSPICION * 1000), server])}

    def forget(self, server):
        """Forget a dead server."""
        self._ask('forget', self.ring.shard_of(server), [server, _MARK_KEPT])

    def _on_other_shards(self, script, server, *args):
        for index in range(self.ring.size):
            if index != self.ring.shard_of(server):
                self._ask(script, index, [server, *args])

    def _ask(self, name, index, args):
        """Run a script. Nobody is dead, or alive, just because we cannot ask."""
        try:
            return self.ring.run(name, index, args)
        except AWAY:
            if name not in ('dead', 'living', 'mark_dead') or (name == 'living' and self.ring.size == 1):
                raise
            return []
