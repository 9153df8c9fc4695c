"""What happens inside Redis: the scripts, each of which is one step and one round trip.

Redis holds, per shard, under the layer's prefix and the version:

- ``frames:<connection>``  a list of the frames of one connection that wait, oldest first
- ``queue:<channel>``      a list of the messages of any other channel; a server's sockets share one
- ``ready:<channel>``      a list of connections that wait for a worker, their first frame being of that channel
- ``connects``             how fast connects are taken, and how many were told to come back (hash; see admission.py)
- ``busy``, ``leases``     who handles a frame of which connection (hash), and until when at most (sorted set)
- ``closed:<connection>`` that it has been told to close: no frame of it is taken any more but its disconnect
- ``servers``, ``suspects`` until when a server's last sign of life is good, and since when we wait for its next
- ``found_dead:<server>``  that it was found dead, on all shards: 1, and on its own 2 when its rows are gone. It goes when
                           the server has heard of it, or after a day
- ``known``                that somebody has told us of all servers which have rows: without it, Redis is new
- ``dropped``              how many messages senders gave up or have expired, by server or channel (hash)
- ``expired``              of those the ones that have yet to be told to somebody (hash)
- ``tokens:<name>``        what is left of a rate that is counted for all processes, and when that was (hash)
- ``bell:<channel>``       a list that workers block on: there may be something to take. Only a hint: a worker that
                           dies with it in its hand costs a pause, not a frame
"""
import hashlib

from . import admission

# Of the keys, of what is in them, and of the messages.
VERSION = 2

# What the scripts share. An entry is "<channel>|<expires, ms>|<payload>"; 0 expires never.
_NOW = """
local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""
_RING = """
local function ring(prefix, channel)
    local bell = prefix .. 'bell:' .. channel
    local rung = redis.call('LLEN', bell)
    if rung < 100 then redis.call('RPUSH', bell, 1) end
    if rung == 0 then redis.call('EXPIRE', bell, 60) end
