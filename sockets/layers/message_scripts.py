"""Scripts for messages in Redis: frames of connections and the queues of all other channels.

scripts.py says what Redis holds; it adds ``now()`` and a deadline to each of these.
"""

from .admission_script import ADMIT, TAKEN

NAMES = 'put_frames', 'put', 'take'

# What they share. An entry is "<channel>|<expires, ms>|<payload>"; 0 expires never. wake() wakes so many workers.
WAKE = """
local function wake(prefix, channel, count)
    local list, ones = prefix .. 'bell:' .. channel, {}
    for _ = 1, math.min(count, 100) do ones[#ones + 1] = 1 end
    local waiting = redis.call('RPUSH', list, unpack(ones))
    if waiting == #ones then redis.call('EXPIRE', list, 60) end
    if waiting > 100 then redis.call('LTRIM', list, -100, -1) end
end
"""
# pcall: a Redis that is out of memory does not count, and does the rest.
HEAD = """
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
# finish() ends the claims of ARGV[first] to ARGV[last], connections and tokens by turns.
FINISH = (
    WAKE
    + HEAD
    + """
local function settle(prefix, connection, at)
    local channel = head(prefix .. 'frames:' .. connection, at)
    if channel then
        redis.call('RPUSH', prefix .. 'ready:' .. channel, connection)
        wake(prefix, channel, 1)
    end
end
local function release(prefix, connections, at)
    if #connections == 0 then return end
    redis.call('HDEL', prefix .. 'busy', unpack(connections))
    redis.call('ZREM', prefix .. 'leases', unpack(connections))
    local keys = {}
    for index, connection in ipairs(connections) do keys[index] = prefix .. 'frames:' .. connection end
    if redis.call('EXISTS', unpack(keys)) == 0 then return end
    for _, connection in ipairs(connections) do settle(prefix, connection, at) end
