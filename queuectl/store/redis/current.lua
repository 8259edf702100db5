-- Read a job for the one who runs it, and renew its lease.
--
-- ARGV: the store; the job's id; the worker's; for how many milliseconds.
-- Returns the time, how the settings were changed last, and the value, empty if there is no job.

if is_gone(ARGV[1]) then
  return gone()
end
local now = server_time()
renew(ARGV[3], now + ARGV[4])
return {'ok', now, call('HGET', KEEPER, 'configured'), call('HGET', JOBS, ARGV[2]) or ''}
