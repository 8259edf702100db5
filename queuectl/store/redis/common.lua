-- What all scripts share: how a job is kept, and where.
--
-- A job's value is a line of what scripts need, and behind it JSON, which no script reads or
-- writes: it would come back changed. Whatever is asked of many jobs follows from where their ids
-- stand, and `place` alone says where one that waits belongs. Every script runs alone, so between
-- two of them all of it agrees, but for what `unsettled` names: jobs that are to be placed anew,
-- because one that they wait for changed, or that were added in a batch too large for one script.
-- Until that is done, `kept` keeps a claim from trusting their place.
--
--   jobs        hash    id -> value
--   lanes       zset    "QUEUE:PRIORITY" of each lane that may have a job; score PRIORITY
--   lane:Q:P    zset    what waits and is due; score seq
--   held        zset    what is pending and not in a lane; score seq
--   delayed:Q   zset    what is pending and waits for its time; score that, in seconds
--   retries:Q   zset    the same of what failed; of that with a backoff of its own in
--   own:Q, early:Q      these two, the second by when its time is too far ahead to be true
--   timed       set     the queues that may have one of these
--   awaited     hash    queue -> how many failed jobs of it wait for nothing but time and turn
--   in:STATE    zset    what is in each of the other states; score seq
--   failures    zset    what failed or is dead; score when it changed, in milliseconds
--   tied        hash    seq of what others wait for -> 0 while it is not over, 1 if it is over and
--                       not completed
--   kids:SEQ    zset    who was made to wait for it; score seq
--   stage:B, staged_keys:B, batch:B, stages, reserved
--                       batches on their way, see `stage`
--   settings    hash    name -> text
--   rules       hash    queue -> `paused`, or how many of its jobs may run at once
--   members     hash    id -> record of who takes part
--   leases      zset    the same ids; score until when they count as alive, in milliseconds
--   stops       hash    the supervisors of whom a stop is asked -> s, or f for force
--   stopping    set     the supervisors under whom nothing is claimed any more
--   unique      hash    key -> id of its holder
--   output:SEQ  hash    run -> what was shared of its output
--   tally       hash    "SQUEUE" -> how many jobs of the queue are in state S; y for delayed ones
--   totals      hash    what is counted for good, as queuectl/totals.py names and counts it
--   meta        hash    id, format, version, created_at, seq, bound, configured, news, turn

local call = redis.call
local JOBS = KEYS[1]
local PREFIX = string.sub(JOBS, 1, -5)
local AT_ONCE = 1000
-- So many milliseconds without another part of a batch mean that its adder has died.
local STAGING = 5000

local KEEPER, TALLY, TOTALS = PREFIX .. 'meta', PREFIX .. 'tally', PREFIX .. 'totals'
local TIED, HELD = PREFIX .. 'tied', PREFIX .. 'held'
local LANES, LANE, TIMED = PREFIX .. 'lanes', PREFIX .. 'lane:', PREFIX .. 'timed'
local DELAYED, RETRIES = PREFIX .. 'delayed:', PREFIX .. 'retries:'
local OWN, EARLY, AWAITED = PREFIX .. 'own:', PREFIX .. 'early:', PREFIX .. 'awaited'
local IN, FAILURES, UNIQUE = PREFIX .. 'in:', PREFIX .. 'failures', PREFIX .. 'unique'
local KIDS, UNSETTLED, RULES = PREFIX .. 'kids:', PREFIX .. 'unsettled', PREFIX .. 'rules'

local tally = {}
local totals = {}
local bound, news = 0, 0
local told = {}
local known_lanes = {}
local left = AT_ONCE
local rules

local function is_gone(id)
  return call('HGET', KEEPER, 'id') ~= id
end

local function gone()
  return redis.error_reply('GONE the store was removed')
end

local function exact(number)
  return string.format('%.17g', number)
end

local function server_time()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Renew the lease of a member, if it has one; tell whether it had. First it is taken away: from a
-- server whose memory is full that is accepted, and then the rest of the script is too.
local function renew(member, ends)
  local leases = PREFIX .. 'leases'
  if call('ZREM', leases, member) == 0 then
    return false
  end
  call('ZADD', leases, ends, member)
  return true
end

local function parse_line(line)
  local seq, rev, runs, state, rest = string.match(line, '^(%d+) (%d+) (%d+) (%l)(.*)$')
  local job = {seq = seq, rev = tonumber(rev), runs = runs, state = state, P = '0', Q = 'default'}
  if rest ~= '' then
    for tag, text in string.gmatch(rest, ' (%u)(%S*)') do
      job[tag] = text
    end
  end
  job.rest = rest
  return job
