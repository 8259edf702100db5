-- Save what is done, and claim the next job.
--
-- ARGV: the store; 1 if it is tried again; the worker, as in a value; the supervisor; now and
-- horizon in seconds; now in milliseconds; id and value of what is done, empty if nothing is; for
-- how many milliseconds the claim holds; 1 if the worker has joined; how many queues, -1 for all;
-- the queues.
-- Returns how the settings were changed last, the time in milliseconds, whether to ask again, when
-- the next falls due, and the id and value of the claimed job. To ask again is 1, or 2 if the worker
-- must join again before that: others took it for dead, and without a lease nobody would know that
-- it lives.

local identity, configured = unpack(call('HMGET', KEEPER, 'id', 'configured'))
if identity ~= ARGV[1] then
  return gone()
end
local again, worker, supervisor = ARGV[2] == '1', ARGV[3], ARGV[4]
local now, horizon = tonumber(ARGV[5]), tonumber(ARGV[6])
local done, value = ARGV[8], ARGV[9]
if done ~= '' then
  local job = parse(value)
  local old, before = stored(done)
  if not (again and before == value) then
    local refused = refusal(done, old, job.seq, job.rev, job.runs)
    if refused then
      return refused
    end
    apply({{done, old, job, value}})
  end
end

local time = server_time()
local serves = server_of(13, tonumber(ARGV[12]))

if again then
  for _, id in ipairs(call('ZRANGE', IN .. 'r', 0, -1)) do
    local job, held = stored(id)
    if id ~= done and job.W == worker then
      renew(worker, time + ARGV[10])
      finish()
      return {'ok', configured, time, 0, '', id, held}
    end
  end
end
if supervisor ~= '' and call('SISMEMBER', PREFIX .. 'stopping', supervisor) == 1 then
  finish()
  return {'ok', configured, time, 0, ''}
end

local more, unsettled = false, false
if call('EXISTS', UNSETTLED, TIMED) > 0 then
  unsettled = settle()
  left = AT_ONCE
  more = promote(now, horizon)
end
local found = not more and choose(now, horizon, serves, done)
if not found then
  more = more or unsettled or left <= 0
  finish()
  return {'ok', configured, time, more and 1 or 0, more and '' or next_due(serves)}
end

if not renew(worker, time + ARGV[10]) and ARGV[11] == '1' then
  finish()
  return {'ok', configured, time, 2, ''}
end
local id, job, was = found[1], found[2], found[3]
local rest = string.gsub(job.rest, ' [TESGV]%d+', '')
local line = job.seq .. ' ' .. (job.rev + 1) .. ' ' .. (job.runs + 1) .. ' r' .. rest
  .. ' W' .. worker .. ' C' .. ARGV[7]
local stop = string.find(was, '\n', 1, true)
local claimed = line .. string.sub(was, stop)
put(id, job, parse_line(line), claimed)
finish()
return {'ok', configured, time, 0, '', id, claimed}
