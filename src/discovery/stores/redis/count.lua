-- Counts live leases. KEYS: of each shard in turn the ends of colonies, of agents. Returns {0, colonies, agents}.

local counts = { 0, 0 }
for place, ends in ipairs(KEYS) do
  local kind = 2 - place % 2
  counts[kind] = counts[kind] + redis.call('ZCOUNT', ends, '(' .. text(now), '+inf')
end
return { 0, counts[1], counts[2] }
