-- Grants or renews a lease.
-- KEYS: lease, ends, absences, events. ARGV: events kept, mesh_id, pubkey, registration, lease in microseconds.
-- Returns {expiries reported, 0 granted or 1 renewed, revision, now, end}; {0, -1, end} if another key holds a live lease.

local lease, ends, absences, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local mesh_id, pubkey, body, span = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

local held = live(lease)
if held and held.pubkey ~= pubkey then return { 0, -1, held.ends } end

-- Whole milliseconds, as key lifetimes are, and never less than was asked for.
local end_ms = math.ceil((now + span) / 1000)
local revision, absent
if held then
  end_ms = math.max(end_ms, held.ends / 1000)
  revision = held.body == body and held.revision or math.max(held.revision + 1, now)
else
  absent = absence(absences, mesh_id) or 0
  revision = math.max(absent + 1, now)
end

local end_us = end_ms * 1000
local value = '1 ' .. text(revision) .. ' ' .. text(now) .. ' ' .. text(end_us) .. ' ' .. pubkey .. '\n' .. body
-- First what takes memory: a server that is full refuses that, and then nothing was done.
redis.call('SET', lease, value, 'PXAT', text(end_ms))
local expired = absent and note_end(ends, events, mesh_id, absent) or 0
redis.call('ZADD', ends, text(end_us), mesh_id)
redis.call('ZADD', absences, text(math.max(revision + 1, end_us)), mesh_id)
if not (held and held.revision == revision) then report_lease(events, mesh_id, value) end
return { expired, held and 1 or 0, revision, now, end_us }
