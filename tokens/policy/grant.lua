--[[
grant.lua: open or end IP grants of one ACL. The one writer of ours; see docs/redis-contract.md for
what any other program may write by hand.

  KEYS   [1] <prefix>grants:{<acl>}        sorted set: address or network -> ms at which it ends
         [2] <prefix>grants:{<acl>}:meta   hash beside it: the same -> whose it is, in JSON
  ARGV   [1] `open` or `end`
         [2] channel                       where readers that mirror grants listen
         [3] acl                           what they are told

         open: member, ttl_ms, sub, by     sub and by in UTF-8
         end:  field, value, members ...   only the claims that have this value in this field; field
                                           empty: all claims. No members: all of the ACL

  Reply  open: the ms at which the grant ends; end: for how many members a claim that stood ended

Several may claim one address: visitors behind one router, an admin beside them. The grant stands as
long as its longest claim, and its score says so, for readers ask nothing but the score. Whoever's
claim ends, the others keep theirs:

    {"sub":..,"by":..,"iat":ms,"also":[{"sub":..,"by":..,"iat":ms,"end":ms}, ...]}

The longest stands first, and its end is the score; so {"sub":..,"by":..,"iat":ms}, as others write
it, is one claim. Nobody has two with the same `sub` and `by`: the longer one counts. No `end` beyond
the score counts: ending a claim never lengthens a grant.

No EXPIREAT for the keys: it would cut short what another program adds by a plain ZADD. Instead each
writer removes some of what is over.

Redis 6.2+ and Valkey. Both keys have one hash tag, so a cluster needs nothing special.
--]]

local MAX_INTEGER = 9007199254740992 -- 2^53: beyond it a Lua number skips integers
local MAX_TRIMMED = 100 -- 0.1 ms, and more than one grant adds
local MAX_TTL_MS = 2592000000 -- 30 days: revocations are remembered for longer than that

-- An office behind one address; the one that would end first makes room. 5 KB at worst, as every
-- one of them is read and written with each change.
local MAX_CLAIMS = 16

local grants, meta = KEYS[1], KEYS[2]
local verb, channel, acl = ARGV[1], ARGV[2], ARGV[3]

-- Whether anybody hears of it or not, and may: readers that mirror grants look every second too.
local function publish() redis.pcall('PUBLISH', channel, acl) end

local time = redis.call('TIME')
local now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000

-- Put a claim behind those that end no earlier.
local function place(claims, claim)
  local at = #claims + 1
  while at > 1 and claims[at - 1].ends < claim.ends do at = at - 1 end
  table.insert(claims, at, claim)
end

-- What another program wrote without saying whose it is, is a claim too: of nobody.
local function claim_of(holder, ends)
  local iat = holder.iat
  local is_time = type(iat) == 'number' and iat >= 0 and iat <= MAX_INTEGER
  return {
    sub = type(holder.sub) == 'string' and holder.sub or nil,
    by = type(holder.by) == 'string' and holder.by or nil,
    iat = is_time and iat or nil,
    ends = ends,
  }
end

-- The claims that stand, the longest first, and the score; none and 0 when the grant is over.
local function claims_on(member)
  local score = tonumber(redis.call('ZSCORE', grants, member) or 0)
  if score <= now then return {}, 0 end
  local readable, holder = pcall(cjson.decode, redis.call('HGET', meta, member) or '')
  if not readable or type(holder) ~= 'table' then holder = {} end
  local claims = {claim_of(holder, score)}
  local also = type(holder.also) == 'table' and holder.also or {}
  for i = 1, math.min(#also, MAX_CLAIMS - 1) do
    local ends = type(also[i]) == 'table' and also[i]['end']
    if type(ends) == 'number' and ends > now then
      place(claims, claim_of(also[i], math.min(ends, score, MAX_INTEGER)))
    end
  end
  return claims, score
end

local function object(claim, tail)
  local fields = {}
  if claim.sub then table.insert(fields, '"sub":' .. cjson.encode(claim.sub)) end
  if claim.by then table.insert(fields, '"by":' .. cjson.encode(claim.by)) end
  -- Not by cjson, which rounds what has more than 14 digits.
  if claim.iat then table.insert(fields, string.format('"iat":%d', claim.iat)) end
  table.insert(fields, tail)
  return '{' .. table.concat(fields, ',') .. '}'
end

local function as_json(claims)
  local also = {}
  for i = 2, #claims do
    also[i - 1] = object(claims[i], string.format('"end":%d', claims[i].ends))
  end
  return object(claims[1], #also > 0 and '"also":[' .. table.concat(also, ',') .. ']' or nil)
end

local function open(member, ttl_ms, sub, by)
  local over = redis.call('ZRANGEBYSCORE', grants, '-inf', now, 'LIMIT', 0, MAX_TRIMMED)
  if #over > 0 then
    redis.call('ZREM', grants, unpack(over))
    redis.call('HDEL', meta, unpack(over))
  end
  local claims, score = claims_on(member)
  local ends = now + ttl_ms
  for i, claim in ipairs(claims) do
    if claim.sub == sub and claim.by == by then
      if claim.ends >= ends then return math.min(score, MAX_INTEGER) end
      table.remove(claims, i)
      break
    end
  end
  place(claims, {sub = sub, by = by, iat = now, ends = ends})
  claims[MAX_CLAIMS + 1] = nil
  -- The holder first: were the second write refused, no grant may stand that nobody finds.
  redis.call('HSET', meta, member, as_json(claims))
  if ends > score then
    redis.call('ZADD', grants, ends, member)
    publish()
  end
  return math.min(math.max(ends, score), MAX_INTEGER)
end

local function end_claims(member, field, value)
  local claims, score = claims_on(member)
  local left = {}
  for _, claim in ipairs(claims) do
    if field ~= '' and claim[field] ~= value then table.insert(left, claim) end
  end
  local has_ended = #left < #claims
  if not has_ended and #claims > 0 then return false end
  -- Gone before it is written anew: a Redis that is full lets a script go on that has begun by
  -- removing something.
  if #left == 0 or left[1].ends < score then redis.call('ZREM', grants, member) end
  redis.call('HDEL', meta, member)
  if #left > 0 then
    redis.call('HSET', meta, member, as_json(left))
    if left[1].ends < score then redis.call('ZADD', grants, left[1].ends, member) end
  end
  return has_ended
end

local function end_some(field, value, first)
  local ended = 0
  for i = first, #ARGV do
    if end_claims(ARGV[i], field, value) then ended = ended + 1 end
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
if ended > 0 then publish() end
return ended
