#!/bin/sh
# Issue a token with openssl and gzip alone, over TLS:  issue-with-openssl.sh USER ACL TTL
#
# Prints the token and nothing else. For machines that have neither redis-cli nor Python. From the
# environment: REDIS_HOST, REDIS_PORT (6379), REDIS_CA (file), REDIS_USER, REDIS_PASSWORD.
# Nothing secret ever stands in an argument, where `ps` would show it: printf is built in.
set -eu
LC_ALL=C # ${#word} counts bytes
export LC_ALL

fail() { printf '%s: %s\n' "${0##*/}" "$2" >&2; exit "$1"; }

[ $# = 3 ] || fail 2 "give it a user, an ACL and the seconds that the token lives"
user=$1 acl=$2 ttl=$3
# Only what JSON would not have to quote.
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
  body=kat_$(openssl rand -base64 60 | tr -dc 0-9A-Za-z | head -c 32)
  [ ${#body} = 36 ] || fail 1 "openssl gives no random characters"
  token=$body$(printf %s "$body" | checksum)
}

# One command as Redis reads it, each word behind its length.
word_by_word() { printf '*%d\r\n' $#; for word; do printf '$%d\r\n%s\r\n' ${#word} "$word"; done; }

all_well="+OK +OK "
[ -z "${REDIS_PASSWORD-}" ] || all_well="+OK $all_well"
converse() {
  [ -z "${REDIS_PASSWORD-}" ] || word_by_word AUTH "${REDIS_USER:-default}" "$REDIS_PASSWORD"
  word_by_word SET "kat:t:$h" "$record" EX "$ttl" NX
  word_by_word QUIT
}

record="{\"v\":1,\"sub\":\"$user\",\"acl\":[\"$acl\"],\"ttl\":$ttl}"
host=${REDIS_HOST:-localhost}
# A null, an error or no reply: nobody knows whether the token stands. So never the same one again.
for _ in 1 2 3; do
  mint
  h=$(printf %s "$token" | openssl dgst -sha256 -r | cut -d ' ' -f 1)
  replies=$(converse | timeout 5 openssl s_client -quiet -verify_return_error \
    -verify_hostname "$host" -servername "$host" -connect "$host:${REDIS_PORT:-6379}" \
    ${REDIS_CA:+-CAfile "$REDIS_CA"} 2>/dev/null | tr -d '\r' | cut -d ' ' -f 1 | tr '\n' ' ') || true
  [ "$replies" != "$all_well" ] || { printf '%s\n' "$token"; exit; }
done
ca=${REDIS_CA:-the CAs of this system}
case $replies in
'') why="no answer over TLS: does it listen there, with a certificate for that name by $ca?" ;;
*WRONGPASS* | *NOAUTH*) why="it refuses the user or the password: see REDIS_USER, REDIS_PASSWORD" ;;
*NOPERM*) why="it does not permit this user that: see Least privilege in docs/redis-contract.md" ;;
*) why="it answers $replies" ;;
esac
fail 1 "Redis at $host:${REDIS_PORT:-6379} did not confirm a token: ${why% }"
