-- Take a turn, if nobody took one for so many milliseconds.
--
-- ARGV: the store; the interval.

if is_gone(ARGV[1]) then
  return gone()
end
local now, last = server_time(), tonumber(call('HGET', KEEPER, 'turn'))
if last and now >= last and now - last < tonumber(ARGV[2]) then
  return {'ok', 0}
end
call('HSET', KEEPER, 'turn', now)
return {'ok', 1}
