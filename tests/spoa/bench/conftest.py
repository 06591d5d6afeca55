"""A stage for everybody: a Redis and the real agent, which may take its time on a busy machine."""

from collections.abc import Iterator

import pytest

from spoa.bench.options import Options
from spoa.bench.stage import Stage, stage


@pytest.fixture(scope="session")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    options = Options(seconds=0.05, rounds=1, connections=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KAT_LIMITS__DEADLINE_MS", "10000")
        with stage(options, tmp_path_factory.mktemp("stage") / "on") as started:
            yield started
