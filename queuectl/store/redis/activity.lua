-- Read what runs, and what failed last.
--
-- ARGV: the store; how many failures. Returns how many run, then ids and values.

if is_gone(ARGV[1]) then
  return gone()
end
local running = call('ZRANGE', IN .. 'r', 0, -1)
local failed = call('ZREVRANGE', FAILURES, 0, ARGV[2] - 1, 'WITHSCORES')
local result = {'ok', #running}
local function read(id)
  result[#result + 1] = id
  result[#result + 1] = call('HGET', JOBS, id)
end
for _, id in ipairs(running) do
  read(id)
end
for at = 1, #failed, 2 do
  -- Those of the last millisecond are read together: which of them are meant, the seq decides.
  if failed[at + 1] ~= failed[#failed] then
    read(failed[at])
  end
end
if #failed > 0 then
  for _, id in ipairs(call('ZRANGEBYSCORE', FAILURES, failed[#failed], failed[#failed])) do
    read(id)
  end
end
return result
