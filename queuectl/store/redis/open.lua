-- Open the store, making it if that is asked for and there is none.
--
-- ARGV: 1 to make it; its id and created_at if it is made; the newest format that is known here, and
-- the version of QueueCTL.
-- Returns whether it was made, the time in milliseconds, all of `meta`, whether jobs are left to be
-- placed, and the record of one who works with an older format, so that it cannot be raised.

local made, older = 0, ''
local known = tonumber(ARGV[4])
if ARGV[1] == '1' and call('HSETNX', KEEPER, 'id', ARGV[2]) == 1 then
  made = 1
  call('HSET', KEEPER, 'format', known, 'version', ARGV[5], 'created_at', ARGV[3], 'seq', 0,
    'bound', 0, 'configured', 0, 'news', 0)
end
local id, format = unpack(call('HMGET', KEEPER, 'id', 'format'))
if format and tonumber(format) < known then
  for _, member in ipairs(call('ZRANGEBYSCORE', PREFIX .. 'leases', server_time(), '+inf')) do
    older = call('HGET', PREFIX .. 'members', member) or older
  end
  if older == '' then
    -- Whoever opened it before, and may come back from a long sleep, finds it gone.
    local name = string.match(id, '^%x+')
    call('HSET', KEEPER, 'id', name .. '.' .. known, 'format', known, 'version', ARGV[5])
  end
end
return {made, server_time(), call('HGETALL', KEEPER), call('EXISTS', UNSETTLED), older}
