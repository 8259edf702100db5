-- Of the jobs that can be claimed, whatever their queues allow, read the one enqueued first.
--
-- ARGV: the store; now and horizon in seconds.
-- Returns whether to ask again, and its id and value.

if is_gone(ARGV[1]) then
  return gone()
end
local now, horizon = tonumber(ARGV[2]), tonumber(ARGV[3])
local more = false
if call('EXISTS', UNSETTLED, TIMED) > 0 then
  more = settle()
  left = AT_ONCE
  more = promote(now, horizon) or more
end
local best
for _, lane in ipairs(call('ZRANGE', LANES, 0, -1)) do
  local found = first_of(lane, now, horizon, '')
  if found and (best == nil or tonumber(found[2].seq) < tonumber(best[2].seq)) then
    best = found
  end
end
finish()
if more or left <= 0 then
  return {'ok', 1}
elseif best then
  return {'ok', 0, best[1], best[3]}
end
return {'ok', 0}
