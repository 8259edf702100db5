-- Read what was shared of a run, or forget it; empty if there is nothing.
--
-- ARGV: the store; the job's id; the run; 1 to forget it.

if is_gone(ARGV[1]) then
  return gone()
end
local job = stored(ARGV[2])
local key = job and PREFIX .. 'output:' .. job.seq
if key and ARGV[4] == '1' then
  call('HDEL', key, ARGV[3])
end
return {'ok', key and call('HGET', key, ARGV[3]) or ''}
