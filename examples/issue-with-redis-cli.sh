#!/bin/sh
# Issue a token with redis-cli:  issue-with-redis-cli.sh USER ACL TTL
#
# Prints the token and nothing else. Where Redis is, redis-cli learns in its own way: the password
# in REDISCLI_AUTH, and its other options in REDIS_CLI, such as "-h redis.example --user portal".
# Nothing secret ever stands in an argument, where `ps` would show it: printf is built in.
set -eu
LC_ALL=C
export LC_ALL

fail() { printf '%s: %s\n' "${0##*/}" "$2" >&2; exit "$1"; }

[ $# = 3 ] || fail 2 "give it a user, an ACL and the seconds that the token lives"
user=$1 acl=$2 ttl=$3
# Only what neither JSON nor redis-cli would have to quote.
case $user in '' | *[!0-9A-Za-z._@-]*) fail 2 "the user may hold 0-9 A-Z a-z . _ @ - only" ;; esac
case $acl in '' | *[!0-9A-Za-z._-]*) fail 2 "the ACL may hold 0-9 A-Z a-z . _ - only" ;; esac
case $ttl in '' | 0* | *[!0-9]* | ??????*) fail 2 "the seconds must be 1 to 86400" ;; esac
[ ${#user} -le 128 ] || fail 2 "the user has ${#user} characters, 128 are allowed"
[ ${#acl} -le 64 ] || fail 2 "the ACL has ${#acl} characters, 64 are allowed"
[ "$ttl" -le 86400 ] || fail 2 "the seconds must be 1 to 86400"

# gzip ends its output with the CRC-32 of what it read: 4 bytes, lowest first, then 4 of the size.
checksum() {
  gzip -c | tail -c 8 | od -An -N4 -tu1 | awk '{
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    crc = (($4 * 256 + $3) * 256 + $2) * 256 + $1
    for (i = 0; i < 6; i++) { text = substr(digits, crc % 62 + 1, 1) text; crc = int(crc / 62) }
    printf "%s", text
  }'
}

mint() {
  body=kat_$(tr -dc 0-9A-Za-z </dev/urandom | head -c 32)
  [ ${#body} = 36 ] || fail 1 "/dev/urandom gives nothing"
  token=$body$(printf %s "$body" | checksum)
}

# Name the Redis that is meant; a URL may hold a password.
where() {
  host=127.0.0.1 port=6379
  while [ $# -gt 1 ]; do
    case $1 in
    -h) host=$2 ;;
    -p) port=$2 ;;
    -s) printf %s "$2"; return ;;
    -u) printf %s "the URL in REDIS_CLI"; return ;;
    esac
    shift
  done
  printf %s "$host:$port"
}

record="{\"v\":1,\"sub\":\"$user\",\"acl\":[\"$acl\"],\"ttl\":$ttl}"
# A null, an error or no reply: nobody knows whether the token stands. So never the same one again.
for _ in 1 2 3; do
  mint
  h=$(printf %s "$token" | sha256sum | cut -d ' ' -f 1)
  status=0
  reply=$(printf "SET kat:t:%s '%s' EX %s NX\n" "$h" "$record" "$ttl" |
    timeout 5 redis-cli --no-auth-warning ${REDIS_CLI-} 2>&1) || status=$?
  [ "$reply" != OK ] || { printf '%s\n' "$token"; exit; }
done
reply=${reply%%, with args*} # Redis quotes what it does not understand
case $status-$reply in
124-*) why="no answer within 5 s" ;;
*WRONGPASS* | *NOAUTH*) why="it refuses the user or the password: see REDISCLI_AUTH, and --user" ;;
*NOPERM*) why="it does not permit this user that: see Least privilege in docs/redis-contract.md" ;;
*"not connect"*) why="it cannot be reached: is it running, and does REDIS_CLI say where?" ;;
*-) why="a null reply" ;;
*) why="redis-cli says: $(printf %s "$reply" | head -n 1)" ;;
esac
fail 1 "Redis at $(where ${REDIS_CLI-}) did not confirm a token: $why"