end

local function parse(value)
  return parse_line(string.sub(value, 1, string.find(value, '\n', 1, true) - 1))
end

local function stored(id)
  local value = call('HGET', JOBS, id)
  if value then
    return parse(value), value
  end
end

-- A new job's value with its place, and with those of the parents that are in the same batch.
local function numbered(seq, first, value)
  local stop = string.find(value, '\n', 1, true)
  local line = seq .. ' ' .. string.sub(value, 1, stop - 1)
  line = string.gsub(line, ' A(%S+)', function(parents)
    return ' A' .. string.gsub(parents, 'n(%d+)', function(offset)
      return string.format('%.0f', first + offset)
    end)
  end)
  return parse_line(line), line .. string.sub(value, stop)
end

local function waits(job)
  return job.state == 'p' or job.state == 'f'
end

local function is_over(job)
  return job.state == 'c' or job.state == 'd' or job.state == 'x'
end

local function count(field, by)
  tally[field] = (tally[field] or 0) + by
end

local function tell_apart(job, by)
  count(job.state .. job.Q, by)
  if job.state == 'p' and job.T then
    count('y' .. job.Q, by)
  end
  if job.A and waits(job) then
    bound = bound + by
  end
end

-- What a job is to those who wait for it.
local function tie(job)
  if job == nil or not job.D or job.state == 'c' then
    return nil
  end
  return is_over(job) and '1' or '0'
end

local function each_parent(job, act)
  if job.A then
    for parent in string.gmatch(job.A, '[^,]+') do
      local any = string.sub(parent, 1, 1) == '-'
      act(any and string.sub(parent, 2) or parent, any)
    end
  end
end

local function kept(job)
  local found = false
  each_parent(job, function(parent, any)
    if not found then
      local tied = call('HGET', TIED, parent)
      found = tied and (not any or tied == '0')
    end
  end)
  return found
end

local function is_due(job, now, horizon)
  if not job.T then
    return true
  end
  local due = job.T / 1000
  return due <= now or (job.state == 'f' and due > now + (tonumber(job.B) or horizon))
end

local function enter_lane(id, job)
  local lane = job.Q .. ':' .. job.P
  call('ZADD', LANE .. lane, job.seq, id)
  if not known_lanes[lane] then
    known_lanes[lane] = true
    call('ZADD', LANES, job.P, lane)
  end
end

local function enter_time(id, job)
  local due = exact(job.T / 1000)
  call('SADD', TIMED, job.Q)
  if job.state == 'p' then
    call('ZADD', DELAYED .. job.Q, due, id)
    call('ZADD', HELD, job.seq, id)
  elseif job.B then
    call('ZADD', OWN .. job.Q, due, id)
    call('ZADD', EARLY .. job.Q, exact(job.T / 1000 - job.B), id)
  else
    call('ZADD', RETRIES .. job.Q, due, id)
  end
end

local function leave_time(id, job)
  if job.state == 'p' then
    call('ZREM', HELD, id)
    return call('ZREM', DELAYED .. job.Q, id)
  elseif job.B then
    call('ZREM', EARLY .. job.Q, id)
    return call('ZREM', OWN .. job.Q, id)
  end
  return call('ZREM', RETRIES .. job.Q, id)
end

-- Put a job that waits where it belongs.
local function place(id, job)
  if kept(job) then
    if job.state == 'p' then
      call('ZADD', HELD, job.seq, id)
    end
    return
  end
  if job.state == 'f' then
    call('HINCRBY', AWAITED, job.Q, 1)
  end
  if job.T then
    enter_time(id, job)
  else
    enter_lane(id, job)
  end
end

-- Take a job that waits from where it stands, wherever that is.
local function displace(id, job)
  local found = call('ZREM', LANE .. job.Q .. ':' .. job.P, id)
  if found == 0 and job.T then
    found = leave_time(id, job)
  elseif found == 0 and job.state == 'p' then
    call('ZREM', HELD, id)
  end
  if found == 1 and job.state == 'f' then
    call('HINCRBY', AWAITED, job.Q, -1)
  end
end

local function queue_rules()
  if rules == nil then
    rules = {}
    local all = call('HGETALL', RULES)
    for at = 1, #all, 2 do
      rules[all[at]] = all[at + 1]
    end
  end
  return rules
end

local function is_closed(queue)
  local rule = queue_rules()[queue]
  if rule == nil then
    return false
  end
  if rule == 'paused' then
    return true
  end
  local field = 'r' .. queue
  local running = (call('HGET', TALLY, field) or 0) + (tally[field] or 0)
  return running >= tonumber(rule)
