"""Scripts for messages in Redis: frames of connections and the queues of all other channels.

scripts.py says what Redis holds; it adds ``now()`` and a deadline to each of these.
"""

from .admission_script import ADMIT, TAKEN

NAMES = 'put_frame', 'put', 'take', 'end', 'drained', 'idle', 'renew', 'close'

# What they share. An entry is "<channel>|<expires, ms>|<payload>"; 0 expires never. wake() wakes a worker.
_WAKE = """
local function wake(prefix, channel)
    local list = prefix .. 'bell:' .. channel
    local waiting = redis.call('LLEN', list)
    if waiting < 100 then redis.call('RPUSH', list, 1) end
    if waiting == 0 then redis.call('EXPIRE', list, 60) end
end
"""
# pcall: a Redis that is out of memory does not count, and does the rest.
_HEAD = """
local function head(key, at)
    while true do
        local entry = redis.call('LINDEX', key, 0)
        if not entry then return nil end
        local channel, expires = string.match(entry, '^([^|]*)|(%d+)|')
        if expires == '0' or tonumber(expires) > at then return channel, entry end
        redis.call('LPOP', key)
        -- The server that holds the client tells it.
        if channel ~= 'websocket.connect' then
            local owner = string.match(string.sub(key, #ARGV[1] + 1), '^%a+:([^!]*!?)')
            redis.pcall('HINCRBY', ARGV[1] .. 'expired', owner, 1)
        end
    end
end
"""
_FINISH = (
    _WAKE
    + _HEAD
    + """
local function settle(prefix, connection, at)
    local channel = head(prefix .. 'frames:' .. connection, at)
    if channel then
        redis.call('RPUSH', prefix .. 'ready:' .. channel, connection)
        wake(prefix, channel)
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
)

# ARGV: prefix, connection, channel, capacity (0: any number), milliseconds after which it expires (0: never), payload,
# payload of the disconnect that follows a refusal (or nothing), seconds that the frames are kept.
# Returns 1 if there is no room, 2 if its server is dead, or the seconds after which a connect may come again.
PUT_FRAME = (
    _WAKE
    + ADMIT
    + """
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
        -- No worker has taken its connect.
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
    wake(prefix, channel)
end
return refused
"""
)

# ARGV: prefix, channel, capacity (0: any number), milliseconds after which it expires (0: never), payload, whether
# workers read it, milliseconds that a queue is kept with messages that never expire.
# A queue is kept for some minutes after that, so that what has expired is counted.
PUT = (
    _WAKE
    + _HEAD
    + """
local prefix, channel = ARGV[1], ARGV[2]
local key = prefix .. 'queue:' .. channel
if tonumber(ARGV[3]) > 0 and redis.call('LLEN', key) >= tonumber(ARGV[3]) and
        (not head(key, now()) or redis.call('LLEN', key) >= tonumber(ARGV[3])) then
    return 1
end
local expires, kept = '0', tonumber(ARGV[7])
if ARGV[4] ~= '0' then expires, kept = string.format('%d', now() + ARGV[4]), ARGV[4] + 600000 end
local waiting = redis.call('RPUSH', key, channel .. '|' .. expires .. '|' .. ARGV[5])
-- Messages before it may expire later.
if waiting == 1 or redis.call('PTTL', key) < kept then redis.call('PEXPIRE', key, kept) end
if ARGV[6] == '1' then wake(prefix, channel) end
return 0
"""
)

# Changes nothing, and fails if Redis is out of memory: better now than after a frame has been taken out.
_CHECK_MEMORY = """
redis.call('SETRANGE', ARGV[1] .. 'room', 0, '')
"""

# ARGV: prefix, connection and token of the frame that is done, token of the next one, lease in ms, channels ...
TAKE = (
    _CHECK_MEMORY
    + _FINISH
    + TAKEN
    + """
local prefix, at, wake_ups = ARGV[1], now(), {}
if ARGV[2] ~= '' then finish(prefix, ARGV[2], ARGV[3], at) end
for _, connection in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'leases', 0, at, 'LIMIT', 0, 100)) do
    finish(prefix, connection, redis.call('HGET', prefix .. 'busy', connection), at)
end
for index = 6, #ARGV do
    local channel = ARGV[index]
    -- Only these channels have connections that wait.
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
    wake_ups[#wake_ups + 1] = prefix .. 'bell:' .. channel
end
if #wake_ups > 0 then redis.call('DEL', unpack(wake_ups)) end
return {}
"""
)

# ARGV: prefix, connection, token.
END = _CHECK_MEMORY + _FINISH + 'finish(ARGV[1], ARGV[2], ARGV[3], now())'

# ARGV: prefix, connections ... Returns those of which no frame waits or is being handled, expired ones left out.
DRAINED = (
    _HEAD
    + """
local prefix, at, found = ARGV[1], now(), {}
for index = 2, #ARGV do
    local name = ARGV[index]
    if redis.call('HEXISTS', prefix .. 'busy', name) == 0 and not head(prefix .. 'frames:' .. name, at) then
        found[#found + 1] = name
    end
end
return found
"""
)

# ARGV: prefix, connections ... Returns those of which no frame waits or is being handled.
IDLE = """
local idle = {}
for index = 2, #ARGV do
    local waits = redis.call('EXISTS', ARGV[1] .. 'frames:' .. ARGV[index])
    if waits + redis.call('HEXISTS', ARGV[1] .. 'busy', ARGV[index]) == 0 then idle[#idle + 1] = ARGV[index] end
end
return idle
"""

# ARGV: prefix, lease in ms, then connection and token of each frame that is being handled.
RENEW = """
for index = 3, #ARGV, 2 do
    if redis.call('HGET', ARGV[1] .. 'busy', ARGV[index]) == ARGV[index + 1] then
        redis.call('ZADD', ARGV[1] .. 'leases', now() + ARGV[2], ARGV[index])
    end
end
"""

# ARGV: prefix, seconds that it is remembered, connections ...
CLOSE = """
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
