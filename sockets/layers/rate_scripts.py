"""The script that counts rates for all processes.

scripts.py says what Redis holds; it adds ``now()`` and a deadline to it.
"""

NAMES = ('take_token',)

# ARGV: prefix, name, tokens that it gets in a ms, tokens that it holds. Returns the seconds until there is a token, 0
# if it was taken.
TAKE_TOKEN = """
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
