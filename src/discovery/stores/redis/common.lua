-- What every script begins with: time, the reading of a stored lease, and the reporting of changes.
--
-- Redis' own clock is the only one that counts, in whole microseconds (a double holds them exactly until 2255).
-- ARGV[1] is how many events a shard keeps.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local kept = ARGV[1]

local function text(number)
  return string.format('%.0f', number)
end

-- Returns the live lease that is stored at `key`, or nil. At the moment it ends it is no longer live.
local function live(key)
  local value = redis.call('GET', key)
  if not value then return nil end
  local revision, ends, pubkey, body = string.match(value, '^1 (%d+) %d+ (%d+) (%S+)[^\n]*\n(.*)$')
  if not revision then error('the value at ' .. key .. ' is not a lease') end
  if tonumber(ends) <= now then
    -- Servers may show a key for the rest of the millisecond in which it ends: not after we said that it ended.
    redis.call('DEL', key)
    return nil
  end
  return { value = value, revision = tonumber(revision), ends = tonumber(ends), pubkey = pubkey, body = body }
end

local function report_lease(events, mesh_id, value)
  redis.call('XADD', events, 'MAXLEN', '~', kept, '*', 'mesh', mesh_id, 'lease', value)
end

local function report_absence(events, mesh_id, revision)
  redis.call('XADD', events, 'MAXLEN', '~', kept, '*', 'mesh', mesh_id, 'absent', text(revision))
end

-- Returns the revision of a mesh's absence, or nil if none is remembered.
local function absence(absences, mesh_id)
  return tonumber(redis.call('ZSCORE', absences, mesh_id))
end

-- Reports that the lease of a mesh ended, unless that was reported before. Returns how many reports that makes.
local function note_end(ends, events, mesh_id, revision)
  if not redis.call('ZSCORE', ends, mesh_id) then return 0 end
  redis.call('ZREM', ends, mesh_id)
  report_absence(events, mesh_id, revision)
  return 1
end
