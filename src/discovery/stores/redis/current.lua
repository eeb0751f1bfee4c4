-- Tells the state of a colony.
-- KEYS, ARGV: see named().
-- Returns {expiries reported, the stored lease, or the revision of its absence as a number}.

local who = named()

local held = live(who.lease)
if held then return { 0, held.value } end

local revision = absence(who.absences, who.mesh_id)
return { note_end(who, revision), revision }
