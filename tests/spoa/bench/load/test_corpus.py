import json
from pathlib import Path

import redis

from spoa.bench.load.corpus import (
    CLIENTS,
    HOST,
    METHOD,
    PATH,
    TTL_S,
    client_address,
    issue,
    mint,
    reap,
    spoil,
)
from spoa.bench.servers import private_redis
from tokens.address import candidates
from tokens.record import read_record
from tokens.token import digest, is_well_formed


def test_minted_tokens_are_well_formed_and_distinct() -> None:
    """Each of 5,000 tokens passes the agent's own check, and none comes twice."""
    tokens = mint(5000)
    assert all(is_well_formed(token.text) for token in tokens)
    assert all(token.digest == digest(token.text) for token in tokens)
    assert len({token.text for token in tokens}) == len({token.user for token in tokens}) == 5000


def test_users_have_one_size() -> None:
    """All ACKs of a scenario have the same size, because all users' names have."""
    assert {len(token.user) for token in mint(2000)} == {11}


def test_users_share_tokens_in_turn() -> None:
    """With two users every other token is the first one's; by default no user has two."""
    assert [token.user[-1:] for token in mint(5, users=2)] == [b"0", b"1", b"0", b"1", b"0"]


def test_spoiled_tokens_are_malformed() -> None:
    """A spoiled token is refused by its checksum, whatever its last digit was."""
    assert not any(is_well_formed(spoil(token).text) for token in mint(500))


def test_issued_tokens_keep_the_contract(tmp_path: Path) -> None:
    """Every record reads strictly and lives for exactly its ttl."""
    tokens = mint(2500)
    with private_redis(tmp_path) as store, redis.Redis(unix_socket_path=store.socket) as client:
        issue(store.socket, tokens)
        keys = [b"kat:t:" + token.digest for token in tokens]
        records = [read_record(raw) for raw in client.mget(keys)]
        assert [record.sub.encode() for record in records] == [token.user for token in tokens]
        assert {record.ttl_s for record in records} == {TTL_S}
        assert 0 < client.ttl(keys[-1]) <= TTL_S


def test_a_bound_token_opens_its_own_request_only(tmp_path: Path) -> None:
    """Its record names the network, host, method and path of the request with its number."""
    tokens = mint(300)
    with private_redis(tmp_path) as store, redis.Redis(unix_socket_path=store.socket) as client:
        issue(store.socket, tokens, b"other", is_bound=True)
        raws = client.mget([b"kat:t:" + token.digest for token in tokens])
    for index, record in enumerate(map(read_record, raws)):
        names = candidates(client_address(index)).decode().split()
        assert (record.acl, record.src) == (("other",), (names[1],))
        bound = (record.host, record.method, record.path)
        assert bound == ((HOST.decode(),), (METHOD.decode(),), (PATH.decode(),))


def test_every_client_has_a_network_of_its_own() -> None:
    """Nothing that remembered a few networks would be flattered."""
    networks = {candidates(client_address(index)).split()[1] for index in range(2 * CLIENTS)}
    assert len(networks) == CLIENTS


def test_reaping_counts_the_consumed_and_leaves_nothing(tmp_path: Path) -> None:
    """Tombstones are told from whole tokens and from none, and a round leaves no key behind."""
    tokens = mint(1500)
    with private_redis(tmp_path) as store, redis.Redis(unix_socket_path=store.socket) as client:
        issue(store.socket, tokens[:1400])
        for token in tokens[:40]:
            client.set(b"kat:t:" + token.digest, b"consumed claim 1 - " + json.dumps({}).encode())
        assert reap(store.socket, tokens) == (40, 1360)
        assert client.dbsize() == 0
