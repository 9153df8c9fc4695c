"""Scripts for frames that a worker has taken, and for connections whose frames nobody is to take any more.

scripts.py says what Redis holds; it adds ``now()`` and a deadline to each of these.
"""

from .message_scripts import CHECK_MEMORY, FINISH, HEAD, WAKE

NAMES = 'end', 'give_back', 'drained', 'idle', 'renew', 'close'

# ARGV: prefix, connection, token, connection, token ...
END = CHECK_MEMORY + FINISH + 'finish(ARGV[1], 2, #ARGV, now())'

# ARGV: prefix, seconds that frames are kept, then connection, token and entry of frames that were taken and not begun.
# The next worker takes them first. Returns how many were lost: somebody else has taken a frame of their connection since.
GIVE_BACK = (
    WAKE
    + """
local prefix, lost = ARGV[1], 0
-- From the last to the first, each of which goes to the front.
for index = #ARGV - 2, 3, -3 do
    local connection, key = ARGV[index], prefix .. 'frames:' .. ARGV[index]
    if redis.call('HGET', prefix .. 'busy', connection) == ARGV[index + 1] then
        redis.call('HDEL', prefix .. 'busy', connection)
        redis.call('ZREM', prefix .. 'leases', connection)
        if redis.call('EXISTS', prefix .. 'closed:' .. connection) == 0 then
            redis.call('LPUSH', key, ARGV[index + 2])
            redis.call('EXPIRE', key, ARGV[2])
        end
        local channel = string.match(redis.call('LINDEX', key, 0) or '', '^([^|]*)|')
        if channel then
            redis.call('LPUSH', prefix .. 'ready:' .. channel, connection)
            wake(prefix, channel, 1)
        end
    else
        lost = lost + 1
    end
end
return lost
"""
)

# ARGV: prefix, connections ... Returns those of which no frame waits or is being handled, expired ones left out.
DRAINED = (
    HEAD
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
