-- Let others see what a run printed, if its job is still there.
--
-- ARGV: the store; the job's id and seq; the run; what is shown.

if is_gone(ARGV[1]) then
  return gone()
end
local job = stored(ARGV[2])
if job and job.seq == ARGV[3] then
  call('HSET', PREFIX .. 'output:' .. job.seq, ARGV[4], ARGV[5])
end
return {'ok'}