end

-- The bounds of the buckets of both histograms, in milliseconds: those of queuectl/totals.py.
local BOUNDS = {100, 500, 1000, 5000, 15000, 60000, 300000, 1800000, 7200000, 43200000}
local ENDS = {c = 'completed', d = 'dead', x = 'cancelled'}

local function add(name, by)
  totals[name] = (totals[name] or 0) + by
end

local function measure(name, milliseconds)
  local bucket = 0
  while BOUNDS[bucket + 1] and milliseconds > BOUNDS[bucket + 1] do
    bucket = bucket + 1
  end
  add(name .. ':' .. bucket, 1)
  add(name .. '_ms', milliseconds)
end

-- Add to the totals what a change comes to.
local function sum_up(old, new)
  local was, state = old and old.state, new.state
  if state == was then
    return
  end
  if ENDS[state] then
    add(ENDS[state], 1)
  end
  if was == nil then
    return
  end
  if (was == 'f' or was == 'd' or was == 'x') and not is_over(new) then
    add('retried', 1)
  end
  if state == 'r' and new.C then
    local since = old.S or old.T
    if since then
      measure('waited', math.max(new.C - since, 0))
    end
  elseif was == 'r' then
    if state == 'f' or state == 'd' then
      add('failed', 1)
    end
    if new.V then
      add('rescued', 1)
    end
    if new.G then
      measure('ran', tonumber(new.G))
    end
  end
end

