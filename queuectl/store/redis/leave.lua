-- Forget a member. One that still holds a claim, of which it never heard, is left to be rescued.
--
-- ARGV: the store; the member's id; 1 if it is dead, and what it held is given back.

if is_gone(ARGV[1]) then
  return gone()
end
local member = ARGV[2]
if ARGV[3] ~= '1' then
  for _, id in ipairs(call('ZRANGE', IN .. 'r', 0, -1)) do
    if stored(id).W == member then
      call('ZADD', PREFIX .. 'leases', 0, member)
      return {'ok'}
    end
  end
end
call('HDEL', PREFIX .. 'members', member)
call('ZREM', PREFIX .. 'leases', member)
call('HDEL', PREFIX .. 'stops', member)
call('SREM', PREFIX .. 'stopping', member)
return {'ok'}
