-- Grants or renews a lease.
-- KEYS: see named(). ARGV: see there, then pubkey, registration, lease in microseconds, for how many milliseconds to reserve
-- the name after that (0 is not to), another key that agrees or an empty string, the owner or "-", 1 if a new lease may be
-- granted and 0 if that is not known.
-- Returns {expiries reported, 0 granted or 1 renewed, revision, now, end, when it was first granted}; {0, -1, end} if another
-- key holds a live lease, {0, -2, end} if the name is reserved for one, {0, -3} if the lease would be new, and may not be.

local who = named()
local pubkey, body, span, reserve = ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local old_pubkey, owner, may_grant = ARGV[8], ARGV[9], ARGV[10] == '1'

local function agrees(other)
  return other.pubkey == pubkey or other.pubkey == old_pubkey
end

local held = live(who.lease)
if held and not agrees(held) then return { 0, -1, held.ends } end

-- Whoever holds the lease needs no reservation, but another key's passes on with it.
local reserved = (not held or old_pubkey ~= '') and reservation(who.reserved)
if not held then
  if reserved and not agrees(reserved) then return { 0, -2, reserved.ends } end
  if not may_grant then return { 0, -3 } end
end

local same = held and held.body == body
local before = revision_of(who, held)
local revision = same and held.revision or next_revision(before)
local granted = held and held.granted or text(now)

-- Whole milliseconds, as key lifetimes are, and never less than was asked for.
local end_ms = math.ceil((now + span) / 1000)
if held then end_ms = math.max(end_ms, held.ends / 1000) end

local end_us = end_ms * 1000
local words = { '1', text(revision), text(now), text(end_us), pubkey, granted, owner }
local value = table.concat(words, ' ') .. '\n' .. body
-- First what takes memory: a server that is full refuses that, and then nothing was done.
redis.call('SET', who.lease, value, 'PXAT', text(end_ms))

local reserved_until = nil
if reserve > 0 then
  reserved_until = end_us + reserve * 1000
elseif reserved and reserved.pubkey == old_pubkey then
  reserved_until = reserved.ends
end
if reserved_until then
  local ends = text(reserved_until)
  redis.call('SET', who.reserved, '1 ' .. ends .. ' ' .. pubkey, 'PXAT', text(reserved_until / 1000))
end

local expired = held and 0 or note_end(who, before)
redis.call('ZADD', who.ends, text(end_us), who.name)
if not who.is_agent then
  redis.call('ZADD', who.absences, text(math.max(revision + 1, end_us)), who.mesh_id)
elseif not same then
  redis.call('ZADD', who.index, 0, who.agent_id)
  redis.call('ZADD', who.revisions, text(revision), who.mesh_id)
end
if held and held.owner ~= owner then disown(who, held) end
own(who, owner, end_us)
if not same then report(who, 'lease', value) end
return { expired, held and 1 or 0, revision, now, end_us, tonumber(granted) }
