"""What ranks tell each other, over gloo; prints it as JSON; started by test_dist.py."""

import json

from vidmae.ranks import dist
from vidmae.ranks.watchdog import end_process


def main() -> None:
    ranks, called = dist.init("cpu"), []

    def act() -> int:
        called.append(ranks.rank)
        return 40 + ranks.rank

    def fail() -> None:
        raise ValueError(f"rank {ranks.rank} cannot")

    seen = {"on_main": ranks.on_main(act), "called": len(called), "main_first": ranks.main_first(act), "called_first": len(called)}
    seen |= {"first": ranks.first(f"of {ranks.rank}" if ranks.rank else None), "nobody": ranks.first(None)}
    seen |= {"joined": ranks.joined([] if ranks.rank == 1 else [(ranks.rank, "a" * ranks.rank), ranks.rank]), "none": ranks.joined([])}
    seen["all"] = ranks.joined(range(1000 * ranks.rank, 1000 * ranks.rank + 300)) == [
        value for of in ranks.gather(list(range(1000 * ranks.rank, 1000 * ranks.rank + 300))) for value in of]
    try:
        ranks.on_main(fail)
    except ValueError as error:
        seen["failed"] = str(error)
    print(json.dumps(seen))
    dist.close()
    end_process(0)


if __name__ == "__main__":
    main()
