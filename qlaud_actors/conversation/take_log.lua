-- Take a turn's log over: from here on an older epoch cannot write, so its last event is final.
-- KEYS: log (stream), epoch. ARGV: epoch, ttl (s). Returns the last seq, 0 when there is no log.
local epoch = tonumber(ARGV[1])
if tonumber(redis.call('GET', KEYS[2]) or '0') < epoch then
  redis.call('SET', KEYS[2], epoch, 'EX', ARGV[2])
end
local top = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
return top and tonumber(string.match(top[1], '%d+$')) or 0
