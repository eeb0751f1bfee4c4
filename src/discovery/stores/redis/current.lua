-- Tells the state of a colony.
-- KEYS: lease, ends, absences, events. ARGV: events kept, mesh_id.
-- Returns {expiries reported, the stored lease, or the revision of its absence as a number}.

local who = holder(ARGV[2], KEYS[2], KEYS[3], KEYS[4])

local held = live(KEYS[1])
if held then return { 0, held.value } end

local revision = absence(who.absences, who.mesh_id)
return { note_end(who, revision), revision }
