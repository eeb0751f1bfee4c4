-- Ends the lease that a key holds.
-- KEYS: lease, ends, absences, events, and of an agent: revisions, index. ARGV: events kept, name, pubkey.
-- Returns {expiries reported, 1 if it ended, 0 if there was none, -1 if another key holds it}.

local lease, pubkey = KEYS[1], ARGV[3]
local who = holder(ARGV[2], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6])

local held = live(lease)
if not held then return { note_end(who, revision_of(who)), 0 } end
if held.pubkey ~= pubkey then return { 0, -1 } end

local revision = next_revision(revision_of(who, held))
-- First what frees memory: a server that is full allows that, and then the rest of the script too.
redis.call('DEL', lease)
leave(who, revision)
return { 0, 1 }
