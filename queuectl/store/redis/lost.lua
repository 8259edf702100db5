-- Find what the dead held. Whose lease is over is the caller's for a while.
--
-- ARGV: the store; 1 to look also for claims of workers that nobody knows; for how many
-- milliseconds the dead are the caller's; the ids of those that it knows to be dead.
-- Returns of each its id, record, and id and value of its job, all but the first may be empty.

if is_gone(ARGV[1]) then
  return gone()
end
local members, leases = PREFIX .. 'members', PREFIX .. 'leases'
local held, holders = {}, {}
for _, id in ipairs(call('ZRANGE', IN .. 'r', 0, -1)) do
  local job, value = stored(id)
  if job.W then
    held[job.W] = {id, value}
    holders[#holders + 1] = job.W
  end
end
local result, found = {'ok'}, {}
local function tell(member, record)
  if found[member] then
    return
  end
  found[member] = true
  local has = held[member] or {'', ''}
  for _, part in ipairs({member, record or '', has[1], has[2]}) do
    result[#result + 1] = part
  end
end
for at = 4, #ARGV do
  tell(ARGV[at])
end
local now = server_time()
for _, member in ipairs(call('ZRANGEBYSCORE', leases, '-inf', '(' .. now, 'LIMIT', 0, AT_ONCE)) do
  call('ZADD', leases, now + ARGV[3], member)
  tell(member, call('HGET', members, member))
end
if ARGV[2] == '1' then
  for _, worker in ipairs(holders) do
    if call('HEXISTS', members, worker) == 0 then
      tell(worker)
    end
  end
end
return result