end
local function finish(prefix, first, last, at)
    if last < first then return end
    local names, done = {}, {}
    for index = first, last, 2 do names[#names + 1] = ARGV[index] end
    for index, token in ipairs(redis.call('HMGET', prefix .. 'busy', unpack(names))) do
        if token == ARGV[first + 2 * index - 1] then done[#done + 1] = names[index] end
    end
    release(prefix, done, at)
end
"""
)

# ARGV: prefix, seconds that the frames are kept, then of each frame: connection, channel, capacity (0: any number),
# milliseconds after which it expires (0: never), payload, payload of the disconnect that follows a refusal (or nothing).
# Returns of each frame 0, 1 if there is no room, 2 if its server is dead, or the seconds after which a connect may come
# again.
PUT_FRAMES = (
    WAKE
    + ADMIT
    + """
local prefix, kept, at, ready, replies = ARGV[1], ARGV[2], now(), {}, {}
local function put(connection, channel, capacity, milliseconds, payload, ending)
    local key = prefix .. 'frames:' .. connection
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
        local seconds = admit(prefix, at, tonumber(milliseconds))
        if seconds then return seconds end
    end
    local expires = milliseconds == '0' and '0' or string.format('%d', at + milliseconds)
    local waiting, refused = redis.call('RPUSH', key, channel .. '|' .. expires .. '|' .. payload), 0
    if tonumber(capacity) > 0 and waiting > tonumber(capacity) then
        redis.call('RPOP', key)
        if ending == '' then return 1 end
        refused, channel = 1, 'websocket.disconnect'
        redis.call('RPUSH', key, channel .. '|0|' .. ending)
    end
    redis.call('EXPIRE', key, kept)
    if waiting == 1 and redis.call('HEXISTS', prefix .. 'busy', connection) == 0 then
        if channel == 'websocket.receive' then
            ready[#ready + 1] = connection
        else
            redis.call('RPUSH', prefix .. 'ready:' .. channel, connection)
            wake(prefix, channel, 1)
        end
    end
    return refused
end
for index = 3, #ARGV, 6 do
    replies[#replies + 1] = put(
        ARGV[index], ARGV[index + 1], ARGV[index + 2], ARGV[index + 3], ARGV[index + 4], ARGV[index + 5]
    )
end
if #ready > 0 then
    redis.call('RPUSH', prefix .. 'ready:websocket.receive', unpack(ready))
    wake(prefix, 'websocket.receive', #ready)
end
return replies
"""
)

# ARGV: prefix, channel, capacity (0: any number), milliseconds after which it expires (0: never), payload, whether
# workers read it, milliseconds that a queue is kept with messages that never expire.
# A queue is kept for some minutes after that, so that what has expired is counted.
PUT = (
    WAKE
    + HEAD
    + """
local prefix, channel = ARGV[1], ARGV[2]
local key = prefix .. 'queue:' .. channel
local expires, kept = '0', tonumber(ARGV[7])
if ARGV[4] ~= '0' then expires, kept = string.format('%d', now() + ARGV[4]), ARGV[4] + 600000 end
local waiting = redis.call('RPUSH', key, channel .. '|' .. expires .. '|' .. ARGV[5])
if tonumber(ARGV[3]) > 0 and waiting > tonumber(ARGV[3]) then
    head(key, now())
    if redis.call('LLEN', key) > tonumber(ARGV[3]) then
        redis.call('RPOP', key)
        return 1
    end
end
-- Messages before it may expire later.
if waiting == 1 or redis.call('PTTL', key) < kept then redis.call('PEXPIRE', key, kept) end
if ARGV[6] == '1' then wake(prefix, channel, 1) end
return 0
"""
)

# Changes nothing, and fails if Redis is out of memory: better now than after a frame has been taken out.
CHECK_MEMORY = """
redis.call('SETRANGE', ARGV[1] .. 'room', 0, '')
"""

# ARGV: prefix, token of what is taken, lease in ms, frames to take at most, seconds that frames are kept, how many are
# done, connection and token of each of these, channels ...
# Returns entry and connection of each frame, or one entry of another queue, or nothing. It takes two thirds of what
# waits at most, and leaves the rest to other workers.
TAKE = (
    CHECK_MEMORY
    + FINISH
    + TAKEN
    + """
local prefix, token, at, wake_ups, is_dead = ARGV[1], ARGV[2], now(), {}, {}
local last = 6 + 2 * ARGV[6]
finish(prefix, 7, last, at)
release(prefix, redis.call('ZRANGEBYSCORE', prefix .. 'leases', 0, at, 'LIMIT', 0, 100), at)
local function found_dead(connection)
    local server = string.match(connection, '^.*!') or ''
    if is_dead[server] == nil then is_dead[server] = redis.call('EXISTS', prefix .. 'found_dead:' .. server) == 1 end
    return is_dead[server]
end
local function take(connection, channel)
    if redis.call('HSETNX', prefix .. 'busy', connection, token) == 0 then return nil end
    local key = prefix .. 'frames:' .. connection
    local entry = redis.call('LPOP', key)
    local first, expires = string.match(entry or '', '^([^|]*)|(%d+)|')
    if first == channel and (expires == '0' or tonumber(expires) > at) and
            not (channel == 'websocket.receive' and found_dead(connection)) then
        return entry
    end
    redis.call('HDEL', prefix .. 'busy', connection)
    if not entry then return nil end
    redis.call('LPUSH', key, entry)
    redis.call('EXPIRE', key, ARGV[5])
    first = head(key, at)
    while first == 'websocket.receive' and found_dead(connection) do
        redis.call('LPOP', key)
        first = head(key, at)
    end
    if first then settle(prefix, connection, at) end
    return nil
end
for index = last + 1, #ARGV do
    local channel = ARGV[index]
    local ready = prefix .. 'ready:' .. channel
    -- Only these channels have connections that wait.
    while string.sub(channel, 1, 10) == 'websocket.' do
        local most = channel == 'websocket.receive' and tonumber(ARGV[4]) or 1
        local connections, taken, leases = redis.call('LRANGE', ready, 0, math.floor(most * 3 / 2) - 1), {}, {}
        for _ = 1, math.floor(#connections / 3) do table.remove(connections) end
        while #connections > most do table.remove(connections) end
        if #connections == 0 then break end
        redis.call('LTRIM', ready, #connections, -1)
        for _, connection in ipairs(connections) do
            local entry = take(connection, channel)
            if entry then
                taken[#taken + 1], taken[#taken + 2] = entry, connection
                leases[#leases + 1], leases[#leases + 2] = at + ARGV[3], connection
            end
        end
        if #taken > 0 then
            redis.call('ZADD', prefix .. 'leases', unpack(leases))
            if channel == 'websocket.connect' then connect_taken(prefix, at) end
            return taken
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
