--[[
redeem.lua: look at each token, refuse it or consume it. The one atomic step.

  KEYS   <prefix>t:<h> ...            one per token; <h> is its SHA-256 in lowercase hex
  ARGV   [1] master_replid            the server the agent believes it talks to
         [2] fence                    ms; a token issued before it is refused
         [3] deadline_ms              how old a tombstone may be and still answer its own claim
         then eight for each key:
         claim, acl, src, host, method, path, nonce, room

         claim   minted by the agent for this one request; no spaces
         src     space separated: the client's address, then the networks it belongs to
         nonce   hex SHA-256 of the browser's cookie, or empty; behind a "!" if the token must be
                 bound to one
         room    bytes that sub and the comma-joined groups may take in the answer

  Reply  now_ms, the first claim, then for each key: kid, code, detail
                                                          always 2 + 3n entries, never a hole

         <integer>     the raw record                     consumed, now or by this same claim; the
                                                          code is the ms at which it was issued
         replayed      "<consumed_at_ms> <src>"           consumed before, by another claim
         store_error   first word of Redis's error        OOM, MISCONF, NOREPLICAS, ...
         unknown bad_record fenced early wrong_acl wrong_host wrong_method wrong_path wrong_src
         wrong_nonce                                      detail empty

Only a token whose code is an integer is consumed. Whatever else is found leaves the key as it was:
a wrong attempt never burns the owner's token. What is looked at, in this order:

  gone -> tombstone -> size, JSON, shape of the fields, room, TTL -> fence -> nbf
       -> acl -> host -> method -> path -> src -> nonce -> consume

The shape of a record is judged here: names, types, numbers, sizes. The spelling inside its texts
(UTF-8, control characters, canonical addresses) and the two fields that the consume does not read
(session, meta) are left to the agent, which reads every record strictly before it says yes. Either
judge can refuse, neither can overrule the other, and this one's time is shared by all agents.

Redis 6.2+ and Valkey. No globals, no random, one key per decision: a cluster needs nothing special.
--]]

local ARGS_BEFORE, ARGS_PER_KEY = 3, 8
local MAX_RECORD_BYTES = 4096
local MAX_NAME_BYTES = 128
local MAX_TTL_S = 86400
local MAX_INTEGER = 9007199254740992 -- 2^53: beyond it a Lua number skips integers
local FIELDS = {
  v = true, sub = true, acl = true, ttl = true, groups = true, src = true, host = true,
  method = true, path = true, nbf = true, session = true, nonce = true, meta = true,
}

local redis_call = redis.pcall -- an error is an answer here; nothing is thrown
local find, sub, lower, match = string.find, string.sub, string.lower, string.match
local decode = cjson.decode

