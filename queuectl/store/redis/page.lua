-- Read jobs in the order of their seq.
--
-- ARGV: the store; the letters of the states; `new` to go from the newest, `old` from the oldest;
-- behind which seq, as ZRANGE has it; how many at the most.
-- Returns behind which seq to go on, empty at the end, and the ids and values.

if is_gone(ARGV[1]) then
  return gone()
end
local states, newest, from, limit = ARGV[2], ARGV[3] == 'new', ARGV[4], tonumber(ARGV[5])
local entries, ended = {}, true
local function read(key, is_lane)
  local found
  if newest then
    found = call('ZREVRANGEBYSCORE', key, from, '-inf', 'WITHSCORES', 'LIMIT', 0, limit)
  else
    found = call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
  end
  ended = ended and #found < 2 * limit
  for at = 1, #found, 2 do
    entries[#entries + 1] = {tonumber(found[at + 1]), found[at], is_lane}
  end
end
for state in string.gmatch(states, '%l') do
  if state == 'p' then
    for _, lane in ipairs(call('ZRANGE', LANES, 0, -1)) do
      read(LANE .. lane, true)
    end
    read(HELD, false)
  else
    read(IN .. state, false)
  end
end
table.sort(entries, function(a, b)
  if newest then
    return a[1] > b[1]
  end
  return a[1] < b[1]
end)
local result = {'ok', ''}
for at = 1, math.min(limit, #entries) do
  local id = entries[at][2]
  local value = call('HGET', JOBS, id)
  -- What failed stands in a lane too.
  if not entries[at][3] or string.find(value, '^%d+ %d+ %d+ p') then
    result[#result + 1] = id
    result[#result + 1] = value
  end
end
if #entries > limit or not ended then
  result[2] = '(' .. string.format('%.0f', entries[math.min(limit, #entries)][1])
end
return result
