-- Take in a part of a batch, which nobody sees until `begin` commits all of it.
--
-- ARGV: the store; the batch; of each job its id, 1 if that may be another's, and its value
-- without seq.

if is_gone(ARGV[1]) then
  return gone()
end
local batch = ARGV[2]
for at = 3, #ARGV, 3 do
  local id = ARGV[at]
  if ARGV[at + 1] == '1' then
    if call('HEXISTS', JOBS, id) == 1 or call('HSETNX', PREFIX .. 'reserved', id, batch) == 0 then
      return {'exists', id}
    end
  end
  call('RPUSH', PREFIX .. 'stage:' .. batch, id .. ' ' .. ARGV[at + 2])
  local stop = string.find(ARGV[at + 2], '\n', 1, true)
  local key = string.match(string.sub(ARGV[at + 2], 1, stop - 1), ' U(%S+)')
  if key then
    call('RPUSH', PREFIX .. 'staged_keys:' .. batch, id .. ' ' .. ARGV[at + 2])
  end
end
call('ZADD', PREFIX .. 'stages', server_time(), batch)
return {'ok'}
