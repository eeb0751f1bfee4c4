-- Counts an owner's live leases of colonies. KEYS: of each shard the set of them. Returns {0, how many}.

local count = 0
for _, owned in ipairs(KEYS) do
  count = count + redis.call('ZCOUNT', owned, '(' .. text(now), '+inf')
end
return { 0, count }
