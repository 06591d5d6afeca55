--[[
grant.lua: open or end IP grants of one ACL. The one writer of ours; see docs/redis-contract.md for
what any other program may write by hand.

  KEYS   [1] <prefix>grants:{<acl>}        sorted set: address or network -> ms at which it ends
         [2] <prefix>grants:{<acl>}:meta   hash beside it: the same -> {"sub":..,"by":..,"iat":ms}
  ARGV   [1] `open` or `end`
         [2] channel                       where readers that mirror grants listen
         [3] acl                           what they are told

         open: member, ttl_ms, sub, by     sub and by in UTF-8
         end:  field, value, members ...   only those whose meta has this value in this field; field
                                           empty: whoever holds them. No members: all of the ACL

  Reply  open: the ms at which it ends; end: how many grants stood and do no longer

An address has one grant per ACL, whoever it was opened for; it belongs to whom it lasts longest. A
second one never shortens the first: then nothing is written, and the first one's holder remains, so
that revoking him ends it.

No EXPIREAT for the keys: it would cut short what another program adds by a plain ZADD. Instead each
writer removes some of what is over.

Redis 6.2+ and Valkey. Both keys have one hash tag, so a cluster needs nothing special.
--]]

local MAX_INTEGER = 9007199254740992 -- 2^53: beyond it a Lua number skips integers
local MAX_TRIMMED = 100 -- 0.1 ms, and more than one grant adds
local MAX_TTL_MS = 2592000000 -- 30 days: revocations are remembered for longer than that

local grants, meta = KEYS[1], KEYS[2]
local verb, channel, acl = ARGV[1], ARGV[2], ARGV[3]

local time = redis.call('TIME')
local now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000

local function open(member, ttl_ms, sub, by)
  local over = redis.call('ZRANGEBYSCORE', grants, '-inf', now, 'LIMIT', 0, MAX_TRIMMED)
  if #over > 0 then
    redis.call('ZREM', grants, unpack(over))
    redis.call('HDEL', meta, unpack(over))
  end
  local stands_until = tonumber(redis.call('ZSCORE', grants, member) or 0)
  local ends = now + ttl_ms
  if stands_until >= ends then return math.min(stands_until, MAX_INTEGER) end
  -- The holder first: were the second write refused, no grant may stand that nobody finds.
  local holder = '{"sub":' .. cjson.encode(sub) .. ',"by":' .. cjson.encode(by)
    .. ',"iat":' .. string.format('%d', now) .. '}'
  redis.call('HSET', meta, member, holder)
  redis.call('ZADD', grants, ends, member)
  redis.call('PUBLISH', channel, acl)
  return ends
end

local function is_held(member, field, value)
  if field == '' then return true end
  local readable, holder = pcall(cjson.decode, redis.call('HGET', meta, member) or '')
  return readable and type(holder) == 'table' and holder[field] == value
end

local function end_some(field, value, first)
  local ended = 0
  for i = first, #ARGV do
    local member = ARGV[i]
    local stands_until = tonumber(redis.call('ZSCORE', grants, member) or 0)
    if is_held(member, field, value) then
      redis.call('ZREM', grants, member)
      redis.call('HDEL', meta, member)
      if stands_until > now then ended = ended + 1 end
    end
  end
  return ended
end

local function end_all()
  local ended = redis.call('ZCOUNT', grants, '(' .. string.format('%d', now), '+inf')
  redis.call('UNLINK', grants, meta)
  return ended
end

if verb == 'open' and #ARGV == 7 then
  local ttl_ms = tonumber(ARGV[5])
  if ttl_ms and ttl_ms >= 1 and ttl_ms <= MAX_TTL_MS then
    return open(ARGV[4], ttl_ms, ARGV[6], ARGV[7])
  end
end
if verb ~= 'end' or #ARGV < 5 or (#ARGV == 5 and ARGV[4] ~= '') then
  return redis.error_reply('KATARGS ' .. #ARGV .. ' arguments, or a wrong one')
end
local ended = #ARGV == 5 and end_all() or end_some(ARGV[4], ARGV[5], 6)
if ended > 0 then redis.call('PUBLISH', channel, acl) end
return ended
