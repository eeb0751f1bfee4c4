-- Counts the agents of a mesh. What has ended counts until that is noted: if there are as many as matter, ends are noted.
-- KEYS: as agents.lua. ARGV: events kept, mesh_id, how many matter, the most ends to note.
-- Returns {expiries reported, how many, 1 if more ends are due}.

local ends, absences, events, revisions, indexes = unpack(KEYS)
local index, enough, limit = indexes .. ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local expired, more = 0, false
if redis.call('ZCARD', index) >= enough then
  expired, more = note_due(limit, ends, absences, events, revisions, indexes)
end
return { expired, redis.call('ZCARD', index), more and 1 or 0 }
