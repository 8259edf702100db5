-- Add, save and remove jobs, all or none.
--
-- ARGV: the store; 1 if it is tried again after an outcome that is unknown; how many are saved, new
-- and removed; of each saved job its id and value, of each new one its id and its value without
-- seq, of each removed one its id, seq, the rev that would follow, and runs.

if is_gone(ARGV[1]) then
  return gone()
end
local again = ARGV[2] == '1'
local saved, new, removed = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local first = call('HGET', KEEPER, 'seq') + 1
local changes, begun, seen, keys = {}, {}, {}, {}

local function holder(key)
  if keys[key] == nil then
    keys[key] = call('HGET', UNIQUE, key)
  end
  return keys[key]
end

local saved_at, new_at = 6, 6 + 2 * saved
local at = new_at
for number = 1, new do
  local id = ARGV[at]
  if seen[id] or is_taken(id, '') then
    return {'exists', id}
  end
  seen[id] = true
  at = at + 2
end
local function check(id, seq, rev, runs)
  local old, value = stored(id)
  if seen[id] then
    return nil, nil, {'conflict', id}
  end
  seen[id] = true
  return old, value, refusal(id, old, seq, rev, runs)
end
at = new_at + 2 * new
for _ = 1, removed do
  local old, _, refused = check(ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3])
  if refused then
    return refused
  end
  changes[#changes + 1] = {ARGV[at], old, nil}
  at = at + 4
end
at = saved_at
for _ = 1, saved do
  local id, value = ARGV[at], ARGV[at + 1]
  local job = parse(value)
  local old, before, refused = check(id, job.seq, job.rev, job.runs)
  if not (again and before == value) then
    if refused then
      return refused
    end
    changes[#changes + 1] = {id, old, job, value}
    if job.U and is_over(job) and not is_over(old) then
      if holder(job.U) == id then
        keys[job.U] = false
      end
    elseif job.U and is_over(old) and not is_over(job) then
      begun[#begun + 1] = changes[#changes]
    end
  end
  at = at + 2
end
at = new_at
for number = 1, new do
  local seq = string.format('%.0f', first + number - 1)
  local job, value = numbered(seq, first, ARGV[at + 1])
  local change = {ARGV[at], nil, job, value}
  changes[#changes + 1] = change
  if job.U and not is_over(job) then
    begun[#begun + 1] = change
  end
  at = at + 2
end
for _, change in ipairs(begun) do
  local id, key = change[1], change[3].U
  local taken = holder(key)
  if taken and taken ~= id then
    return {'taken', key, taken}
  end
  keys[key] = id
end

if #changes == 0 then
  return {'ok', first}
end
if new > 0 then
  call('HINCRBY', KEEPER, 'seq', new)
end
apply(changes)
finish()
return {'ok', first}
