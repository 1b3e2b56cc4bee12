"""``python -m batchpoint``, and the command ``batchpoint``."""

import sys


def main() -> None:
    """Run the command line and end the process with its exit code."""
    from batchpoint.cli.main import run  # noqa: PLC0415 - importing this module must cost nothing

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
