"""What we take from asgi_redis: hosts, sharding, encryption and groups, with a time-out for each call."""

import asgi_redis
import msgpack
from django.core.exceptions import ImproperlyConfigured

from .shards import TIMEOUT, TIMEOUT_OF_SEVERAL


class RedisHosts(asgi_redis.RedisChannelLayer):
    """``asgi_redis.RedisChannelLayer``, each of whose calls to Redis ends after ``timeout`` seconds."""

    # asgi_redis refuses a socket_timeout that is shorter: it would end its blocking commands, of which we have none.
    blpop_timeout = 0

    def __init__(self, expiry, hosts, *args, timeout, **kwargs):
        if 'services' in kwargs:
            raise ImproperlyConfigured(
                "sockets.layers.RedisChannelLayer does not ask a Redis Sentinel ('services'). Name the Redis itself in "
                "'hosts', or take the BACKEND 'asgi_redis.RedisSentinelChannelLayer'."
            )
        if timeout is None:
            timeout = TIMEOUT_OF_SEVERAL if len(hosts or ()) > 1 else TIMEOUT
        kwargs['connection_kwargs'] = {'socket_timeout': timeout, **(kwargs.get('connection_kwargs') or {})}
        super().__init__(expiry, hosts, *args, **kwargs)

    @property
    def clients(self):
        """The clients of all Redis servers, in the order of ``hosts``."""
        return self._connection_list

    def deserialize(self, message):
        """Return the content of the byte string ``message``. Both msgpack 0.5 and 1.x understand this."""
        if self.crypter:
            message = self.crypter.decrypt(message)
        return msgpack.unpackb(message, raw=False)
