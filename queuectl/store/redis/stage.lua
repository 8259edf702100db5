-- Take in a part of a batch, which nobody sees until `begin` commits all of it.
--
--   stages         zset    batches that were not committed; score when they last got a part
--   stage:B        list    of each job its id and value
--   staged_keys:B  list    those of them that have a unique key
--   reserved       hash    id -> the batch that will have a job of this id
--   batch:B        hash    of a committed one: first seq, size, and how far it was placed
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
    if is_taken(id, batch) then
      return {'exists', id}
    end
    call('HSET', PREFIX .. 'reserved', id, batch)
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
