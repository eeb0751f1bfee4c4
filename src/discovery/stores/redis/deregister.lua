-- Ends the lease that a key holds.
-- KEYS: lease, ends, absences, events. ARGV: events kept, mesh_id, pubkey.
-- Returns {expiries reported, 1 if it ended, 0 if there was none, -1 if another key holds it}.

local lease, ends, absences, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local mesh_id, pubkey = ARGV[2], ARGV[3]

local held = live(lease)
if not held then
  return { note_end(ends, events, mesh_id, absence(absences, mesh_id) or now), 0 }
end
if held.pubkey ~= pubkey then return { 0, -1 } end

-- First what frees memory: a server that is full allows that, and then the rest of the script too.
redis.call('DEL', lease)
redis.call('ZREM', ends, mesh_id)
local revision = math.max(held.revision + 1, now)
redis.call('ZADD', absences, text(revision), mesh_id)
report_absence(events, mesh_id, revision)
return { 0, 1 }
