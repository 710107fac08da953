-- Admit one request of a key, or refuse it: requests and tokens per minute, requests at the same time.
-- All three are decided in one step, so front doors that ask at once cannot both take the last place.
-- KEYS: counts of this minute, counts of the minute before, running (sorted set: lease -> its end, ms).
-- ARGV: now (ms), window (ms), rpm, tpm, max concurrent (each 0 for none), tokens, lease id, lease (ms).
-- Returns {admitted, requests before, requests, tokens before, tokens, running}, counted with this one if it
-- was admitted. The last minute is estimated: what came in it, and of the minute before as much as reaches
-- into it.
local now, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local rpm, tpm, most = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local tokens = tonumber(ARGV[6])
local weight = 1 - (now % window) / window
local function counts(key)
  local found = redis.call('HMGET', key, 'r', 't')
  return tonumber(found[1] or '0'), tonumber(found[2] or '0')
end
local r1, t1 = counts(KEYS[1])
local r0, t0 = counts(KEYS[2])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
local running = redis.call('ZCARD', KEYS[3])
local free = (rpm == 0 or r0 * weight + r1 + 1 <= rpm)
  and (tpm == 0 or t0 * weight + t1 + tokens <= tpm)
  and (most == 0 or running < most)
if not free then
  return {0, r0, r1, t0, t1, running}
end
redis.call('HINCRBY', KEYS[1], 'r', 1)
redis.call('HINCRBY', KEYS[1], 't', tokens)
redis.call('PEXPIRE', KEYS[1], 2 * window)
if most > 0 then
  redis.call('ZADD', KEYS[3], now + tonumber(ARGV[8]), ARGV[7])
  redis.call('PEXPIRE', KEYS[3], tonumber(ARGV[8]))
  running = running + 1
end
return {1, r0, r1 + 1, t0, t1 + tokens, running}
