-- Tell whether a job can be claimed.
--
-- ARGV: the store; now and horizon in seconds; how many queues, -1 for all; the queues.
-- Returns whether to ask again, whether there is one, and when the next falls due.

if is_gone(ARGV[1]) then
  return gone()
end
local now, horizon = tonumber(ARGV[2]), tonumber(ARGV[3])
local serves = server_of(5, tonumber(ARGV[4]))
local more, unsettled = false, false
if call('EXISTS', UNSETTLED, TIMED) > 0 then
  unsettled = settle()
  left = AT_ONCE
  more = promote(now, horizon)
end
local found = not more and choose(now, horizon, serves, '')
more = more or not found and (unsettled or left <= 0)
finish()
return {'ok', more and 1 or 0, found and 1 or 0, more and '' or next_due(serves)}
