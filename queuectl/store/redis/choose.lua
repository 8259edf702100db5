-- Choosing the next job; what `claim`, `look` and `oldest` share.

-- Let what has fallen due stand in its lane; tell whether more has.
local function promote(now, horizon)
  local function let(queue, key, least, most)
    if left <= 0 then
      return
    end
    for _, id in ipairs(call('ZRANGEBYSCORE', key .. queue, least, most, 'LIMIT', 0, left)) do
      left = left - 1
      local job = stored(id)
      if is_due(job, now, horizon) then
        leave_time(id, job)
        enter_lane(id, job)
      end
    end
  end
  local moment, far = exact(now), exact(now + horizon)
  for _, queue in ipairs(call('SMEMBERS', TIMED)) do
    let(queue, DELAYED, '-inf', moment)
    let(queue, RETRIES, '-inf', moment)
    let(queue, RETRIES, '(' .. far, '+inf')
    let(queue, OWN, '-inf', moment)
    let(queue, EARLY, '(' .. moment, '+inf')
    local keys = {DELAYED .. queue, RETRIES .. queue, OWN .. queue}
    if call('EXISTS', unpack(keys)) == 0 then
      call('SREM', TIMED, queue)
    end
  end
  return left <= 0
end

-- The first of a lane that may be claimed. What may not, because the clock stepped back or a parent
-- began anew, goes where it belongs.
local function first_of(lane, now, horizon, done)
  while left > 0 do
    local ids = call('ZRANGE', LANE .. lane, 0, 1)
    local moved = false
    for _, id in ipairs(ids) do
      if id ~= done and not moved then
        local job, value = stored(id)
        local is_kept = kept(job)
        if not is_kept and is_due(job, now, horizon) then
          return {id, job, value}
        end
        moved = true
        left = left - 1
        displace(id, job)
        place(id, job)
      end
    end
    if not moved then
      if #ids == 0 then
        call('ZREM', LANES, lane)
      end
      return nil, #ids == 0
    end
  end
end

-- The next job: of the highest priority, the oldest.
local function choose(now, horizon, serves, done)
  local best, priority
  local at = 0
  while left > 0 do
    local lanes = call('ZREVRANGE', LANES, at, at + 15)
    for _, lane in ipairs(lanes) do
      local queue, of = string.match(lane, '^(.*):(-?%d+)$')
      of = tonumber(of)
      if best and of < priority then
        return best
      end
      at = at + 1
      if serves(queue) then
        local found, was_empty = first_of(lane, now, horizon, done)
        if was_empty then
          at = at - 1
        end
        if found and (best == nil or tonumber(found[2].seq) < tonumber(best[2].seq)) then
          best, priority = found, of
        end
      end
    end
    if #lanes < 16 then
      break
    end
  end
  return best
end

-- Tells whether a queue is among those asked for, from ARGV[from] on, and open.
local function server_of(from, queues)
  local asked, known = {}, {}
  for at = from, from + queues - 1 do
    asked[ARGV[at]] = true
  end
  return function(queue)
    if known[queue] == nil then
      known[queue] = (queues < 0 or asked[queue] == true) and not is_closed(queue)
    end
    return known[queue]
  end
end

-- When the next retry or delayed job falls due that is served and not due yet.
local function next_due(serves)
  local least
  for _, queue in ipairs(call('SMEMBERS', TIMED)) do
    if serves(queue) then
      for _, key in ipairs({DELAYED, RETRIES, OWN}) do
        local first = call('ZRANGE', key .. queue, 0, 0, 'WITHSCORES')
        if #first > 0 and (least == nil or tonumber(first[2]) < least) then
          least = tonumber(first[2])
        end
      end
    end
  end
  return least and exact(least) or ''
end
