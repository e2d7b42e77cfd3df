"""What shards have gone through, kept in files, so that a run that was killed does not forget it.

    attempts = ShardAttempts(Path("outputs/archive"), {"shard-000007-of-000200"})
    attempts.begin("shard-000007-of-000200")             # attempts/shard-000007-of-000200.json is there
    attempts.died("shard-000007-of-000200", "signal 9")  # None; or why it is set aside
    attempts.end("shard-000007-of-000200")               # its result is there: the file goes

The rule. A shard is set aside when its workers died of it twice (`DEATHS`), which the run saw; or when it was under
way three times (`LOSSES`) as a run ended without a word, or as a worker's whole machine went. There it may be
innocent: all that were under way count alike, so two kills in a row cost no shard. A run that ends by an error, Ctrl-C
or SIGTERM counts for none. `set_aside/NAME.json` names the shard and the reason; who deletes it has the shard tried
again, as if it had never been.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from litegpt.common.addresses import entries_of, exists, open_address, remove, write_bytes

DEATHS, LOSSES = 2, 3
ADVICE = "Delete this file to have the shard tried again by the next run."


class ShardAttempts:
    """The files about shards that are tried.

    Attributes:
        set_aside: name -> reason, of those of the names that are.

    Args:
        folder: that holds `attempts/` and `set_aside/`, a path or an address.
        names: of the run's own shards; others may be under way in another run.
    """

    def __init__(self, folder: str | Path, names: Collection[str]):
        self.attempts, self.aside = f"{folder}/attempts", f"{folder}/set_aside"
        self.set_aside = {name: found["reason"] for name, found in _kept(self.aside, names).items()}
        self._tried = {name: found for name, found in _kept(self.attempts, names).items()}
        for name, found in self._tried.items():
            if found["under_way"]:  # a run was killed
                found["losses"].append("its run ended without a word")
                self._look_at(name)

    def begin(self, name: str) -> None:
        """A worker gets the shard."""
        self._tried.setdefault(name, {"deaths": [], "losses": []})["under_way"] = True
        self._write(name)

    def end(self, name: str) -> None:
        """Its result is there."""
        del self._tried[name]
        remove(f"{self.attempts}/{name}.json")

    def interrupt(self, name: str) -> None:
        """The run ends while the shard is under way, for reasons that are not the shard's."""
        found = self._tried[name]
        if found["deaths"] or found["losses"]:
            found["under_way"] = False
            self._write(name)
        else:
            self.end(name)

    def died(self, name: str, reason: str, with_machine: bool = False) -> str | None:
        """Its worker is gone, alone or with its whole machine; returns why the shard is set aside."""
        self._tried[name]["losses" if with_machine else "deaths"].append(reason)
        return self._look_at(name)

    def _look_at(self, name: str) -> str | None:
        found = self._tried[name]
        found["under_way"] = False
        for reasons, most in ((found["deaths"], DEATHS), (found["losses"], LOSSES)):
            if len(reasons) >= most:
                reason = f"it was tried {most} times, and each time its worker was gone: {'; '.join(reasons)}"
                self.set_aside[name] = reason
                kept = {"shard": name, "reason": reason, "advice": ADVICE}
                write_bytes(f"{self.aside}/{name}.json", json.dumps(kept, indent=2).encode() + b"\n")
                remove(f"{self.attempts}/{name}.json")
                return reason
        self._write(name)
        return None

    def _write(self, name: str) -> None:
        write_bytes(f"{self.attempts}/{name}.json", json.dumps(self._tried[name]).encode() + b"\n")


def _kept(folder: str, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """What the files of a folder say of those names."""
    found = {}
    for file in entries_of(folder)[1] if exists(folder) else []:
        name, suffix = file[:-5], file[-5:]
        if suffix == ".json" and name in names:
            with open_address(f"{folder}/{file}") as opened:
                found[name] = json.load(opened)
    return found
