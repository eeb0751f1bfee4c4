-- Ends the lease that a key holds.
-- KEYS: see named(). ARGV: see there, then pubkey.
-- Returns {expiries reported, 1 if it ended, 0 if there was none, -1 if another key holds it}.

local who, pubkey = named(), ARGV[4]

local held = live(who.lease)
if not held then return { note_end(who, revision_of(who)), 0 } end
if held.pubkey ~= pubkey then return { 0, -1 } end

finish(who, held)
return { 0, 1 }
