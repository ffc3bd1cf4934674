"""Draw the sample: pictures of cats and dogs, as class folders.

python -m tools.draw_sample FOLDER [--count 800] [--seed 1]
"""

from pathlib import Path

from tools import command_line
from tools.draw_sample.sample import draw_sample


def main() -> None:
    """Parse the command line and draw."""
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="folder to create; must not exist"
    )
    parser.add_argument("--count", type=int, default=800, help="number of pictures (default: 800)")
    parser.add_argument("--seed", type=int, default=1, help="random seed (default: 1)")
    options = parser.parse_args()
    draw_sample(options.folder, options.count, options.seed)


if __name__ == "__main__":
    command_line.run(main)