end
"""
# pcall: a Redis without memory counts nothing, and does the rest.
_HEAD = """
local function head(key, at)
    while true do
        local entry = redis.call('LINDEX', key, 0)
        if not entry then return nil end
        local channel, expires = string.match(entry, '^([^|]*)|(%d+)|')
        if expires == '0' or tonumber(expires) > at then return channel, entry end
        redis.call('LPOP', key)
        -- Who wanted a connection is told by whoever holds it.
        if channel ~= 'websocket.connect' then
            local owner = string.match(string.sub(key, #ARGV[1] + 1), '^%a+:([^!]*!?)')
            redis.pcall('HINCRBY', ARGV[1] .. 'expired', owner, 1)
        end
    end
end
"""
_FINISH = _NOW + _RING + _HEAD + """
local function settle(prefix, connection, at)
    local channel = head(prefix .. 'frames:' .. connection, at)
    if channel then
        redis.call('RPUSH', prefix .. 'ready:' .. channel, connection)
        ring(prefix, channel)
    end
end
local function finish(prefix, connection, token, at)
    if redis.call('HGET', prefix .. 'busy', connection) == token then
        redis.call('HDEL', prefix .. 'busy', connection)
        redis.call('ZREM', prefix .. 'leases', connection)
        settle(prefix, connection, at)
    end
end
"""

# As in admission.py, in ms: whether a connect may be queued, or the seconds after which its client is to come back.
_ADMIT = """
local function admit(prefix, at, expiry)
    local key, ready = prefix .. 'connects', prefix .. 'ready:websocket.connect'
    local waiting, oldest = redis.call('LLEN', ready), 0
    if waiting == 0 then return nil end
    local known = redis.call('HMGET', key, 'gap', 'promised', 'at')
    local gap = tonumber(known[1] or {GAP})
    local first = redis.call('LINDEX', prefix .. 'frames:' .. redis.call('LINDEX', ready, 0), 0)
    if first then oldest = at + expiry - tonumber(string.match(first, '^[^|]*|(%d+)|')) end
    if waiting * gap <= {BUDGET} and waiting < {LONGEST_QUEUE} and oldest <= {BUDGET} then return nil end
    local each = gap / {HASTE}
    local promised = math.max(0, tonumber(known[2] or 0) - (at - tonumber(known[3] or 0)) / each) + 1
    redis.call('HMSET', key, 'promised', promised, 'at', at)
    redis.call('EXPIRE', key, {GOOD_FOR})
    local wait = waiting * gap + promised * each - {LEAD}
    if wait > {NEAR} then wait = {NEAR} + (wait - {NEAR}) * {FAR} end
    if not known[1] then
        wait = {EARLIEST} + promised * 0.618 % 1 * {BUDGET}
    elseif wait > {LATEST} then
        wait = {LATEST} / 2 + promised * 1000 % ({LATEST} / 2)
    end
    return string.format('%.1f', math.max(wait, oldest > {BUDGET} and {EARLIEST} or 100) / 1000)
end
"""
_TAKEN = """
local function connect_taken(prefix, at)
    local key = prefix .. 'connects'
    local known = redis.call('HMGET', key, 'gap', 'taken', 'samples')
    if known[2] then
        local gap, samples = tonumber(known[1] or {GAP}), tonumber(known[3] or {ASSUMED})
        local took = math.min(at - tonumber(known[2]), gap * math.max(samples * {PART}, {MOST}))
        samples = math.min(samples + 1, {MEASURED})
        gap = math.max(gap + (took - gap) / samples, {LEAST_GAP})
        redis.call('HMSET', key, 'gap', gap, 'samples', samples)
        redis.call('EXPIRE', key, {GOOD_FOR})
    end
    if redis.call('LLEN', prefix .. 'ready:websocket.connect') == 0 then
        redis.call('HDEL', key, 'taken')
    else
        redis.call('HSET', key, 'taken', at)
    end
end
"""
for _name in ('GAP', 'LEAST_GAP', 'BUDGET', 'LEAD', 'NEAR', 'EARLIEST', 'LATEST'):
    _value = '{:.1f}'.format(1000 * getattr(admission, _name))
    _ADMIT, _TAKEN = (text.replace('{%s}' % _name, _value) for text in (_ADMIT, _TAKEN))
for _name in ('LONGEST_QUEUE', 'HASTE', 'GOOD_FOR', 'ASSUMED', 'MEASURED', 'MOST', 'PART', 'FAR'):
    _ADMIT, _TAKEN = (text.replace('{%s}' % _name, str(getattr(admission, _name))) for text in (_ADMIT, _TAKEN))

# ARGV: prefix, connection, channel, capacity (0: any number), milliseconds it is worth something (0: forever), payload,
# payload of the disconnect that follows a refusal (or nothing), seconds that a mailbox is kept.
# Returns 1 if there is no room, 2 if its server is dead, or the seconds after which a connect may come again.
_PUT_FRAME = _NOW + _RING + _ADMIT + """
local prefix, connection, channel = ARGV[1], ARGV[2], ARGV[3]
local key, at = prefix .. 'frames:' .. connection, now()
local closed = prefix .. 'closed:' .. connection
local found_dead = prefix .. 'found_dead:' .. (string.match(connection, '^.*!') or '')
if channel ~= 'websocket.disconnect' and redis.call('EXISTS', closed, found_dead) > 0 then
    if redis.call('EXISTS', found_dead) == 1 then return 2 end
    if channel == 'websocket.receive' then return 0 end
end
if channel == 'websocket.disconnect' then
    redis.call('DEL', closed)
    local first = redis.call('LINDEX', key, 0)
    if first and string.sub(first, 1, 18) == 'websocket.connect|' then
        -- Nobody has heard of it yet.
        redis.call('DEL', key)
        redis.call('LREM', prefix .. 'ready:websocket.connect', 1, connection)
        return 0
    end
elseif channel == 'websocket.connect' then
    local seconds = admit(prefix, at, tonumber(ARGV[5]))
    if seconds then return seconds end
end
local waiting, refused = redis.call('LLEN', key), 0
local entry
if tonumber(ARGV[4]) > 0 and waiting >= tonumber(ARGV[4]) then
    if ARGV[7] == '' then return 1 end
    refused, channel = 1, 'websocket.disconnect'
    entry = channel .. '|0|' .. ARGV[7]
else
    local expires = ARGV[5] == '0' and '0' or string.format('%d', at + ARGV[5])
    entry = channel .. '|' .. expires .. '|' .. ARGV[6]
end
redis.call('RPUSH', key, entry)
redis.call('EXPIRE', key, ARGV[8])
if waiting == 0 and redis.call('HEXISTS', prefix .. 'busy', connection) == 0 then
    redis.call('RPUSH', prefix .. 'ready:' .. channel, connection)
    ring(prefix, channel)
end
return refused
"""

# ARGV: prefix, channel, capacity (0: any number), milliseconds it is worth something (0: forever), payload, whether
# workers read it, milliseconds that a mailbox with something that is worth something forever is kept.
# What has expired is kept for some minutes, for somebody to count.
_PUT = _NOW + _RING + _HEAD + """
local prefix, channel = ARGV[1], ARGV[2]
local key = prefix .. 'queue:' .. channel
if tonumber(ARGV[3]) > 0 and redis.call('LLEN', key) >= tonumber(ARGV[3]) and
        (not head(key, now()) or redis.call('LLEN', key) >= tonumber(ARGV[3])) then
    return 1
end
local expires, kept = '0', tonumber(ARGV[7])
if ARGV[4] ~= '0' then expires, kept = string.format('%d', now() + ARGV[4]), ARGV[4] + 600000 end
local waiting = redis.call('RPUSH', key, channel .. '|' .. expires .. '|' .. ARGV[5])
-- What came before may be worth something for longer.
if waiting == 1 or redis.call('PTTL', key) < kept then redis.call('PEXPIRE', key, kept) end
if ARGV[6] == '1' then ring(prefix, channel) end
return 0
"""

# Changes nothing, and fails where Redis has no memory: better before a frame has been taken out than half way through.
_ROOM = """
redis.call('SETRANGE', ARGV[1] .. 'room', 0, '')
"""

# ARGV: prefix, connection and token of the frame that is done, token of the next one, lease in ms, channels ...
_TAKE = _ROOM + _FINISH + _TAKEN + """
local prefix, at, bells = ARGV[1], now(), {}
if ARGV[2] ~= '' then finish(prefix, ARGV[2], ARGV[3], at) end
for _, connection in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'leases', 0, at, 'LIMIT', 0, 100)) do
    finish(prefix, connection, redis.call('HGET', prefix .. 'busy', connection), at)
