"""The project of ``soak_site``, with ``REPLICA_URL`` for what it reads."""

import os
from urllib.parse import urlsplit

from tests.live.soak_site import *  # noqa: F403
from tests.live.soak_site import DATABASES

DATABASES['replica'] = dict(DATABASES['default'], PORT=urlsplit(os.environ['REPLICA_URL']).port)
DATABASE_ROUTERS = ['tests.live.replica_site.FromReplica']


class FromReplica:
    """Reads from the replica, as in Django's documentation."""

    def db_for_read(self, model, **hints):
        return 'replica'

    def db_for_write(self, model, **hints):
        return 'default'

    def allow_migrate(self, db, app_label, **hints):
        return db == 'default'
