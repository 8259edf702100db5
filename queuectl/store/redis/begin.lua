-- Commit a batch whose parts were all taken in: from now on it is sure to be placed.
--
-- ARGV: the store; the batch; how many jobs it has; 1 if some of them wait for others of it; of
-- each job that is saved with it, id and value. Returns the seq of the first.

if is_gone(ARGV[1]) then
  return gone()
end
local batch, size = ARGV[2], tonumber(ARGV[3])
if (tonumber(call('ZSCORE', PREFIX .. 'stages', batch)) or 0) == 0
  or call('LLEN', PREFIX .. 'stage:' .. batch) ~= size then
  return {'unstaged'}
end
local changes, seen, keys = {}, {}, {}
for at = 5, #ARGV, 2 do
  local id, value = ARGV[at], ARGV[at + 1]
  local job, old = parse(value), stored(id)
  if seen[id] then
    return {'conflict', id}
  end
  seen[id] = true
  local refused = refusal(id, old, job.seq, job.rev, job.runs)
  if refused then
    return refused
  end
  changes[#changes + 1] = {id, old, job, value}
  if job.U and is_over(job) and not is_over(old) and call('HGET', UNIQUE, job.U) == id then
    keys[job.U] = false
  end
end
local begun = {}
for _, staged in ipairs(call('LRANGE', PREFIX .. 'staged_keys:' .. batch, 0, -1)) do
  local id, value = string.match(staged, '^(%S+) (.*)$')
  local job = parse('0 ' .. value)
  if not is_over(job) then
    if keys[job.U] == nil then
      keys[job.U] = call('HGET', UNIQUE, job.U)
    end
    if keys[job.U] then
      return {'taken', job.U, keys[job.U]}
    end
    keys[job.U] = id
    begun[#begun + 1] = {job.U, id}
  end
end
local first = call('HINCRBY', KEEPER, 'seq', size) - size + 1
apply(changes)
for _, holding in ipairs(begun) do
  call('HSET', UNIQUE, holding[1], holding[2])
end
call('HSET', PREFIX .. 'batch:' .. batch, 'first', first, 'size', size, 'tying', ARGV[4], 'at', 0)
call('ZADD', UNSETTLED, 0, 'b' .. batch)
call('ZREM', PREFIX .. 'stages', batch)
call('UNLINK', PREFIX .. 'staged_keys:' .. batch)
finish()
return {'ok', first}
