import threading
import time

import pytest
import redis
from asgiref import conformance

from sockets.layers import RedisChannelLayer

from . import servers


@pytest.fixture(scope='module')
def shards(tmp_path_factory, redis_url):
    """The URLs of three real Redis servers."""
    with servers.redis_server(tmp_path_factory.mktemp('redis-2')) as second:
        with servers.redis_server(tmp_path_factory.mktemp('redis-3')) as third:
            yield [redis_url, second, third]


class Conformance:
    expiry_delay = 1.1
    capacity_limit = 5
    receive_tries = 1
    options = {}
    hosts = slice(1)

    @pytest.fixture(autouse=True)
    def make_layer(self, shards):
        type(self).channel_layer = RedisChannelLayer(
            hosts=shards[self.hosts], expiry=1, group_expiry=2, capacity=5, server_capacity=5, **self.options)
        self.channel_layer.flush()


class OneHost(Conformance, conformance.ConformanceTestCase):
    pass


class OneHostEncrypted(Conformance, conformance.ConformanceTestCase):
    options = {'symmetric_encryption_keys': ['secret']}


class ThreeShards(Conformance, conformance.ConformanceTestCase):
    # Three shards hold three times as much of a channel that has no owner.
    hosts = slice(3)
    capacity_limit = None


class ThreeShardsEncrypted(ThreeShards):
    options = {'symmetric_encryption_keys': ['new', 'old']}
