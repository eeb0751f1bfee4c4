-- Lists agents of a mesh in the order of their ids. First it notes what ends are due, so that the revision covers them; but
-- not more than `limit`, so it may still meet agents that have ended.
-- KEYS: ends, absences, events, revisions, what the keys of indexes begin with, what those of the mesh's agents' leases do.
-- ARGV: events kept, mesh_id, the agent_id to begin behind or an empty string, the most agents to look at.
-- Returns {expiries reported, revision, the agent_id to go on behind or an empty string, each stored lease}.

local ends, absences, events, revisions, indexes, leases = unpack(KEYS)
local mesh_id, after, limit = ARGV[2], ARGV[3], tonumber(ARGV[4])
local index = indexes .. mesh_id

local expired = note_due(limit, ends, absences, events, revisions, indexes)

local from = after == '' and '-' or '(' .. after
local agent_ids = redis.call('ZRANGEBYLEX', index, from, '+', 'LIMIT', 0, limit + 1)
local go_on = ''
if #agent_ids > limit then
  table.remove(agent_ids)
  go_on = agent_ids[limit]
end

local page = {}
for _, agent_id in ipairs(agent_ids) do
  local held = live(leases .. agent_id)
  if held then
    table.insert(page, held.value)
  else
    local who = holder(mesh_id .. '/' .. agent_id, ends, absences, events, revisions, index)
    expired = expired + note_end(who, revision_of(who))
  end
end
return { expired, score(revisions, mesh_id) or absence(absences, mesh_id), go_on, unpack(page) }
