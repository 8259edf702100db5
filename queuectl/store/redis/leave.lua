-- Forget a member. One that holds a claim is not forgotten: who leaves never heard of it, so it is to
-- be rescued; who was taken for dead, and whose job was given back, has made it since and lives.
--
-- ARGV: the store; the member's id; 1 if it is dead, and what it held is given back.

if is_gone(ARGV[1]) then
  return gone()
end
local member = ARGV[2]
for _, id in ipairs(call('ZRANGE', IN .. 'r', 0, -1)) do
  if stored(id).W == member then
    if ARGV[3] ~= '1' then
      call('ZADD', PREFIX .. 'leases', 0, member)
    end
    return {'ok'}
  end
end
call('HDEL', PREFIX .. 'members', member)
call('ZREM', PREFIX .. 'leases', member)
call('HDEL', PREFIX .. 'stops', member)
call('SREM', PREFIX .. 'stopping', member)
return {'ok'}
