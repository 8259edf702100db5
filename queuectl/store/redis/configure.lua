-- Change settings.
--
-- ARGV: the store; how many are changed; of each its name, 1 if it has a value, and that; of each
-- queue whose rule is among them its name, and the names of the settings of its concurrency and
-- pause; at the end how many jobs may have become claimable.

if is_gone(ARGV[1]) then
  return gone()
end
local settings = PREFIX .. 'settings'
local at = 3
for _ = 1, tonumber(ARGV[2]) do
  if ARGV[at + 1] == '1' then
    call('HSET', settings, ARGV[at], ARGV[at + 2])
  else
    call('HDEL', settings, ARGV[at])
  end
  at = at + 3
end
while at < #ARGV do
  local rule = call('HEXISTS', settings, ARGV[at + 2]) == 1 and 'paused'
    or call('HGET', settings, ARGV[at + 1])
  if rule then
    call('HSET', RULES, ARGV[at], rule)
  else
    call('HDEL', RULES, ARGV[at])
  end
  at = at + 3
end
call('HINCRBY', KEEPER, 'configured', 1)
news = tonumber(ARGV[#ARGV])
finish()
return {'ok'}
