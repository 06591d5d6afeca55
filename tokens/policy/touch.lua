--[[
touch.lua: read sessions, and have each live on for its idle time. GETEX for many keys in one call:
there is MGET, and no MGETEX.

  KEYS   <prefix>s:<h> ...
  ARGV   [1] [2] master_replid and fence, not looked at: cut.lua, which follows, looks for all
         then for each key the ms that it is to live on

  Reply  for each key its value, or null, or the error that GETEX gives for it

Redis 6.2+ and Valkey.
--]]

local reply = {}
for i = 1, #KEYS do
  reply[i] = redis.pcall('GETEX', KEYS[i], 'PX', ARGV[i + 2])
end
return reply
