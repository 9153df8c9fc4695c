"""Which server processes are alive: the heartbeats of those that no channel layer keeps account of."""

from typing import Any, Dict, Optional, Set, Tuple

from django.db import models
from django.db.models import F, Value

# What the rows of connections say in ``layer`` whose servers have heartbeats here. No layer of Channels 1 has this name.
HEARTBEATS = 'heartbeats'


class ServerQuerySet(models.QuerySet):
    """Servers, and what is asked every second."""

    def beat(self, server: str) -> bool:
        """Increase the number of ``server``; return whether that was done: not if it has been found dead."""
        return bool(self.filter(name=server, beats__isnull=False).update(beats=F('beats') + 1))

    def look(self, questions: Dict[str, Any]) -> Tuple[Set[str], Dict[str, Optional[int]]]:
        """Return which of ``questions``, querysets by name, find a row, and the beats of all servers by their names.

        One query: every process asks this every second.
        """
        texts, numbers = models.CharField(max_length=100), models.BigIntegerField(null=True)
        # All columns are annotations: of others, each Django orders those of a union in its own way.
        looks = [
            rows.order_by().annotate(
                _about=Value(about, output_field=texts),
                _server=Value('', output_field=texts),
                _beats=Value(0, output_field=numbers),
            )
            for about, rows in questions.items()
        ]
        servers = self.order_by().annotate(_about=Value('', output_field=texts), _server=F('name'), _beats=F('beats'))
        servers, *looks = [rows.values_list('_about', '_server', '_beats') for rows in (servers, *looks)]
        found, beats = set(), {}
        for about, server, number in servers.union(*looks) if looks else servers:
            if about:
                found.add(about)
            else:
                beats[server] = number
        return found, beats


class Server(models.Model):
    """One process that holds connections, for as long as it does."""

    # What the names of its connections begin with.
    name = models.CharField(max_length=100, primary_key=True)
    # Increased about once a second. None once it has been found dead: it stops beating when it sees that.
    beats = models.BigIntegerField(default=0, null=True)

    objects = ServerQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name
