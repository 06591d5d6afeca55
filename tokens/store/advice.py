"""What to do about what Redis says, in a sentence for people. Pure."""

from typing import Final

SENTINEL: Final = "this is a Sentinel: use redis+sentinel://host:26379/SERVICE"
CLUSTER_NODE: Final = "this is a node of a cluster: use redis+cluster://host:6379"
NO_CLUSTER: Final = "this is no node of a cluster: use redis://host:6379"
NO_SENTINEL: Final = "this is no Sentinel: use redis://host:6379"

SPEAKS_TLS: Final = "it answers with TLS: use rediss:// instead of redis://"
NO_WORD: Final = " without a word; if its port speaks TLS, use rediss:// instead of redis://"
NO_WORD_TLS: Final = " without a word; if it asks for our certificate, set store.cert_file"
NO_TLS: Final = "; if its port does not speak TLS, use redis:// instead of rediss://"

# By a word of what Redis said. The first that is found counts.
_ADVICE: Final = {
    "NOREPLICAS": "fewer replicas are in reach than min-replicas-to-write asks for: mend them, or "
    "ask for fewer",
    "NOPERM": "allow its user what the contract lists under Least privilege",
    "WRONGPASS": "check user and password in store.url",
    "NOAUTH": "it asks for a password: write user:password@ into store.url",
    "OOM": "it is full: raise its maxmemory",
    "MISCONF": "it cannot save: look at its log and its disk",
    "WRONGTYPE": "a key of ours is of another type: look what wrote it, then rename it",
}

# By a word of what OpenSSL said: ours have blanks, in the names of its errors there are _.
_OF_TLS: Final = {
    "wrong version number": "no TLS is spoken there: use redis:// instead of rediss://",
    "record layer failure": "no TLS is spoken there: use redis:// instead of rediss://",
    "certificate required": "it asks for a certificate of ours: set store.cert_file and key_file",
    "handshake failure": "it may ask for a certificate of ours: set store.cert_file and key_file",
    "eof occurred": "it hung up: it may ask for our certificate (store.cert_file and key_file), "
    "or speak no TLS",
    "certificate verify failed": "set store.ca_file to the CA that signed its certificate, and "
    "use the name that it is for",
}


def advise(said: str) -> str:
    """Return what was said, and what to do about it if we know."""
    advice = next((sentence for word, sentence in _ADVICE.items() if word in said), "")
    return f"{said}; {advice}" if advice else said


def of_tls(error: BaseException | str) -> str:
    """Return what to do about an error of TLS, to be put behind it; nothing for all others."""
    said = str(error).lower().replace("_", " ")
    advice = next((sentence for words, sentence in _OF_TLS.items() if words in said), "")
    return f"; {advice}" if advice else ""
