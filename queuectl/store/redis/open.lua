-- Open the store, making it if that is asked for and there is none.
--
-- ARGV: 1 to make it; its id, format and created_at if it is made.
-- Returns whether it was made, the time in milliseconds, and all of `meta`.

local made = 0
if ARGV[1] == '1' and call('HSETNX', KEEPER, 'id', ARGV[2]) == 1 then
  made = 1
  call('HSET', KEEPER, 'format', ARGV[3], 'created_at', ARGV[4], 'seq', 0,
    'bound', 0, 'configured', 0, 'news', 0)
end
return {made, server_time(), call('HGETALL', KEEPER), call('EXISTS', TODO)}
