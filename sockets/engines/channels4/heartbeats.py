"""Which servers are alive: heartbeats in a table of the database, and what each process sees of those of the others."""

import logging
import math
import threading
import time
from functools import partial

from django.db import connections

from ...execution import thread_state
from ...models import Server, Socket

logger = logging.getLogger('sockets')

# Seconds between two rounds. A server is dead that has not beaten in four rounds of ours: with the one in which we saw its
# last beat, that is less than five seconds.
INTERVAL = 0.95
ROUNDS = 4

# Rounds after which a server is dead of which there are rows and no heartbeat.
ROUNDS_OF_GRACE = 11

# Seconds from one round to the next after which we were not at work, and nobody is judged by what was before.
INTERRUPTION = 2.5


# With the seconds in which this machine was suspended.
uptime = partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, 'CLOCK_BOOTTIME') else time.time


class Account:
    """What this process has seen of all servers, counted in rounds: no clocks are compared.

    A round is a look at the numbers of all servers. A process that has a server has committed a beat of its own before:
    while the database is away nobody is judged, and when it is back, everybody has as long as this process.
    """

    def __init__(self):
        self.rounds = 0
        # Whether there was one since this began, or began anew.
        self.has_looked = False
        # Of each server that lives: its number, and the round in which that was new.
        self.seen = {}
        # Which of these have beaten since we look.
        self.moving = set()
        # Servers of which there are rows and no heartbeat, and since which round that is known.
        self.unheard = {}
        self.dead = set()

    def restart(self):
        """Judge nobody by what was before."""
        self.seen = {name: (number, self.rounds) for name, (number, _) in self.seen.items()}
        self.unheard = dict.fromkeys(self.unheard, self.rounds)
        self.moving.clear()
        self.has_looked = False

    def expect(self, servers):
        """Note that there are rows of ``servers``."""
        for name in set(servers).difference(self.seen, self.dead):
            self.unheard.setdefault(name, self.rounds)

    def take(self, numbers):
        """Take a look at ``numbers``, those of all servers by their names; return those that are silent for too long, as
        such a dict, with ``None`` for one that was never heard.
        """
        self.rounds += 1
        self.has_looked = True
        self.dead = {name for name, number in numbers.items() if number is None}
        self.unheard = {name: since for name, since in self.unheard.items() if name not in numbers}
        before, self.seen = self.seen, {}
        for name in numbers.keys() - self.dead:
            number, since = before.get(name, (None, None))
            if number is not None and number != numbers[name]:
                self.moving.add(name)
            self.seen[name] = (number, since) if number == numbers[name] else (numbers[name], self.rounds)
        self.moving.intersection_update(self.seen)
        silent = {name: number for name, (number, since) in self.seen.items() if self.rounds - since >= ROUNDS}
        silent.update((name, None) for name, since in self.unheard.items() if self.rounds - since >= ROUNDS_OF_GRACE)
        return silent

    def note_dead(self, server):
        """Note that ``server`` has been found dead."""
        self.seen.pop(server, None)
        self.unheard.pop(server, None)
        self.moving.discard(server)
        self.dead.add(server)

    def is_decided(self):
        """Whether it is known of each server whether it lives."""
        return self.has_looked and not self.unheard and self.moving.issuperset(self.seen)


