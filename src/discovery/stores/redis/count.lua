-- Counts live leases. KEYS: the ends of each shard. Returns {0, their number}.

local live_leases = 0
for _, ends in ipairs(KEYS) do
  live_leases = live_leases + redis.call('ZCOUNT', ends, '(' .. text(now), '+inf')
end
return { 0, live_leases }
