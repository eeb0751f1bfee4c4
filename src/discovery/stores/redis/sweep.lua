-- Reports leases that have ended, and forgets the absences that are too old or too many to remember.
-- KEYS: ends, absences, events of each shard in turn. ARGV: events kept, the most leases to report and absences to
-- forget, for how many microseconds an absence is remembered, how many absences a shard remembers.
-- Returns {expiries reported, the same, 1 if more is to be done}.
--
-- An end only moves in the script that renews the lease, so what is due here has ended, and was reported by nobody else.

local limit, remembered, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local reported, more = 0, 0

local function sweep(ends, absences, events)
  local left = limit - reported
  local due = redis.call('ZRANGEBYSCORE', ends, '-inf', text(now), 'LIMIT', 0, left + 1)
  for place, mesh_id in ipairs(due) do
    if place > left then
      more = 1
      return
    end
    note_end(ends, events, mesh_id, absence(absences, mesh_id) or now)
    reported = reported + 1
  end
end

-- A live lease's absence lies in the future, so the lowest are those of meshes that are gone.
local function forget(ends, absences)
  local old = redis.call('ZCOUNT', absences, '-inf', text(now - remembered))
  local spare = redis.call('ZCARD', absences) - redis.call('ZCARD', ends) - most
  local count = math.min(math.max(old, spare, 0), limit)
  if count > 0 then redis.call('ZREMRANGEBYRANK', absences, 0, count - 1) end
  if count > 0 and count == limit then more = 1 end
end

for place = 1, #KEYS, 3 do
  sweep(KEYS[place], KEYS[place + 1], KEYS[place + 2])
  forget(KEYS[place], KEYS[place + 1])
end
return { reported, reported, more }
