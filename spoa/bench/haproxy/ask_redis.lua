-- What one would write without an agent: take the token's record out of Redis, and let in whom it
-- names. A socket belongs to the request that opened it, so each request connects anew. There is no
-- policy in this: no ACL, no binding, no revocation, no replay told from a wrong token, no audit.

local store = os.getenv("KAT_STORE")

core.register_action("ask_redis", { "http-req" }, function(txn)
  local token = txn:get_var("txn.gate.token")
  if not token then return end
  local key = "kat:t:" .. txn.c:hex(txn.c:sha2(token, 256)):lower()

  local redis = core.tcp()
  redis:settimeout(1)
  if not redis:connect(store) then return end
  redis:send("*2\r\n$6\r\nGETDEL\r\n$" .. #key .. "\r\n" .. key .. "\r\n")
  local size = tonumber((redis:receive("*l") or ""):match("^%$(%d+)"))
  local record = size and redis:receive(size)
  redis:close()

  local user = record and record:match('"sub":"([^"]*)"')
  if not user then return end
  txn:set_var("txn.kat.user", user)
  txn:set_var("txn.kat.acl", "demo")
  txn:set_var("txn.kat.allow", true)
end)
