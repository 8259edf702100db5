-- Find ids by a pattern in a part of all jobs; returns where to go on, 0 at the end, and the ids.
--
-- ARGV: the store; where to begin; the pattern.

if is_gone(ARGV[1]) then
  return gone()
end
local scanned = call('HSCAN', JOBS, ARGV[2], 'MATCH', ARGV[3], 'COUNT', AT_ONCE)
local result = {'ok', scanned[1]}
for at = 1, #scanned[2], 2 do
  result[#result + 1] = scanned[2][at]
end
return result
