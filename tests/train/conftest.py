from pathlib import Path

import pytest

from tests.train.toy import SIGTERM, launch, train


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for each run: `one` process, two of them with `ddp` and `fsdp`, and runs that changed over.

    `to_fsdp` was stopped in one process and ends in two; `from_fsdp` was stopped in two and ends in one.
    `poisoned` has one epoch and meets a video that is not finite in the next; in `no_last` and `no_best` the
    last checkpoint and the best cannot be written; `output` is what the two processes said.
    """
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "one", micro=8)
    with pytest.raises(SystemExit):
        train(folder / "to_fsdp", micro=8, kill=(1, 2, SIGTERM, 0))  # before the validation of epoch 1
    train(folder / "poisoned", micro=8, epochs=1)
    (folder / "no_last" / ".last.pt.partial").mkdir(parents=True)
    (folder / "no_best").mkdir()
    (folder / "no_best" / "best").write_text("a file")
    done = launch(
        [
            {"folder": str(folder / "ddp")},
            {"folder": str(folder / "fsdp"), "parallel": "fsdp"},
            {"folder": str(folder / "ddp_accumulate"), "micro": 2, "accumulate": 2, "videos": 24},
            {
                "folder": str(folder / "fsdp_accumulate"),
                "micro": 2,
                "accumulate": 2,
                "videos": 24,
                "parallel": "fsdp",
            },
            {"folder": str(folder / "to_fsdp"), "parallel": "fsdp"},
            {"folder": str(folder / "from_fsdp"), "parallel": "fsdp", "kill": [1, 1, SIGTERM, 1]},
            {"folder": str(folder / "poisoned"), "parallel": "fsdp", "poison": 4, "epochs": 2},
            {"folder": str(folder / "no_last")},
            {"folder": str(folder / "no_best")},
        ],
        processes=2,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (folder / "output").write_text(done.stdout)
    train(folder / "from_fsdp", micro=8)
    train(folder / "one_accumulate", micro=8, videos=24)
    return folder
