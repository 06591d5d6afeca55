--[[
cut.lua: what time is it, and has anything been revoked? The last command of every batch.

  KEYS   <prefix>cut                  field -> ms; `v` -> a counter raised by every change
  ARGV   [1] master_replid            the server the agent believes it talks to
         [2] fence                    not looked at; redeem.lua's second argument
         [3] version                  of the copy that the worker has; `-` for none

  Reply  now_ms, version                the worker's copy still holds
         now_ms, version, all fields    it does not; this is the new one

The version is the server's master_replid, `v`, and how many fields there are. A promoted replica may
lack the last change, and count the next one with the same number: what another server said is never
taken for this one's. The number of fields shows most hashes that somebody deleted and began anew.

One reply tells both, so no revocation can slip between looking and reading. It stands behind the
commands it vouches for: what was revoked before one of them ran is seen. And a primary that was
made a replica meanwhile says KATFENCE here, also to a batch that only reads: its sessions may be
those of yesterday.

Redis 6.2+ and Valkey.
--]]

local info = redis.call('INFO', 'replication')
if not string.find(info, 'role:master\r\n', 1, true)
    or not string.find(info, 'master_replid:' .. ARGV[1] .. '\r\n', 1, true) then
  return redis.error_reply('KATFENCE this server is not the primary that the caller expects')
end

local time = redis.call('TIME')
local now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
local changes, fields = redis.call('HGET', KEYS[1], 'v') or '', redis.call('HLEN', KEYS[1])
local version = ARGV[1] .. ' ' .. changes .. ' ' .. fields
if version == ARGV[3] then return { now, version } end
return { now, version, redis.call('HGETALL', KEYS[1]) }
