"""Write the labelled pictures of the objects demo: handwritten digits that the package scikit-learn ships.

    python jobs/submit/example/demo_pictures.py --out demo/pictures
    python jobs/prepare.py manifest demo/pictures/digits --images --labels folders --name digits

1,797 real scans of 8 x 8 px in ten classes (E. Alpaydin and C. Kaynak 1998, UCI Machine Learning Repository, CC BY 4.0).
They are written as PNG, four times as large. OUT/digits is to learn from and OUT/digits-val to be tested on: the last --val
pictures of each class. The order of the file is that of the writers, so most test pictures are of other hands.
OUT/digits-100 has the last 10 of each class once more, for tests under many conditions. Pictures that are there already are
written anew with the same bytes.

Exit codes: 0 done, 2 usage, the package is missing, OUT cannot be written, or it holds files of others.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import io
import shutil
import sys
from pathlib import Path

import numpy as np

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from jobs.place.launch_flags import Parser
from jobs.submit.example.own_files import refuse_others
from vidmae.runs.record import make_private_folder, write_atomic

LEARN, TEST, FEW = "digits", "digits-val", "digits-100"
MOST_FEW = 10  # of each class
SIDE_PX, LARGER, BRIGHTEST = 8, 4, 16
OWN = r"\d/(\d{4}\.png|\.\d{4}\.png\.[^/]+\.tmp)"  # the second is left where the command was cut off


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """The pictures, uint8 [1797, 8, 8], and their classes, 0 to 9, in the order of the file.

    Raises:
        FileNotFoundError: The package is not there.
    """
    spec = importlib.util.find_spec("sklearn")  # found on disk: importing it takes a second
    place = Path(spec.origin).parent / "datasets/data/digits.csv.gz" if spec and spec.origin else None
    if place is None or not place.is_file():
        raise FileNotFoundError("the digits of scikit-learn are missing; install it with: pip install -r requirements.txt")
    with gzip.open(place, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.int64)
    values = np.minimum(table[:, :-1] * 256 // BRIGHTEST, 255).astype(np.uint8)
    return values.reshape(-1, SIDE_PX, SIDE_PX), table[:, -1]


def write(out: Path, val: int) -> dict[str, int]:
    """Write all pictures; how many each of the three folders has.

    Args:
        out: Folder to write to; its folders digits, digits-val and digits-100 are made anew.
        val: Test pictures of each class.
    Raises:
        FileExistsError: One of these folders holds files of somebody else.
    """
    from PIL import Image

    pictures, label = read_digits()
    counts = dict.fromkeys((LEARN, TEST, FEW), 0)
    refuse_others((out / name for name in counts), OWN)
    for name in counts:
        shutil.rmtree(out / name, ignore_errors=True)
    for digit in range(10):
        own = np.flatnonzero(label == digit)
        for place, row in enumerate(own):
            picture = Image.fromarray(pictures[row]).resize((SIDE_PX * LARGER,) * 2, Image.Resampling.BICUBIC)
            data = io.BytesIO()
            picture.convert("RGB").save(data, "PNG")
            from_end = len(own) - place
            for name in [TEST if from_end <= val else LEARN, *([FEW] if from_end <= MOST_FEW else [])]:
                write_atomic(make_private_folder(out / name / str(digit)) / f"{row:04d}.png", data.getvalue())
                counts[name] += 1
    return counts


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help=f"holds {LEARN}/, {TEST}/ and {FEW}/")
    parser.add_argument("--val", type=int, default=20, metavar="N",
                        help="test pictures of each class (default: %(default)s)")
    args: argparse.Namespace = parser.parse_args(argv)
    if not MOST_FEW <= args.val <= 100:
        parser.error(f"--val {args.val} must be {MOST_FEW} to 100")
    try:
        counts = write(args.out, args.val)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{count} pictures in {name}" for name, count in counts.items()), file=sys.stderr)
    for name in counts:
        print(args.out / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
