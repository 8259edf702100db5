-- What a supervisor asks each second: renew leases, go on with what is left to be done.
--
-- ARGV: the store; for how many milliseconds; the supervisor; the ids of those who live.
-- Returns the time in milliseconds, how the settings were changed last, whether a stop is asked of
-- the supervisor (s, f), how many leases are over, how much news there
-- ever was, and the ids of those who
-- are not known any more.

if is_gone(ARGV[1]) then
  return gone()
end
local now, leases = server_time(), PREFIX .. 'leases'
local over = call('ZCOUNT', leases, '-inf', '(' .. now)
local unknown = {}
for at = 4, #ARGV do
  if not renew(ARGV[at], now + ARGV[2]) then
    unknown[#unknown + 1] = ARGV[at]
  end
end
settle()
for _, batch in ipairs(call('ZRANGEBYSCORE', PREFIX .. 'stages', '-inf', now - STAGING, 'LIMIT', 0, 1)) do
  -- Whoever staged it has died: it never will be committed.
  call('ZADD', PREFIX .. 'stages', 0, batch)
  local stage = PREFIX .. 'stage:' .. batch
  for _, staged in ipairs(call('LRANGE', stage, 0, AT_ONCE - 1)) do
    local id = string.match(staged, '^%S+')
    if call('HGET', PREFIX .. 'reserved', id) == batch then
      call('HDEL', PREFIX .. 'reserved', id)
    end
  end
  call('LTRIM', stage, AT_ONCE, -1)
  if call('EXISTS', stage) == 0 then
    call('UNLINK', PREFIX .. 'staged_keys:' .. batch)
    call('ZREM', PREFIX .. 'stages', batch)
  end
end
finish()
local configured, told = unpack(call('HMGET', KEEPER, 'configured', 'news'))
local stop = ARGV[3] ~= '' and call('HGET', PREFIX .. 'stops', ARGV[3]) or ''
return {'ok', now, configured, stop or '', over, told, unknown}
