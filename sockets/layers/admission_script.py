"""admission.py as scripts in Redis, for all of its servers, in ms."""

from . import admission

# Whether a connect may be queued, or the seconds after which its client is to come back.
ADMIT = """
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

# Notes that a connect was taken.
TAKEN = """
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
    _value = f'{1000 * getattr(admission, _name):.1f}'
    ADMIT, TAKEN = (text.replace('{' + _name + '}', _value) for text in (ADMIT, TAKEN))
for _name in ('LONGEST_QUEUE', 'HASTE', 'GOOD_FOR', 'ASSUMED', 'MEASURED', 'MOST', 'PART', 'FAR'):
    ADMIT, TAKEN = (text.replace('{' + _name + '}', str(getattr(admission, _name))) for text in (ADMIT, TAKEN))
