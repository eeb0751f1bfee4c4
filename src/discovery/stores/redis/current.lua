-- Tells the state of a mesh.
-- KEYS: lease, ends, absences, events. ARGV: events kept, mesh_id.
-- Returns {expiries reported, the stored lease, or the revision of its absence as a number}.

local lease, ends, absences, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local mesh_id = ARGV[2]

local held = live(lease)
if held then return { 0, held.value } end

local revision = absence(absences, mesh_id)
if not revision then
  -- Never seen, or long forgotten. Remembered from now on, so that who asks again is told the same.
  revision = now
  redis.call('ZADD', absences, text(revision), mesh_id)
end
return { note_end(ends, events, mesh_id, revision), revision }
