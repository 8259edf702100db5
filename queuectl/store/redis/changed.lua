-- Tell which jobs changed.
--
-- ARGV: the store; of each job its id and the seq and rev that are known, as in a value.
-- Returns the ids and values of the others, which are empty where there is no job.

if is_gone(ARGV[1]) then
  return gone()
end
local result = {'ok'}
for at = 2, #ARGV, 2 do
  local value = call('HGET', JOBS, ARGV[at])
  local known = value and string.match(value, '^%d+ %d+') or ''
  if known ~= ARGV[at + 1] then
    result[#result + 1] = ARGV[at]
    result[#result + 1] = value or ''
  end
end
return result
