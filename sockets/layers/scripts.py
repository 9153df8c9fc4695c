"""What happens inside Redis: the scripts, each of which is one step and one round trip.

Redis holds, per shard, under the layer's prefix and the version:

- ``frames:<connection>``  a list of the frames of one connection that wait, oldest first
- ``queue:<channel>``      a list of the messages of any other channel; a server's sockets share one
- ``ready:<channel>``      a list of connections that wait for a worker, their first frame being of that channel
- ``connects``             how fast connects are taken, and how many were told to come back (hash; see admission.py)
- ``busy``, ``leases``     the claims: who handles a frame of which connection (hash), and until when (sorted set)
- ``closed:<connection>`` that it has been told to close: no frame of it is taken any more but its disconnect
- ``servers``, ``suspects`` until when a server's last heartbeat is good, and since when we wait for its next
- ``found_dead:<server>``  that it was found dead, on all shards: 1, and on its own 2 when its rows are gone. Removed
                           when the server has been told, or after a day
- ``known``                that Redis was given all servers which have rows: without it, Redis is new
- ``dropped``              how many messages were dropped by senders or have expired, by server or channel (hash)
- ``expired``              of those the ones that have yet to be reported (hash)
- ``tokens:<name>``        what is left of a rate that is counted for all processes, and when that was (hash)
- ``bell:<channel>``       wake-ups: a list that workers block on, for there may be something to take. Only a hint: one
                           that is lost with a worker costs a pause, not a frame
"""

import hashlib

from . import claim_scripts, message_scripts, rate_scripts, server_scripts

# Of the keys, of what is in them, and of the messages.
VERSION = 3

# The answers to a heartbeat: all is well; Redis does not know this server; it was found dead, and its rows are being
# removed; it was found dead, and they are gone.
FINE, UNKNOWN, DEAD, GONE = range(4)

# The last of ARGV is the time, in ms of Redis's own clock, after which the script must not begin: a Redis that hung
# runs what has waited in its buffers, though nobody waits for the replies any more.
_DEADLINE = """
local deadline = tonumber(table.remove(ARGV))
"""
# now() is the time of Redis in ms.
_IN_TIME = (
    _DEADLINE
    + """
local time = redis.call('TIME')
if time[1] * 1000 + time[2] / 1000 > deadline then return redis.error_reply('LATE Nobody waits for this any more') end
local function now() return time[1] * 1000 + math.floor(time[2] / 1000) end
"""
)

# Scripts that may run however late they come.
_WHENEVER = 'end', 'give_back', 'renew', 'close', 'alive', 'mark_dead', 'forget', 'note_dropped'
_AT_ANY_TIME = (
    _DEADLINE
    + """
local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""
)

# Name to digest and text.
SCRIPTS = {}
for _module in message_scripts, claim_scripts, server_scripts, rate_scripts:
    for _name in _module.NAMES:
        _text = (_AT_ANY_TIME if _name in _WHENEVER else _IN_TIME) + getattr(_module, _name.upper())
        SCRIPTS[_name] = hashlib.sha1(_text.encode()).hexdigest(), _text
