-- Append events to a turn's log and send them to whoever follows it live.
-- KEYS: log (stream), epoch. ARGV: epoch, ttl (s), max length, channel, then seq and payload in turn.
-- Returns 1, or 0 when a newer owner has written before: the caller is a zombie and must stop.
local epoch = tonumber(ARGV[1])
local latest = tonumber(redis.call('GET', KEYS[2]) or '0')
if latest > epoch then
  return 0
end
redis.call('SET', KEYS[2], epoch, 'EX', ARGV[2])
for i = 5, #ARGV, 2 do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '1-' .. ARGV[i], 'e', ARGV[i + 1])
  redis.call('PUBLISH', ARGV[4], ARGV[i] .. ' ' .. ARGV[i + 1])
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
