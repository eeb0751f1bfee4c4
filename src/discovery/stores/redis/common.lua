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
  local revision, ends, pubkey, words, body = string.match(value, '^1 (%d+) %d+ (%d+) (%S+)([^\n]*)\n(.*)$')
  if not revision then error('the value at ' .. key .. ' is not a lease') end
  if tonumber(ends) <= now then
    -- Servers may show a key for the rest of the millisecond in which it ends: not after we said that it ended.
    redis.call('DEL', key)
    return nil
  end
  local granted, owner = string.match(words, '^ (%d+) (%S+)')
  return {
    value = value, revision = tonumber(revision), ends = tonumber(ends), pubkey = pubkey, body = body,
    granted = granted or '0', owner = owner or '-',
  }
end

-- Returns the reservation that is stored at `key`, or nil.
local function reservation(key)
  local value = redis.call('GET', key)
  if not value then return nil end
  local ends, pubkey = string.match(value, '^1 (%d+) (%S+)')
  if not ends then error('the value at ' .. key .. ' is not a reservation') end
  return tonumber(ends) > now and { ends = tonumber(ends), pubkey = pubkey } or nil
end

-- Returns whose lease `name` is, and the keys of what goes with it: "<mesh_id>" is a colony's, "<mesh_id>/<agent_id>" an
-- agent's, which alone has `revisions` and an `index`.
local function holder(name, ends, absences, events, revisions, index)
  local mesh_id, agent_id = string.match(name, '^([^/]*)/?(.*)$')
  return {
    name = name, mesh_id = mesh_id, agent_id = agent_id, is_agent = agent_id ~= '',
    ends = ends, absences = absences, events = events, revisions = revisions, index = index,
  }
end

-- Returns the holder that a script on one lease is about. KEYS: lease, reservation, ends, absences, events, and of an agent:
-- revisions, index. ARGV: events kept, name, and of a colony what the keys of the sets of an owner's colonies begin with.
local function named()
  local who = holder(ARGV[2], unpack(KEYS, 3))
  who.lease, who.reserved, who.owned = KEYS[1], KEYS[2], ARGV[3]
  return who
end

local function score(key, member)
  return tonumber(redis.call('ZSCORE', key, member))
end

local function next_revision(previous)
  return math.max(previous + 1, now)
end

-- Returns the revision of the state that there is, `held` being the holder's live lease. A colony that is absent has one
-- that was known beforehand. All agents of a mesh share theirs, and an end that nobody noticed yet makes a new one.
local function revision_of(who, held)
  if not who.is_agent then return held and held.revision or score(who.absences, who.mesh_id) or now end
  local last = score(who.revisions, who.mesh_id) or score(who.absences, who.mesh_id) or now
  return not held and score(who.ends, who.name) and next_revision(last) or last
end

-- Returns the revision of the absence of a mesh, or of all of its agents. If it was never seen, or is long forgotten, that
-- is the time, remembered from now on, so that who asks again is told the same.
local function absence(absences, mesh_id)
  local revision = score(absences, mesh_id)
  if not revision then
    revision = now
    redis.call('ZADD', absences, text(revision), mesh_id)
  end
  return revision
end

-- An agent's events have fields of their own: versions that know of no agents would take them for a colony's.
-- An entry says of an absence that nobody renewed the lease, if that is so.
local function report(who, field, value, expired)
  local entry = { 'XADD', who.events, 'MAXLEN', '~', kept, '*', 'mesh', who.mesh_id, field, value }
  if who.is_agent then
    entry[9] = 'agent_' .. field
    entry[11], entry[12] = 'agent', who.agent_id
  end
  if expired then
    table.insert(entry, 'expired')
    table.insert(entry, '1')
  end
  redis.call(unpack(entry))
end

-- Frees what goes with a lease that is over, and reports that. The revisions of a mesh that has no more agents are kept
-- where they will be forgotten in time.
local function leave(who, revision, expired)
  redis.call('ZREM', who.ends, who.name)
  local kept_in = who.absences
  if who.is_agent then
    redis.call('ZREM', who.index, who.agent_id)
    if redis.call('ZCARD', who.index) > 0 then
      kept_in = who.revisions
    else
      redis.call('ZREM', who.revisions, who.mesh_id)
    end
  end
  redis.call('ZADD', kept_in, text(revision), who.mesh_id)
  report(who, 'absent', text(revision), expired)
end

-- Enters a colony's lease among those of its owner, if it has one. What ended there without being taken out is taken out, or
-- goes when the last of them ends.
local function own(who, owner, end_us)
  if who.is_agent or owner == '-' then return end
  local owned = who.owned .. owner
  redis.call('ZADD', owned, text(end_us), who.name)
  redis.call('ZREMRANGEBYSCORE', owned, '-inf', text(now))
  local last = redis.call('ZRANGE', owned, -1, -1, 'WITHSCORES')[2]
  redis.call('PEXPIREAT', owned, text(last / 1000))
end

local function disown(who, held)
  if not who.is_agent and held.owner ~= '-' then redis.call('ZREM', who.owned .. held.owner, who.name) end
end

-- Ends the live lease `held`.
local function finish(who, held)
  local revision = next_revision(revision_of(who, held))
  -- First what frees memory: a server that is full allows that, and then the rest of the script too.
  redis.call('DEL', who.lease)
  disown(who, held)
  leave(who, revision)
end

-- Notes that a lease ended, unless that was noted before. Returns how many expiries that reports.
local function note_end(who, revision)
  if not score(who.ends, who.name) then return 0 end
  leave(who, revision, true)
  return 1
end

-- Notes up to `limit` of the ends that are due, of colonies or of agents: only those have `revisions`, and `indexes` that
-- say what the keys of their indexes begin with. Returns how many expiries that reports, and whether more are due.
--
-- An end only moves in the script that renews the lease, so what is due has ended, and was reported by nobody else.
local function note_due(limit, ends, absences, events, revisions, indexes)
  local due = redis.call('ZRANGEBYSCORE', ends, '-inf', text(now), 'LIMIT', 0, limit + 1)
  for place, name in ipairs(due) do
    if place > limit then return limit, true end
    local who = holder(name, ends, absences, events, revisions)
    if who.is_agent then who.index = indexes .. who.mesh_id end
    leave(who, revision_of(who), true)
  end
  return #due, false
end
