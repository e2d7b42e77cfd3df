"""How long to wait before the next attempt: twice as long each time, within bounds, never the same for two nodes.

backoff = Backoff()
backoff.next()     # between 0.5 and 1 s, then 1 to 2 s, ... at last 150 to 300 s
backoff.reset()    # it went well
"""

import random

FIRST, LONGEST = 1.0, 300.0  # seconds


class Backoff:
    def __init__(self, longest: float = LONGEST):
        self.longest, self.attempts = longest, 0

    def next(self) -> float:
        """Seconds to wait, after one more attempt that failed."""
        seconds = min(self.longest, FIRST * 2 ** min(self.attempts, 30))
        self.attempts += 1
        return seconds * random.uniform(0.5, 1)

    def reset(self) -> None:
        self.attempts = 0
