-- Append events to a turn's log and send them to whoever follows it live.
-- KEYS: log (stream), epoch. ARGV: epoch, ttl (s), max length, channel, then seq and payload in turn.
-- Returns 1, or 0 when a newer owner has the log: the caller is a zombie and must stop.
-- Events that are there already are passed over: a batch whose answer was lost may be sent again.
local epoch = tonumber(ARGV[1])
if tonumber(redis.call('GET', KEYS[2]) or '0') > epoch then
  return 0
end
redis.call('SET', KEYS[2], epoch, 'EX', ARGV[2])
local top = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local last = top and tonumber(string.match(top[1], '%d+$')) or 0
for i = 5, #ARGV, 2 do
  if tonumber(ARGV[i]) > last then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '1-' .. ARGV[i], 'e', ARGV[i + 1])
    redis.call('PUBLISH', ARGV[4], ARGV[i] .. ' ' .. ARGV[i + 1])
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
