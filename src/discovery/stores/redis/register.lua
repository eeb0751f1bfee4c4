-- Grants or renews a lease.
-- KEYS: lease, ends, absences, events, and of an agent: revisions, index.
-- ARGV: events kept, name, pubkey, registration, lease in microseconds.
-- Returns {expiries reported, 0 granted or 1 renewed, revision, now, end}; {0, -1, end} if another key holds a live lease.

local lease, pubkey, body, span = KEYS[1], ARGV[3], ARGV[4], tonumber(ARGV[5])
local who = holder(ARGV[2], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6])

local held = live(lease)
if held and held.pubkey ~= pubkey then return { 0, -1, held.ends } end

local same = held and held.body == body
local before = revision_of(who, held)
local revision = same and held.revision or next_revision(before)

-- Whole milliseconds, as key lifetimes are, and never less than was asked for.
local end_ms = math.ceil((now + span) / 1000)
if held then end_ms = math.max(end_ms, held.ends / 1000) end

local end_us = end_ms * 1000
local value = '1 ' .. text(revision) .. ' ' .. text(now) .. ' ' .. text(end_us) .. ' ' .. pubkey .. '\n' .. body
-- First what takes memory: a server that is full refuses that, and then nothing was done.
redis.call('SET', lease, value, 'PXAT', text(end_ms))
local expired = held and 0 or note_end(who, before)
redis.call('ZADD', who.ends, text(end_us), who.name)
if not who.is_agent then
  redis.call('ZADD', who.absences, text(math.max(revision + 1, end_us)), who.mesh_id)
elseif not same then
  redis.call('ZADD', who.index, 0, who.agent_id)
  redis.call('ZADD', who.revisions, text(revision), who.mesh_id)
end
if not same then report(who, 'lease', value) end
return { expired, held and 1 or 0, revision, now, end_us }
