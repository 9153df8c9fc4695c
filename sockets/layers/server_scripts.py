"""Scripts for heartbeats and dead servers, and for counts of lost messages.

scripts.py says what Redis holds; it adds ``now()`` and a deadline to each of these.
"""

NAMES = 'alive', 'dead', 'mark_dead', 'unmark_dead', 'living', 'gone', 'forget', 'note_dropped', 'report_expired'

# ARGV: prefix, lease in ms, server. Returns one of FINE ... of scripts.py.
ALIVE = """
local servers, at = ARGV[1] .. 'servers', now()
local found_dead = redis.call('GET', ARGV[1] .. 'found_dead:' .. ARGV[3])
if found_dead then return found_dead == '1' and 2 or 3 end
local is_new = redis.call('ZADD', servers, at + ARGV[2], ARGV[3])
redis.call('ZREM', ARGV[1] .. 'suspects', ARGV[3])
redis.call('ZREMRANGEBYSCORE', servers, 0, at - 86400000)
redis.call('ZREMRANGEBYSCORE', ARGV[1] .. 'suspects', 0, at - 86400000)
return is_new
"""

# ARGV: prefix, ms of suspicion, ms of grace, seconds for which a dead server is remembered, 1 if all servers that
# have rows follow, these servers ... Returns whether this Redis is new, and the dead.
DEAD = """
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

# ARGV: prefix, server, seconds for which it is remembered. For the other shards.
MARK_DEAD = "redis.call('SET', ARGV[1] .. 'found_dead:' .. ARGV[2], 1, 'EX', ARGV[3])"

# ARGV: prefix, server.
UNMARK_DEAD = "redis.call('DEL', ARGV[1] .. 'found_dead:' .. ARGV[2])"

# ARGV: prefix.
LIVING = "return redis.call('ZRANGEBYSCORE', ARGV[1] .. 'servers', now(), '+inf')"

# ARGV: prefix, ms of suspicion, servers ... Returns those that are dead, marked or not.
GONE = """
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

# ARGV: prefix, server, seconds for which it is remembered.
FORGET = """
local found_dead = ARGV[1] .. 'found_dead:' .. ARGV[2]
-- It may have been told and serve again since it was found dead.
if redis.call('EXISTS', found_dead) == 0 then return end
redis.call('SET', found_dead, 2, 'EX', ARGV[3])
redis.call('ZREM', ARGV[1] .. 'servers', ARGV[2])
redis.call('ZREM', ARGV[1] .. 'suspects', ARGV[2])
-- Its messages are kept a little, in case it is not dead: there may be answers to pages.
local queue = ARGV[1] .. 'queue:' .. ARGV[2]
if redis.call('TTL', queue) > 60 then redis.call('EXPIRE', queue, 60) end
"""

# ARGV: prefix, then a server and how many messages it did not take, and so on.
NOTE_DROPPED = """
for index = 2, #ARGV, 2 do redis.call('HINCRBY', ARGV[1] .. 'dropped', ARGV[index], ARGV[index + 1]) end
redis.call('EXPIRE', ARGV[1] .. 'dropped', 86400)
"""

# ARGV: prefix. Returns what has expired since the last call, of any process.
REPORT_EXPIRED = """
local expired = redis.call('HGETALL', ARGV[1] .. 'expired')
if #expired == 0 then return expired end
redis.call('DEL', ARGV[1] .. 'expired')
for index = 1, #expired, 2 do redis.call('HINCRBY', ARGV[1] .. 'dropped', expired[index], expired[index + 1]) end
redis.call('EXPIRE', ARGV[1] .. 'dropped', 86400)
return expired
"""
