-- Tell whether a job can be claimed.
--
-- ARGV: the store; now and horizon in seconds; how many queues, -1 for all; the queues.
-- Returns whether to ask again, whether there is one, and when the next falls due.

if is_gone(ARGV[1]) then
  return gone()
end
local now, horizon = tonumber(ARGV[2]), tonumber(ARGV[3])
local serves = server_of(5, tonumber(ARGV[4]))
if call('EXISTS', TODO, TIMED) > 0 then
  local more = settle()
  more = promote(now, horizon) or more
  if more then
    finish()
    return {'ok', 1, 0, ''}
  end
end
local found = choose(now, horizon, serves, '')
if left < AT_ONCE then
  finish()
end
if not found and left <= 0 then
  return {'ok', 1, 0, ''}
end
return {'ok', 0, found and 1 or 0, next_due(serves)}
