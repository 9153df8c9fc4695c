"""PostgreSQL finds messages of one stream without reading those of others."""

import json

from .. import servers as programs

# Of the pair of key and number, of the key of the row, and of messages without a number.
INDEXES = ('sockets_streammessage_key_offset_', 'sockets_streammessage_pkey', 'sockets_streammessage_unnumbered')


def test_no_query_reads_messages_of_other_streams():
    # With an index of all numbers, it found the next ones of a stream among those of all streams.
    with programs.postgres_server() as url:
        printed = programs.run_python('-m', 'tests.live.streams_plans', env={'TEST_DATABASE_URL': url})
    plans = [json.loads(line) for line in printed.splitlines()]
    assert {what.split()[0] for what, *_ in plans} == {'resume', 'history', 'clear', 'trim', 'number', 'housekeeper'}
    for what, sql, indexes, whole, removed in plans:
        assert not whole and indexes and all(index.startswith(INDEXES) for index in indexes), (
            what,
            sql,
            indexes,
            whole,
        )
        assert removed <= 10, (what, sql, indexes, removed)
