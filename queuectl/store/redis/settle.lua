-- Do a part of what was left to be done; returns whether there is more.
--
-- ARGV: the store.

if is_gone(ARGV[1]) then
  return gone()
end
local more = settle()
finish()
return {'ok', more and 1 or 0}
