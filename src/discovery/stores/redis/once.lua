-- Sets a key that has no value yet.
-- KEYS: the key. ARGV: events kept, value, the end of its life in Unix milliseconds or an empty string.
-- Returns {0, the value that it had, if any}.

local had = redis.call('GET', KEYS[1])
if not had then
  local value, end_ms = ARGV[2], ARGV[3]
  if end_ms == '' then redis.call('SET', KEYS[1], value) else redis.call('SET', KEYS[1], value, 'PXAT', end_ms) end
end
return { 0, had }