-- Give a job its value, or take it out if there is none; `old` is what it was, `new` what it is.
local function put(id, old, new, value)
  told[#told + 1] = (new and new.state or '-') .. ' ' .. id .. ' ' .. (new or old).Q
  if old then
    tell_apart(old, -1)
    if waits(old) then
      displace(id, old)
    end
    if old.state ~= 'p' and (new == nil or new.state ~= old.state) then
      call('ZREM', IN .. old.state, id)
    end
    if (old.state == 'f' or old.state == 'd') and not (new and new.E) then
      call('ZREM', FAILURES, id)
    end
    if old.U and not is_over(old) and (new == nil or is_over(new)) then
      if call('HGET', UNIQUE, old.U) == id then
        call('HDEL', UNIQUE, old.U)
      end
    end
  end
  if new == nil then
    call('HDEL', JOBS, id)
    call('UNLINK', PREFIX .. 'output:' .. old.seq)
    each_parent(old, function(parent)
      call('ZREM', KIDS .. parent, id)
    end)
    return
  end
  call('HSET', JOBS, id, value)
  tell_apart(new, 1)
  if old == nil then
    each_parent(new, function(parent)
      call('ZADD', KIDS .. parent, new.seq, id)
    end)
  end
  if waits(new) then
    place(id, new)
  end
  if new.state ~= 'p' and (old == nil or old.state ~= new.state) then
    call('ZADD', IN .. new.state, new.seq, id)
  end
  if new.E then
    call('ZADD', FAILURES, new.E, id)
  end
  if new.U and not is_over(new) and (old == nil or is_over(old)) then
    call('HSET', UNIQUE, new.U, id)
  end
  sum_up(old, new)
end

local function tell_of(job)
  if waits(job) then
    news = news + 1
  elseif job.D or queue_rules()[job.Q] then
    news = news + (job.D or 0) + 1
  end
end

-- Place anew those who wait for a job, from the one behind `from` on.
local function stir(name, from)
  local seq = string.match(name, '%d+$')
  if left <= 0 then
    call('ZADD', UNSETTLED, from, name)
    return
  end
  local found = call('ZRANGEBYSCORE', KIDS .. seq, '(' .. from, '+inf', 'WITHSCORES', 'LIMIT', 0, left)
  for at = 1, #found, 2 do
    local job = stored(found[at])
    if job and waits(job) then
      displace(found[at], job)
      place(found[at], job)
    end
  end
  local was_all = #found < 2 * left
  left = left - #found / 2
  if not was_all then
    call('ZADD', UNSETTLED, found[#found], name)
    return
  end
  call('ZREM', UNSETTLED, name)
  if string.sub(name, 1, 1) == 'x' then
    call('UNLINK', KIDS .. seq)
  end
end

-- Make changes, each {id, old, new, value}: all of them, as everything was checked before.
local function apply(changes)
  local stirred = {}
  for _, change in ipairs(changes) do
    local old, new = change[2], change[3]
    local before, after = tie(old), tie(new)
    if before ~= after then
      local seq = (new or old).seq
      if after then
        call('HSET', TIED, seq, after)
      else
        call('HDEL', TIED, seq)
      end
      if old and old.D then
        stirred[#stirred + 1] = new and seq or 'x' .. seq
      end
    elseif new == nil and old.D then
      stirred[#stirred + 1] = 'x' .. old.seq
    end
  end
  for _, change in ipairs(changes) do
    put(change[1], change[2], change[3], change[4])
    if change[3] or not waits(change[2]) then
      tell_of(change[3] or change[2])
    end
  end
  for _, name in ipairs(stirred) do
    stir(name, '-1')
  end
end

-- Why a change may not be saved, if it may not: it must follow from what is there.
local function refusal(id, old, seq, rev, runs)
  if old and old.seq == seq and old.rev + 1 == rev then
    return nil
  end
  local holds = old and old.state == 'r' and old.seq == seq and old.runs == runs
  return {(holds or runs == '0') and 'conflict' or 'lost', id}
end

-- Write down what the changes come to, and tell those who listen: of what may be claimed, and of
-- each change, as STATE ID QUEUE, with a dash for the state of what is purged.
local function finish()
  for field, by in pairs(tally) do
    if by ~= 0 and call('HINCRBY', TALLY, field, by) == 0 then
      call('HDEL', TALLY, field)
    end
  end
  for name, by in pairs(totals) do
    call('HINCRBY', TOTALS, name, string.format('%.0f', by))
  end
  if bound ~= 0 then
    call('HINCRBY', KEEPER, 'bound', bound)
  end
  if news > 0 then
    call('HINCRBY', KEEPER, 'news', news)
    call('PUBLISH', PREFIX .. 'news', 'n' .. news)
  end
  if #told > 0 then
    call('PUBLISH', PREFIX .. 'changes', table.concat(told, '\n'))
  end
end

-- Whether an id is taken: by a job, or by a batch that is being added, unless its adder has died.
local function is_taken(id, batch)
  if call('HEXISTS', JOBS, id) == 1 then
    return true
  end
  local other = call('HGET', PREFIX .. 'reserved', id)
  if not other or other == batch then
    return false
  end
  if call('ZSCORE', UNSETTLED, 'b' .. other) then
    return true
  end
  local staged_at = call('ZSCORE', PREFIX .. 'stages', other)
  if staged_at and tonumber(staged_at) > server_time() - STAGING then
    return true
  end
  if staged_at then
    -- Should it live after all, `begin` will refuse it.
    call('ZADD', PREFIX .. 'stages', 0, other)
  end
  return false
end

-- Place the next jobs of a batch whose commit was made; first tell apart those that others in it
-- wait for, wherever they stand in it.
local function place_batch(token)
  local batch, stage = PREFIX .. 'batch:' .. token, PREFIX .. 'stage:' .. token
  local first, size, tying, at = unpack(call('HMGET', batch, 'first', 'size', 'tying', 'at'))
  first, at = tonumber(first), tonumber(at)
  local last = math.min(at + left, tonumber(size))
  local changes = {}
  left = left - (last - at)
  local values = call('LRANGE', stage, at, last - 1)
  for number, staged in ipairs(values) do
    local seq = string.format('%.0f', first + at + number - 1)
    local id, value = string.match(staged, '^(%S+) (.*)$')
    local job, whole = numbered(seq, first, value)
    changes[number] = {id, nil, job, whole}
  end
  if tying == '1' then
    for _, change in ipairs(changes) do
      local tied = tie(change[3])
      if tied then
        call('HSET', TIED, change[3].seq, tied)
      end
    end
  else
    for _, change in ipairs(changes) do
      call('HDEL', PREFIX .. 'reserved', change[1])
    end
    apply(changes)
  end
  if last < tonumber(size) then
    call('HSET', batch, 'at', last)
  elseif tying == '1' then
    call('HSET', batch, 'at', 0, 'tying', 0)
  else
    call('UNLINK', batch, stage)
    call('ZREM', UNSETTLED, 'b' .. token)
  end
end

-- Go on with what was left to be done; tell whether there is still something.
local function settle()
  while left > 0 do
    local first = call('ZRANGE', UNSETTLED, 0, 0, 'WITHSCORES')
    if #first == 0 then
      return false
    end
    if string.sub(first[1], 1, 1) == 'b' then
      place_batch(string.sub(first[1], 2))
    else
      stir(first[1], first[2])
    end
  end
  return call('EXISTS', UNSETTLED) == 1
end
