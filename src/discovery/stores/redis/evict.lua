-- Ends a lease and its reservation.
-- KEYS, ARGV: see named().
-- Returns {expiries reported, 1 if there was either, 0 if not}.

local who = named()

local reserved = reservation(who.reserved)
redis.call('DEL', who.reserved)
local held = live(who.lease)
if not held then return { note_end(who, revision_of(who)), reserved and 1 or 0 } end

finish(who, held)
return { 0, 1 }
