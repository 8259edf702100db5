-- Note who takes part, and until when that holds unless it is renewed.
--
-- ARGV: the store; the member's id and record; for how many milliseconds; 1 if it is a supervisor
-- that stops.

if is_gone(ARGV[1]) then
  return gone()
end
call('HSET', PREFIX .. 'members', ARGV[2], ARGV[3])
call('ZADD', PREFIX .. 'leases', server_time() + ARGV[4], ARGV[2])
if ARGV[5] == '1' then
  call('SADD', PREFIX .. 'stopping', ARGV[2])
end
return {'ok'}
