-- Read the settings.
--
-- ARGV: the store. Returns how they were changed last, and names and texts.

if is_gone(ARGV[1]) then
  return gone()
end
return {'ok', call('HGET', KEEPER, 'configured'), call('HGETALL', PREFIX .. 'settings')}
