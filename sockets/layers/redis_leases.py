"""Which servers are alive, on many machines: heartbeats through Redis."""

from .errors import AWAY

# A server sends a heartbeat each half second. One that has sent none for two seconds is suspected, and dead if it
# stays silent for another second and a half while Redis is there: when Redis or the machine was stopped, every server
# is late. One that Redis does not know, as after a restart of Redis, has ten seconds for its first heartbeat.
_LEASE = 2
_SUSPICION = 1.5
_GRACE = 10

# Seconds for which Redis remembers that a server was found dead, in case it comes back.
_MARK_KEPT = 86400


class RedisLeases:
    """The leases of all servers on a Redis, or on several.

    While a shard is away, no server on it is found dead.
    """

    def __init__(self, ring):
        self.ring = ring
        # Seconds that a heartbeat is good for.
        self.lease = _LEASE
        # The servers of this process.
        self.held = set()
        # Whether a Redis has lost everything and does not know the servers that have rows.
        self.is_new = False

    def hold(self, server):
        """Have ``server`` be one of those to ``renew`` from now on."""
        self.held.add(server)

    def renew(self, server):
        """Send a heartbeat of ``server``; return what Redis knows of it (``scripts.FINE`` ...)."""
        return self._ask('alive', self.ring.shard_of(server), [int(self.lease * 1000), server])

    def dead(self, servers=None):
        """Return all dead servers of those that Redis knows, which include ``servers`` from now on.

        No shard takes a frame of theirs any more. ``servers`` are all that have rows, or ``None``.
        """
        by_shard = {index: [] for index in range(self.ring.size)}
        for server in servers or ():
            by_shard[self.ring.shard_of(server)].append(server)
        is_new, dead = False, []
        for index, names in by_shard.items():
            # If a shard cannot be asked, that changes nothing for servers on the others.
            reply = self._ask(
                'dead',
                index,
                [int(_SUSPICION * 1000), int(_GRACE * 1000), _MARK_KEPT, int(servers is not None), *names],
            )
            is_new_here, *found = reply or [0]
            is_new = is_new or bool(is_new_here)
            dead += [server.decode() for server in found]
        self.is_new = is_new
        for server in dead:
            self._on_other_shards('mark_dead', server, _MARK_KEPT)
        return dead

    def unmark_dead(self, server):
        """Let ``server`` serve again, which was found dead, has closed its connections, and has no rows any more."""
        # These first, and all of them: a mark that stays would refuse the frames on that shard.
        self._on_other_shards('unmark_dead', server)
        self._ask('unmark_dead', self.ring.shard_of(server), [server])

    def alive(self, servers=()):
        """Return all whose last heartbeat is good, whether they are among ``servers`` or not."""
        return [server.decode() for index in range(self.ring.size) for server in self._ask('living', index, [])]

    def gone(self, servers):
        """Return those of ``servers`` that are dead. Only a look: no server is marked dead by this."""
        return {
            gone.decode()
            for server in servers
            for gone in self.ring.run('gone', self.ring.shard_of(server), [int(_SUSPICION * 1000), server])
        }

    def forget(self, server):
        """Forget a dead server."""
        self._ask('forget', self.ring.shard_of(server), [server, _MARK_KEPT])

    def _on_other_shards(self, script, server, *args):
        for index in range(self.ring.size):
            if index != self.ring.shard_of(server):
                self._ask(script, index, [server, *args])

    def _ask(self, name, index, args):
        """Run a script; an empty list from a shard that is away, where that is no error."""
        try:
            return self.ring.run(name, index, args)
        except AWAY:
            if name not in ('dead', 'living', 'mark_dead') or (name == 'living' and self.ring.size == 1):
                raise
            return []
