-- Reports leases that have ended, and forgets the absences that are too old or too many to remember.
-- KEYS: of each shard in turn events, ends, absences, then of its agents ends, absences, revisions, and what the keys of
-- indexes begin with. ARGV: events kept, the most leases to report and absences to forget, for how many microseconds an
-- absence is remembered, how many absences of each kind a shard remembers.
-- Returns {expiries reported, the same, 1 if more is to be done}.

local limit, remembered, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local reported, more = 0, 0

local function sweep(...)
  local noted, are_left = note_due(limit - reported, ...)
  reported = reported + noted
  if are_left then more = 1 end
end

-- The highest `lasting` of the absences are not to be forgotten.
local function forget(absences, lasting)
  local old = redis.call('ZCOUNT', absences, '-inf', text(now - remembered))
  local spare = redis.call('ZCARD', absences) - lasting - most
  local count = math.min(math.max(old, spare, 0), limit)
  if count > 0 then redis.call('ZREMRANGEBYRANK', absences, 0, count - 1) end
  if count > 0 and count == limit then more = 1 end
end

for place = 1, #KEYS, 7 do
  local events, ends, absences, agent_ends, agent_absences, revisions, indexes = unpack(KEYS, place, place + 6)
  sweep(ends, absences, events)
  sweep(agent_ends, agent_absences, events, revisions, indexes)
  -- A live colony's absence lies in the future.
  forget(absences, redis.call('ZCARD', ends))
  forget(agent_absences, 0)
end
return { reported, reported, more }
