-- Ask a supervisor to stop; returns whether it could be asked.
--
-- ARGV: the store; its id; s, or f for force.

if is_gone(ARGV[1]) then
  return gone()
end
local lease = call('ZSCORE', PREFIX .. 'leases', ARGV[2])
if not lease or tonumber(lease) < server_time() then
  return {'ok', 0}
end
if ARGV[3] == 'f' or not call('HGET', PREFIX .. 'stops', ARGV[2]) then
  call('HSET', PREFIX .. 'stops', ARGV[2], ARGV[3])
end
call('PUBLISH', PREFIX .. 'news', ARGV[3] .. ARGV[2])
return {'ok', 1}