class Heartbeats:
    """The heartbeats of the servers of this process, and its look at the others.

    One thread beats and looks. In a process without a server, it runs while somebody asks and there is anything to find out.
    """

    def __init__(self):
        self.account = Account()
        # What is called when a server of ours was found dead.
        self._held = {}
        # Those that have no row yet.
        self._new = set()
        # When the last round began, and when this process was last known to be at work.
        self._last = None
        self._at_work = math.inf
        self._is_in_trouble = False
        self._thread = None
        # Of all above, and for those who wait for the next round.
        self._round_done = threading.Condition(threading.RLock())
        self._questions = self._answer = None

    # For servers.

    def hold(self, server, on_lost):
        """Have ``server`` beat from now on. ``on_lost(server)`` is called, and it beats no more, when others have found it
        dead: its rows are gone or going, and its connections are to be closed.
        """
        with self._round_done:
            self._held[server] = on_lost
            self._new.add(server)
            if _is_seen_by_threads():
                self._at_work = uptime()
                self._start()

    def release(self, server):
        """Have ``server`` beat no more. If it has left rows of connections, others remove these at once."""
        with self._round_done:
            is_new = server in self._new
            self._new.discard(server)
            if self._held.pop(server, None) is None or is_new:
                return
        row = _servers().filter(name=server)
        if Socket.objects.on_primary().filter(server=server).exists():
            row.update(beats=None)
        else:
            row.delete()

    def may_serve(self):
        """Whether this process was at work all the time, as far as is known: nobody can have found its servers dead without
        their knowing. Asked for each frame. If not, that will be known in a moment, or when the database answers.
        """
        return uptime() - self._at_work < (ROUNDS - 0.5) * INTERVAL

    # What the engine is asked.

    def dead_servers(self, servers=None):
        """Return all servers that were found dead. ``servers`` are those that have rows."""
        with self._round_done:
            if servers is not None:
                self.account.expect(set(servers).difference(self._held))
            if not self._held and _is_seen_by_threads():
                self._start()
            return sorted(self.account.dead)

    def live_servers(self, servers):
        """Return all servers that live. A process without a server has to look for some seconds."""
        if not self._held and not _is_seen_by_threads():
            return sorted(_servers().exclude(beats=None).values_list('name', flat=True))
        self.watch_servers()
        with self._round_done:
            return sorted(self.account.seen)

    def watch_servers(self, servers=None):
        """Look, in a process without a server, until it is known which live, ``servers``, which have rows, among them."""
        self.dead_servers(servers)
        rounds = ROUNDS_OF_GRACE + 2
        with self._round_done:
            while self._thread is not None and not self._held and not self.account.is_decided() and rounds:
                self._round_done.wait(2 * INTERVAL)
                rounds -= 1

    def has_forgotten(self):
        """Return whether there are rows of servers that have yet to be heard or found dead."""
        return bool(self.account.unheard)

    def forget_server(self, server):
        """Forget a dead server, of which no row is left."""
        with self._round_done:
            self.account.dead.discard(server)
        _servers().filter(name=server, beats=None).delete()

    def next_look(self, questions):
        """Wait for the next round and return which of ``questions()`` find something; ``None`` if it failed, or if there
        are no rounds here.
        """
        with self._round_done:
            if not self._held or self._thread is None:
                return None
            self._questions, self._answer = questions, None
            self._round_done.wait_for(lambda: self._answer and self._answer[0] == questions, 3 * INTERVAL)
            return self._answer[1] if self._answer else None

    # What the thread does.

    def round(self):
        """Beat, look at the others, and find dead who has been silent."""
        now, questions, found = uptime(), self._questions, None
        try:
            if self._last is not None and now - self._last > INTERRUPTION:
                self._restart()
            self._last = now
            self._beat()
            found, numbers = _servers().look({} if questions is None else questions())
            with self._round_done:
                silent = self.account.take(numbers)
            for server, number in silent.items():
                if server not in self._held and _find_dead(server, number):
                    with self._round_done:
                        self.account.note_dead(server)
                    logger.warning('The server %s is gone: it has sent no heartbeat for %d s', server, ROUNDS)
            self._at_work = now
        except Exception:
            self._restart()
            # Whatever the database was told: it has answered.
            self._at_work = uptime()
            raise
        finally:
            with self._round_done:
                self._answer = questions, found
                self._round_done.notify_all()

    def _restart(self):
        with self._round_done:
            self.account.restart()

    def _beat(self):
        for server, on_lost in list(self._held.items()):
            if server in self._new:
                _servers().get_or_create(name=server)
                self._new.discard(server)
            elif not _servers().beat(server) and self._held.pop(server, None) is not None:
                logger.error(
                    'This server, %s, was found dead, because it did not beat for %d s: its connections are closed '
                    'with 1012',
                    server,
                    ROUNDS,
                )
                self._restart()
                on_lost(server)

    def _start(self):
        if self._thread is None or not self._thread.is_alive():
            self.account.restart()
            self._thread = threading.Thread(target=self._run, name='sockets-heartbeats', daemon=True)
            self._thread.start()

    def _run(self):
        while True:
            began = time.monotonic()
            try:
                thread_state.close_stale()
                self.round()
                self._is_in_trouble = False
            except Exception as error:
                # Said once: the database is away, and everybody else says so, too.
                if not self._is_in_trouble:
                    logger.error('Heartbeats wait: %s: %s', type(error).__name__, error)
                self._is_in_trouble = True
                connections.close_all()
            with self._round_done:
                if not self._held and (self._is_in_trouble or self.account.is_decided()):
                    self._thread = None
                    self._round_done.notify_all()
                    break
            # Never two in a shorter time: to catch up would be to be impatient.
            time.sleep(max(INTERVAL / 2, INTERVAL - (time.monotonic() - began)))
        connections.close_all()


def _servers():
    return Server.objects.using(Socket.objects.on_primary().db)


def _find_dead(server, number):
    """Note that ``server`` is dead if it has not beaten in the meantime; return whether that was so."""
    if number is not None:
        return bool(_servers().filter(name=server, beats=number).update(beats=None))
    row, _ = _servers().get_or_create(name=server, defaults={'beats': None})
    return row.beats is None


def _is_seen_by_threads():
    """Whether another thread sees what this one does: not in a transaction, nor a database in memory."""
    database = connections[_servers().db]
    return not (database.in_atomic_block or database.vendor == 'sqlite' and database.is_in_memory_db())


heartbeats = Heartbeats()
