--[[
revoke.lua: change what is revoked and who is blocked. The one writer of ours; any other program may
do the same by MULTI, HSET, HINCRBY v 1, EXEC, as docs/redis-contract.md says.

  KEYS   [1] <prefix>cut      hash: field -> ms; `v` -> a number that each change raises
  ARGV   [1] `cut`            field -> now: what was issued before is revoked
             `block`          field -> now + ms: until when an address is blocked
             `lift`           the field goes
         [2] field
         [3] ms               block: for how long; else 0
         [4] now              the time of the primary whose clock is ahead, or 0: tokens that live
                              elsewhere are dated by other clocks
         [5] age              ms; a cut older than that can hit nothing, and goes

  Reply  what the field says now; lift: 1, or 0 if it was not there, and then nothing has changed

Who mirrors grants is told of blocks, on <prefix>grants: `*`, which is every ACL and the name of none.

One script and not MULTI: its time is that of the change itself. Whatever was issued before it is
revoked, also what was issued while we were asking what time it is.

Redis 6.2+ and Valkey.
--]]

local key, verb, field, ms = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local age = tonumber(ARGV[5])

local time = redis.call('TIME')
local now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
now = math.max(now, tonumber(ARGV[4]))

-- No agent looks at a field without a name. Redis lets a script that has begun by removing something
-- go on when its memory is full, and a revocation must not wait until somebody has raised maxmemory.
redis.call('HDEL', key, '')

local function as_text(number) return string.format('%d', number) end

-- A time, or nil for what agents cannot read and take for the end of time: in doubt it is a no.
local function as_time(text)
  return text and string.find(text, '^%d+$') and #text <= 16 and tonumber(text) or nil
end

-- Whether anybody hears of it or not, and may: readers that mirror grants look every second too.
local function publish()
  if string.sub(field, 1, 5) == 'addr:' then
    redis.pcall('PUBLISH', string.gsub(key, 'cut$', '') .. 'grants', '*')
  end
end

local reply
if verb == 'lift' then
  reply = redis.call('HDEL', key, field)
  if reply == 0 then return 0 end
elseif verb == 'block' then
  reply = now + ms
  redis.call('HSET', key, field, as_text(reply))
else
  -- Never back: after a failover this clock may be behind the one that dated the last cut. And what
  -- cannot be read is a no without end, which somebody may have meant.
  local old = redis.call('HGET', key, field)
  local until_ms = old and as_time(old)
  reply = math.max(now, until_ms or 0)
  if not old or until_ms then redis.call('HSET', key, field, as_text(reply)) end
end

-- `v` may go with the old fields: it is written below.
local fields = redis.call('HGETALL', key)
for i = 1, #fields, 2 do
  local name, value = fields[i], as_time(fields[i + 1])
  local is_block = string.sub(name, 1, 5) == 'addr:'
  if value and value < (is_block and now or now - age) then
    redis.call('HDEL', key, name)
  end
end

-- Not only one more: after a failover that lost the last change, the next one must not get its
-- number, or the agents that saw the lost one would take the two for the same. Microseconds do not
-- come again.
local last = as_time(redis.call('HGET', key, 'v')) or 0
redis.call('HSET', key, 'v', as_text(math.max(last + 1, time[1] * 1000000 + time[2])))
publish()
return reply