end
for index = 6, #ARGV do
    local channel = ARGV[index]
    -- Nothing else has connections that wait.
    while string.sub(channel, 1, 10) == 'websocket.' do
        local connection = redis.call('LPOP', prefix .. 'ready:' .. channel)
        if not connection then break end
        if redis.call('HEXISTS', prefix .. 'busy', connection) == 0 then
            local key = prefix .. 'frames:' .. connection
            local first, entry = head(key, at)
            while first == 'websocket.receive' and first == channel and
                    redis.call('EXISTS', prefix .. 'found_dead:' .. (string.match(connection, '^.*!') or '')) == 1 do
                redis.call('LPOP', key)
                first, entry = head(key, at)
            end
            if first == channel then
                redis.call('LPOP', key)
                redis.call('HSET', prefix .. 'busy', connection, ARGV[4])
                redis.call('ZADD', prefix .. 'leases', at + ARGV[5], connection)
                if channel == 'websocket.connect' then connect_taken(prefix, at) end
                return {entry, connection}
            elseif first then
                settle(prefix, connection, at)
            end
        end
    end
    local _, entry = head(prefix .. 'queue:' .. channel, at)
    if entry then
        redis.call('LPOP', prefix .. 'queue:' .. channel)
        return {entry}
    end
    bells[#bells + 1] = prefix .. 'bell:' .. channel
end
if #bells > 0 then redis.call('DEL', unpack(bells)) end
return {}
"""

# ARGV: prefix, connection, token.
_END = _ROOM + _FINISH + "finish(ARGV[1], ARGV[2], ARGV[3], now())"

# ARGV: prefix, connections ...
_AT_REST = _NOW + _HEAD + """
local prefix, at, found = ARGV[1], now(), {}
for index = 2, #ARGV do
    local name = ARGV[index]
    if redis.call('HEXISTS', prefix .. 'busy', name) == 0 and not head(prefix .. 'frames:' .. name, at) then
        found[#found + 1] = name
    end
end
return found
"""

# ARGV: prefix, lease in ms, then connection and token of each frame that is being handled.
_RENEW = _NOW + """
for index = 3, #ARGV, 2 do
    if redis.call('HGET', ARGV[1] .. 'busy', ARGV[index]) == ARGV[index + 1] then
        redis.call('ZADD', ARGV[1] .. 'leases', now() + ARGV[2], ARGV[index])
    end
end
"""

# ARGV: prefix, seconds that it is remembered, connections ...
_CLOSE = """
for index = 3, #ARGV do
    local key = ARGV[1] .. 'frames:' .. ARGV[index]
    redis.call('SET', ARGV[1] .. 'closed:' .. ARGV[index], 1, 'EX', ARGV[2])
    local entries = redis.call('LRANGE', key, 0, -1)
    if #entries > 0 then
        local ttl = redis.call('TTL', key)
        redis.call('DEL', key)
        for _, entry in ipairs(entries) do
            if string.match(entry, '^([^|]*)|') ~= 'websocket.receive' then redis.call('RPUSH', key, entry) end
        end
        if ttl > 0 then redis.call('EXPIRE', key, ttl) end
    end
end
"""

# ARGV: prefix, lease in ms, server. Returns one of FINE ...
_ALIVE = _NOW + """
local servers, at = ARGV[1] .. 'servers', now()
local found_dead = redis.call('GET', ARGV[1] .. 'found_dead:' .. ARGV[3])
if found_dead then return found_dead == '1' and 2 or 3 end
local is_new = redis.call('ZADD', servers, at + ARGV[2], ARGV[3])
redis.call('ZREM', ARGV[1] .. 'suspects', ARGV[3])
redis.call('ZREMRANGEBYSCORE', servers, 0, at - 86400000)
redis.call('ZREMRANGEBYSCORE', ARGV[1] .. 'suspects', 0, at - 86400000)
return is_new
"""

# ARGV: prefix, ms of suspicion, ms of grace, seconds that a dead server may take to hear of it, 1 if all servers that
# have rows follow, these servers ... Returns whether this Redis is new, and the dead.
_DEAD = _NOW + """
local servers, suspects, at, dead = ARGV[1] .. 'servers', ARGV[1] .. 'suspects', now(), {}
for _, server in ipairs(redis.call('ZRANGEBYSCORE', servers, 0, at)) do
    local since = redis.call('ZSCORE', suspects, server)
    if not since then
        redis.call('ZADD', suspects, at, server)
    elseif at - since >= tonumber(ARGV[2]) then
        dead[#dead + 1] = server
        redis.call('SET', ARGV[1] .. 'found_dead:' .. server, 1, 'EX', ARGV[4])
    end
end
for index = 6, #ARGV do
    if not redis.call('ZSCORE', servers, ARGV[index]) then redis.call('ZADD', servers, at + ARGV[3], ARGV[index]) end
end
if ARGV[5] == '1' then redis.call('SET', ARGV[1] .. 'known', 1) end
return {1 - redis.call('EXISTS', ARGV[1] .. 'known'), unpack(dead)}
"""

# What a sign of life is answered: all is well; Redis has never heard of this server; it was found dead, and its rows
# are being removed; it was found dead, and they are gone.
FINE, UNKNOWN, DEAD, GONE = range(4)

# ARGV: prefix, server, seconds that it may take to hear of it. For the other shards.
_MARK_DEAD = "redis.call('SET', ARGV[1] .. 'found_dead:' .. ARGV[2], 1, 'EX', ARGV[3])"

# ARGV: prefix, server.
_UNMARK_DEAD = "redis.call('DEL', ARGV[1] .. 'found_dead:' .. ARGV[2])"

# ARGV: prefix, connections ... Returns those of which no frame waits or is being handled.
_IDLE = """
local idle = {}
for index = 2, #ARGV do
    local waits = redis.call('EXISTS', ARGV[1] .. 'frames:' .. ARGV[index])
    if waits + redis.call('HEXISTS', ARGV[1] .. 'busy', ARGV[index]) == 0 then idle[#idle + 1] = ARGV[index] end
end
return idle
"""

# ARGV: prefix.
_LIVING = _NOW + "return redis.call('ZRANGEBYSCORE', ARGV[1] .. 'servers', now(), '+inf')"

# ARGV: prefix, ms of suspicion, servers ... Returns those that are dead, whether or not somebody has found them so.
_GONE = _NOW + """
local gone, at = {}, now()
for index = 3, #ARGV do
    local until_then = redis.call('ZSCORE', ARGV[1] .. 'servers', ARGV[index])
    if redis.call('EXISTS', ARGV[1] .. 'found_dead:' .. ARGV[index]) == 1 or
            until_then and at - until_then >= tonumber(ARGV[2]) then
        gone[#gone + 1] = ARGV[index]
    end
end
return gone
"""

# ARGV: prefix, server, seconds that it may take to hear of it.
_FORGET = """
local found_dead = ARGV[1] .. 'found_dead:' .. ARGV[2]
-- It may have heard of it, and live again, since somebody found it dead.
if redis.call('EXISTS', found_dead) == 0 then return end
redis.call('SET', found_dead, 2, 'EX', ARGV[3])
redis.call('ZREM', ARGV[1] .. 'servers', ARGV[2])
redis.call('ZREM', ARGV[1] .. 'suspects', ARGV[2])
-- What waits for it is kept a little, for one that is not dead: there may be answers to pages.
local queue = ARGV[1] .. 'queue:' .. ARGV[2]
if redis.call('TTL', queue) > 60 then redis.call('EXPIRE', queue, 60) end
"""

# ARGV: prefix, then a server and how many messages it did not take, and so on.
_NOTE_DROPPED = """
for index = 2, #ARGV, 2 do redis.call('HINCRBY', ARGV[1] .. 'dropped', ARGV[index], ARGV[index + 1]) end
redis.call('EXPIRE', ARGV[1] .. 'dropped', 86400)
"""

# ARGV: prefix. Whoever asks is told of what has expired, and nobody else is.
_TELL_EXPIRED = """
local expired = redis.call('HGETALL', ARGV[1] .. 'expired')
if #expired == 0 then return expired end
redis.call('DEL', ARGV[1] .. 'expired')
for index = 1, #expired, 2 do redis.call('HINCRBY', ARGV[1] .. 'dropped', expired[index], expired[index + 1]) end
redis.call('EXPIRE', ARGV[1] .. 'dropped', 86400)
return expired
"""

# ARGV: prefix, name, tokens that it gets in a ms, tokens that it holds. Returns the seconds until there is a token, 0 if it
# was taken.
_TAKE_TOKEN = _NOW + """
local key, at, rate, burst = ARGV[1] .. 'tokens:' .. ARGV[2], now(), tonumber(ARGV[3]), tonumber(ARGV[4])
local known, wait = redis.call('HMGET', key, 'left', 'at'), 0
local counted = tonumber(known[2] or at)
at = math.max(at, counted)
local left = math.min(burst, tonumber(known[1] or burst) + (at - counted) * rate)
if left >= 1 - 1e-6 then left = left - 1 else wait = (1 - left) / rate / 1000 end
redis.call('HMSET', key, 'left', string.format('%.17g', left), 'at', at)
redis.call('PEXPIRE', key, math.min(math.ceil((burst - left) / rate) + 1, 1e12))
return string.format('%.6f', wait)
"""

# The last of ARGV is until when the script may begin, in ms of Redis's own clock: a Redis that hung executes what has
# waited in its buffers, and nobody waits for it any more.
_DEADLINE = """
local deadline = tonumber(table.remove(ARGV))
"""
_IN_TIME = _DEADLINE + """
local time = redis.call('TIME')
if time[1] * 1000 + time[2] / 1000 > deadline then return redis.error_reply('LATE Nobody waits for this any more') end
"""

# What is true and may be noted whenever it comes.
_WHENEVER = 'end', 'renew', 'close', 'alive', 'mark_dead', 'forget', 'note_dropped'

# Name to digest and text.
SCRIPTS = {name: (_DEADLINE if name in _WHENEVER else _IN_TIME) + text for name, text in (
    ('put_frame', _PUT_FRAME), ('put', _PUT), ('take', _TAKE), ('end', _END), ('renew', _RENEW), ('close', _CLOSE),
    ('at_rest', _AT_REST), ('idle', _IDLE), ('alive', _ALIVE), ('dead', _DEAD), ('mark_dead', _MARK_DEAD),
    ('unmark_dead', _UNMARK_DEAD), ('living', _LIVING), ('gone', _GONE), ('forget', _FORGET),
    ('note_dropped', _NOTE_DROPPED), ('tell_expired', _TELL_EXPIRED), ('take_token', _TAKE_TOKEN))}
SCRIPTS = {name: (hashlib.sha1(text.encode()).hexdigest(), text) for name, text in SCRIPTS.items()}
