-- Read who takes part and is not known to be dead: of each the record, when its lease ends in
-- milliseconds, and id and run of the job that it has claimed.
--
-- ARGV: the store.

if is_gone(ARGV[1]) then
  return gone()
end
local held = {}
for _, id in ipairs(call('ZRANGE', IN .. 'r', 0, -1)) do
  local job = stored(id)
  if job.W then
    held[job.W] = {id, job.runs}
  end
end
local result = {'ok'}
local alive = call('ZRANGEBYSCORE', PREFIX .. 'leases', server_time(), '+inf', 'WITHSCORES')
for at = 1, #alive, 2 do
  local member = alive[at]
  local record = call('HGET', PREFIX .. 'members', member)
  if record then
    local has = held[member] or {'', ''}
    result[#result + 1] = record
    result[#result + 1] = alive[at + 1]
    result[#result + 1] = has[1]
    result[#result + 1] = has[2]
  end
end
return result