local fence, deadline_ms = tonumber(ARGV[2]), tonumber(ARGV[3])
if #ARGV ~= ARGS_BEFORE + ARGS_PER_KEY * #KEYS or not fence or not deadline_ms then
  return redis.error_reply('KATARGS ' .. #ARGV .. ' arguments for ' .. #KEYS .. ' keys')
end

-- A promoted replica may lack the last tombstones, and a restarted server may have read an old
-- snapshot: either has a new master_replid. Until the agent has read the fence of that server,
-- nothing is consumed.
local info = redis_call('INFO', 'replication')
if type(info) ~= 'string' then return info end
if not find(info, 'role:master\r\n', 1, true)
    or not find(info, 'master_replid:' .. ARGV[1] .. '\r\n', 1, true) then
  return redis.error_reply('KATFENCE this server is not the primary that the caller expects')
end

local time = redis_call('TIME')
local now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000

-- True for a whole number from 0 to 2^53. cjson lets NaN and infinity pass; every comparison
-- with NaN is false, so each is written to fail on it.
local function is_integer(value)
  return type(value) == 'number' and value >= 0 and value <= MAX_INTEGER and value % 1 == 0
end

-- True for 1 to 128 bytes of text: a user or a group.
local function is_name(value)
  return type(value) == 'string' and value ~= '' and #value <= MAX_NAME_BYTES
end

-- True for a list with something in it. cjson reads {} and [] alike, and {"1":"a"} as a table
-- without a first element: refused, all three. A null is a value to cjson and leaves no hole.
local function is_list(value)
  return type(value) == 'table' and value[1] ~= nil
end

-- Whether a binding lets the request through: absent, or a list of texts that names `asked`.
-- Raises for any other shape, which makes the record a bad one.
local function allows(list, asked)
  if list == nil then return true end
  if not is_list(list) then error('not a list') end
  local found = false
  for i = 1, #list do
    local entry = list[i]
    if type(entry) ~= 'string' or entry == '' then error('not a text') end
    if entry == asked then found = true end
  end
  return found
end

-- The same for addresses: one of them must stand among the candidates.
local function allows_src(list, candidates)
  if list == nil then return true end
  if not is_list(list) then error('not a list') end
  local found, spaced = false, ' ' .. candidates .. ' '
  for i = 1, #list do
    local entry = list[i]
    if type(entry) ~= 'string' or not find(entry, '^[%x.:/]+$') then error('not an address') end
    if find(spaced, ' ' .. entry .. ' ', 1, true) then found = true end
  end
  return found
end

-- The same for path prefixes, which end at a segment boundary: /wiki opens /wiki and /wiki/x,
-- not /wikileaks. A path that the application might read as another one opens nothing.
local function allows_path(list, path)
  if list == nil then return true end
  if not is_list(list) then error('not a list') end
  local found = false
  for i = 1, #list do
    local prefix = list[i]
    if type(prefix) ~= 'string' or sub(prefix, 1, 1) ~= '/' then error('not a path') end
    if path == prefix or sub(path, 1, #prefix) == prefix
        and (sub(prefix, -1) == '/' or sub(path, #prefix + 1, #prefix + 1) == '/') then
      found = true
    end
  end
  if not found or find(path, '[\\;]') or find(path, '..', 1, true) or find(path, '//', 1, true) then
    return false
  end
  local escapes = lower(path)
  return not (find(escapes, '%2e', 1, true) or find(escapes, '%2f', 1, true)
    or find(escapes, '%5c', 1, true) or find(escapes, '%00', 1, true))
end

-- The same for the browser; an ACL may want every token bound.
local function allows_nonce(nonce, asked)
  if nonce == nil then return sub(asked, 1, 1) ~= '!' end
  return nonce == asked or '!' .. nonce == asked
end

-- How many bytes sub and groups take in the answer, a comma between two groups.
local function answer_bytes(record)
  local bytes, groups = #record.sub, record.groups
  if groups == nil then return bytes end
  if not is_list(groups) then error('not a list') end
  for i = 1, #groups do
    if not is_name(groups[i]) then error('not a name') end
    bytes = bytes + #groups[i] + 1
  end
  return bytes - 1 -- one comma less than groups
end

-- The name of a Redis error. 6.2 writes "@user_script: 9: -OOM command ...", 7 "OOM command ...".
local function error_name(reply)
  return match(reply.err, '%u%u+') or 'ERR'
end

-- When a record was issued, by this clock alone: its ttl, and what is left of the key's. Nil, if
-- the key outlives its record's ttl: that would move the moment into the future, past any fence.
local function issued_at(key, ttl_s)
  local ttl_ms, left_ms = ttl_s * 1000, redis_call('PTTL', key)
  if type(left_ms) ~= 'number' then return nil, error_name(left_ms) end
  if left_ms < 0 or left_ms > ttl_ms then return nil end
  return now - (ttl_ms - left_ms)
end

-- Answer for a value that starts like a tombstone: "consumed <claim> <at_ms> <src> <raw record>".
-- Not JSON, so that no issuer's record can be taken for one, nor a tombstone for a record.
local function judge_tombstone(key, value, claim)
  local consumer, at_ms, src, start = match(value, '^consumed (%S+) (%d+) (%S+) ()')
  if not consumer then return 'bad_record', '' end
  if consumer ~= claim or now - at_ms > deadline_ms then return 'replayed', at_ms .. ' ' .. src end
  local raw = sub(value, start)
  local issued_ms, trouble = issued_at(key, decode(raw).ttl)
  if trouble then return 'store_error', trouble end
  if not issued_ms then return 'unknown', '' end -- it expired at this very moment
  return issued_ms, raw
end

-- Whether the fields have the shape of the contract, as far as the consume does not look at them
-- later. May raise; that says no, too.
local function is_record(record)
  for name in next, record do
    if not FIELDS[name] then return false end -- a misspelt `src` must not mean "unbound"
  end
  local ttl_s, nbf, nonce = record.ttl, record.nbf, record.nonce
  return record.v == 1 and is_name(record.sub) and is_list(record.acl)
    and is_integer(ttl_s) and ttl_s <= MAX_TTL_S -- and above 0, or the key would outlive it
    and (nbf == nil or is_integer(nbf))
    and (nonce == nil or (type(nonce) == 'string' and #nonce == 64))
end

-- Judge one token, and consume it if all is well: code, detail. Raises only before anything is
-- consumed, when a field does not have the type that its use needs.
local function judge(key, arg)
  local raw = redis_call('GET', key)
  if not raw then return 'unknown', '' end
  if type(raw) ~= 'string' then
    local name = error_name(raw)
    if name == 'WRONGTYPE' then return 'bad_record', '' end
    return 'store_error', name
  end

  -- Before any pattern or decoder sees it. A tombstone is a record and a short line.
  if #raw > 2 * MAX_RECORD_BYTES then return 'bad_record', '' end
  local claim = ARGV[arg]
  if sub(raw, 1, 9) == 'consumed ' then return judge_tombstone(key, raw, claim) end

  if #raw > MAX_RECORD_BYTES then return 'bad_record', '' end -- before decode: 512 MB of "["
  local record = decode(raw)
  if not is_record(record) or answer_bytes(record) > tonumber(ARGV[arg + 7]) then
    return 'bad_record', ''
  end

  local issued_ms, trouble = issued_at(key, record.ttl)
  if trouble then return 'store_error', trouble end
  if not issued_ms then return 'bad_record', '' end
  if issued_ms < fence then return 'fenced', '' end
  if record.nbf and record.nbf > now then return 'early', '' end

  local src = ARGV[arg + 2]
  if not allows(record.acl, ARGV[arg + 1]) then return 'wrong_acl', '' end
  if not allows(record.host, ARGV[arg + 3]) then return 'wrong_host', '' end
  if not allows(record.method, ARGV[arg + 4]) then return 'wrong_method', '' end
  if not allows_path(record.path, ARGV[arg + 5]) then return 'wrong_path', '' end
  if not allows_src(record.src, src) then return 'wrong_src', '' end
  if not allows_nonce(record.nonce, ARGV[arg + 6]) then return 'wrong_nonce', '' end

  local address = match(src, '^%S+') or '-'
  local tombstone = 'consumed ' .. claim .. ' ' .. now .. ' ' .. address .. ' ' .. raw
  local written = redis_call('SET', key, tombstone, 'XX', 'KEEPTTL')
  if not written then return 'unknown', '' end -- it vanished: never bring back a key without TTL
  if written.err then return 'store_error', error_name(written) end
  return issued_ms, raw
end

local reply = { now, ARGV[ARGS_BEFORE + 1] }
local arg = ARGS_BEFORE + 1
for i = 1, #KEYS do
  local key = KEYS[i]
  -- Under pcall, so that a record nobody can read is refused and its neighbours notice nothing.
  local judged, code, detail = pcall(judge, key, arg)
  if not judged then code, detail = 'bad_record', '' end
  local at = 3 * i
  reply[at], reply[at + 1], reply[at + 2] = sub(key, -64, -53), code, detail
  arg = arg + ARGS_PER_KEY
end
return reply
